// The playground of those who may not use it, and of those who may no longer.
import { accessible, expect, fits, open, owner, playground, signIn, sql, test } from './deck';

const path = `/bots/${playground}/playground`;
const vera = { name: 'Vera Staff', email: 'vera@example.org', password: owner.password };

/** She has the owner's password. */
function staff(role: string) {
  sql(`
    INSERT INTO staff (id, email, name, role, password_hash, created_at)
    SELECT gen_random_uuid(), '${vera.email}', '${vera.name}', '${role}', password_hash, now() FROM staff WHERE email = '${owner.email}'
    ON CONFLICT (email) DO UPDATE SET role = '${role}'`);
}

test('a role that may not talk is not led there, and is told which right it lacks', async ({ page }) => {
  staff('viewer');
  await signIn(page, '/bots', vera);
  await expect(page.getByRole('heading', { name: 'Playground' }).first()).toBeVisible();
  await expect(page.locator(`a[href="${path}"]`)).toHaveCount(0);
  await open(page, path);
  await expect(page.getByText('BD-FORBIDDEN')).toBeVisible();
  await expect(page.getByText('Missing scope: playground:use')).toBeVisible();
  await expect(page.getByRole('textbox', { name: 'Message' })).toHaveCount(0);
  await expect(page.getByRole('log')).toHaveCount(0);
  await accessible(page);
  await page.setViewportSize({ width: 360, height: 740 });
  await fits(page);
});

test('who loses the right while talking is cut off, told why, and keeps what was typed', async ({ page }) => {
  staff('support');
  await signIn(page, path, vera);
  await expect(page.getByText('live', { exact: true })).toBeVisible();
  staff('viewer');
  // The stream ends, and the browser is refused another.
  await expect(page.getByText('line cut')).toBeVisible({ timeout: 20_000 });
  const input = page.getByRole('textbox', { name: 'Message' });
  await input.fill('Am I heard?');
  await input.press('Enter');
  await expect(page.getByText('BD-FORBIDDEN')).toBeVisible();
  await expect(input).toHaveValue('Am I heard?');
  await expect(page.locator('.from-me')).toHaveCount(0);
  await accessible(page);
  staff('support');
  await input.press('Enter');
  await expect(page.getByText('BD-FORBIDDEN')).toHaveCount(0);
  await open(page, path);
  await expect(page.locator('.from-me')).toContainText('Am I heard?');
  await expect(page.locator('.from-bot:not(.writing)')).toContainText(/demo/i, { timeout: 40_000 });
});
