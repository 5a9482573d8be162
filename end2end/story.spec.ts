// One deck from its first minute: each test goes on where the one before it stopped.
import { accessible, awake, expect, fits, open, owner, setupLink, signIn, test } from './deck';

test.describe.configure({ mode: 'serial' });

test('without an owner every page leads to set-up, and the link makes one', async ({ page }) => {
  await page.goto('/');
  await expect(page).toHaveURL(/\/setup/);
  await expect(page.getByText('Open the one-time link')).toBeVisible();
  await page.goto(setupLink());
  await awake(page);
  await accessible(page);
  await page.getByLabel('Name').fill(owner.name);
  await page.getByLabel('E-mail').fill(owner.email);
  await page.getByLabel('Password', { exact: true }).fill('short');
  await page.getByRole('button', { name: 'Create and sign in' }).click();
  await expect(page, 'a short password is refused').toHaveURL(/\/setup/);
  await page.getByLabel('Password', { exact: true }).fill(owner.password);
  await page.getByRole('button', { name: 'Create and sign in' }).click();
  await expect(page.getByRole('heading', { name: 'Overview' })).toBeVisible();
  await expect(page.getByText('What is left to do')).toBeVisible();
});

test('the link works once', async ({ page }) => {
  await page.goto(setupLink());
  await expect(page.getByText('The owner account exists')).toBeVisible();
});

test('a wrong password is refused in words and with a code', async ({ page }) => {
  await open(page, '/sign-in');
  await page.getByLabel('E-mail').fill(owner.email);
  await page.getByLabel('Password', { exact: true }).fill('not the password');
  await page.getByRole('button', { name: 'Sign in' }).click();
  await expect(page.getByText('BD-LOGIN')).toBeVisible();
  await expect(page.getByLabel('E-mail')).toHaveValue(owner.email);
});

test('the playground streams an answer of the demo model', async ({ page }) => {
  await signIn(page, '/bots');
  await page.getByRole('link', { name: /Playground/ }).first().click();
  await expect(page.getByRole('log')).toBeVisible();
  await page.getByRole('textbox', { name: 'Message' }).fill('Please tell me about tea');
  await page.keyboard.press('Enter');
  const answer = page.locator('.from-bot').last();
  const writing = page.locator('.from-bot.writing');
  await expect(writing).toBeVisible();
  const seen = new Set<number>();
  const grow = async () => {
    seen.add((await answer.innerText()).length);
    return writing.count();
  };
  await expect.poll(grow, { intervals: [100], timeout: 40_000 }).toBe(0);
  expect(seen.size, 'lengths seen while it grew').toBeGreaterThan(3);
  await expect(answer).toContainText(/demo/i);
  await accessible(page);
});

test('/stop cuts a running answer', async ({ page }) => {
  await signIn(page, '/bots');
  await page.getByRole('link', { name: /Playground/ }).first().click();
  const input = page.getByRole('textbox', { name: 'Message' });
  await input.fill('Another long story');
  await input.press('Enter');
  await expect(page.locator('.from-bot.writing')).toBeVisible();
  await input.fill('/stop');
  await input.press('Enter');
  await expect(page.locator('.from-bot.writing')).toHaveCount(0, { timeout: 3000 });
  await expect(page.getByText('Stopped', { exact: false }).first()).toBeVisible();
});

test('the user is found, and the transcript can be read', async ({ page }) => {
  await signIn(page, '/users');
  await page.getByRole('searchbox').first().fill('Anna');
  await page.keyboard.press('Enter');
  await page.getByRole('link', { name: owner.name }).first().click();
  await expect(page.getByRole('heading', { name: owner.name })).toBeVisible();
  await accessible(page);
  await page.getByRole('link', { name: /Playground/ }).last().click();
  await expect(page.getByText('Please tell me about tea', { exact: true })).toBeVisible();
  await expect(page.getByText('recorded in the audit trail')).toBeVisible();
  await accessible(page);
});

test('a lowered limit refuses the next message with its code', async ({ page }) => {
  await signIn(page, '/plans');
  const plan = page.getByRole('form', { name: 'free' });
  await plan.getByLabel(/Messages.*day/i).fill('1');
  await plan.getByRole('button', { name: /Save/ }).click();
  await expect(page.getByText('Saved:')).toBeVisible();
  await accessible(page);
  await open(page, '/bots');
  await page.getByRole('link', { name: /Playground/ }).first().click();
  const input = page.getByRole('textbox', { name: 'Message' });
  await input.fill('one more');
  await input.press('Enter');
  await expect(page.getByText('BD-LIMIT-DAY')).toBeVisible();
});

test('a bad amount is refused and nothing typed is lost', async ({ page }) => {
  await signIn(page, '/plans');
  const field = page.getByRole('form', { name: 'plus' }).getByLabel(/Messages.*day/i);
  await field.fill('many');
  await page.getByRole('form', { name: 'plus' }).getByRole('button', { name: /Save/ }).click();
  await expect(page.getByText('BD-INPUT')).toBeVisible();
  await expect(field).toHaveValue('many');
});

test('block and unblock, with a reason', async ({ page }) => {
  await signIn(page, '/users');
  await page.getByRole('link', { name: owner.name }).first().click();
  await page.getByText('Block…').click();
  await page.getByLabel('Reason').fill('Testing the block');
  await page.getByRole('button', { name: 'Block', exact: true }).click();
  await expect(page.getByText('Testing the block').first()).toBeVisible();
  await page.getByRole('button', { name: 'Unblock' }).click();
  await expect(page.getByText('Block…')).toBeVisible();
});

test('the audit trail shows all of it', async ({ page }) => {
  await signIn(page, '/audit');
  const body = page.locator('main');
  for (const what of [/limits/i, /block/i, /read/i, /sign/i]) await expect(body).toContainText(what);
  await page.locator('details').filter({ hasText: /What changed|Details/ }).first().locator('summary').click();
  await accessible(page);
  await page.goto('/audit?action=plan.limits');
  await expect(body).toContainText('200');
});

const pages = ['/', '/users', '/plans', '/bots', '/audit', '/bots/01930000-0000-7000-8000-0000000000b0/playground'];

for (const scheme of ['light', 'dark'] as const) {
  test(`every page is accessible and fits 360 px, ${scheme}`, async ({ page }) => {
    await page.emulateMedia({ colorScheme: scheme });
    await signIn(page);
    for (const path of pages) {
      await open(page, path);
      await accessible(page);
      await page.setViewportSize({ width: 360, height: 740 });
      await fits(page);
      await accessible(page);
      await page.setViewportSize({ width: 1280, height: 800 });
    }
  });
}

test('it speaks Russian', async ({ page }) => {
  await signIn(page);
  await page.getByRole('button', { name: 'Русский' }).click();
  await expect(page.getByRole('heading', { name: 'Обзор' })).toBeVisible();
  for (const path of pages) {
    await open(page, path);
    await expect(page.locator('html')).toHaveAttribute('lang', 'ru');
  }
});

test('keyboard: skip link, then content', async ({ page }) => {
  await signIn(page);
  await open(page, '/users');
  await page.keyboard.press('Tab');
  await expect(page.getByRole('link', { name: 'Skip to content' })).toBeFocused();
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(/#main/);
});

test.describe('without script', () => {
  test.use({ javaScriptEnabled: false });

  test('pages read and forms submit', async ({ page }) => {
    await page.goto('/sign-in');
    await page.getByLabel('E-mail').fill(owner.email);
    await page.getByLabel('Password', { exact: true }).fill(owner.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await expect(page.getByRole('heading', { name: 'Overview' })).toBeVisible();
    await page.goto('/users');
    await expect(page.getByRole('link', { name: owner.name }).first()).toBeVisible();
    await page.goto('/plans');
    const plan = page.getByRole('form', { name: 'plus' });
    await plan.getByLabel(/Messages.*minute/i).fill('61');
    await plan.getByRole('button', { name: /Save/ }).click();
    await expect(page.getByRole('form', { name: 'plus' }).getByLabel(/Messages.*minute/i)).toHaveValue('61');
  });
});

test('signing out closes the deck', async ({ page }) => {
  await signIn(page);
  await page.getByLabel('Account').click();
  await page.getByRole('button', { name: 'Sign out' }).click();
  await expect(page).toHaveURL(/\/sign-in/);
  await page.goto('/users');
  await expect(page).toHaveURL(/\/sign-in/);
});
