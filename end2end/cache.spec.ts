// Answers that are given again: how a bot is set so, and what was near.
import { accessible, expect, fits, open, playground, signIn, sql, test } from './deck';

test.describe.configure({ mode: 'serial' });

const path = `/bots/${playground}/near`;
const cached = () => sql(`SELECT cache, cache_seconds, cache_similar_from FROM bots WHERE id = '${playground}'`);

test('a bot is set to give answers again', async ({ page }) => {
  await signIn(page, '/bots');
  const card = page.getByRole('region', { name: 'Playground' });
  await card.getByText('Settings', { exact: true }).click();
  await card.getByLabel('Per user').check();
  await card.getByLabel('For how long').selectOption('86400');
  await card.getByLabel('Similar from').fill('0.4');
  const save = card.getByRole('button', { name: 'Save which answers Playground gives again' });
  await save.click();
  await expect(page.getByText('a likeness of 0.5 to 1')).toBeVisible();
  await card.getByLabel('Similar from').fill('0.93');
  await save.click();
  await expect(card.getByText('Saved. It holds from the next message on.')).toBeVisible();
  expect(cached()).toBe('user|86400|930');
  await accessible(page);
  await open(page, '/audit?action=bot.cache');
  await expect(page.locator('main')).toContainText('Changed which answers a bot gives again');
});

test('what was near is listed, and another threshold is tried before it is set', async ({ page }) => {
  await signIn(page, path);
  await expect(page.getByText('Nothing was near yet')).toBeVisible();
  sql(`
    UPDATE bots SET cache_similar_by = 'embed' WHERE id = '${playground}';
    INSERT INTO similar_looks (id, bot_id, at, user_id, question, near_user_id, near_question, likeness, hit)
    SELECT gen_random_uuid(), '${playground}', now() - n * interval '1 minute', u.id, 'How do I reset it ' || n || '?', u.id,
           'How can I reset it?', 1000 - n * 40, n < 2
    FROM generate_series(1, 4) AS n, (SELECT id FROM users ORDER BY created_at LIMIT 1) AS u`);
  await open(page, '/bots');
  await page.getByRole('link', { name: 'Similar questions to Playground' }).click();
  await expect(page.getByText('In force is 0.930: it takes 1 of the 4 listed.')).toBeVisible();
  await expect(page.getByText('recorded in the audit trail')).toBeVisible();
  await page.getByLabel('Try another').fill('0.88');
  await page.getByRole('button', { name: 'Show' }).click();
  await expect(page.getByText('0.880 would take 3 of the 4 listed.')).toBeVisible();
  await expect(page.getByText('would be given again')).toHaveCount(2);
  await accessible(page);
  await page.setViewportSize({ width: 360, height: 740 });
  await fits(page);
  await page.getByRole('button', { name: 'Set it to 0.880' }).click();
  await expect(page.getByText('In force is 0.880: it takes 3 of the 4 listed.')).toBeVisible();
  expect(cached()).toBe('user|86400|880');
});

test.describe('without script', () => {
  test.use({ javaScriptEnabled: false });

  test('the same is read and set', async ({ page }) => {
    await page.goto(`/sign-in?next=${encodeURIComponent(`${path}?from=0.95`)}`);
    await page.getByLabel('E-mail').fill('anna@example.org');
    await page.getByLabel('Password', { exact: true }).fill('a long enough password');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await expect(page.getByText('0.950 would take 1 of the 4 listed.')).toBeVisible();
    await page.getByRole('button', { name: 'Set it to 0.950' }).click();
    await expect(page.getByText('In force is 0.950: it takes 1 of the 4 listed.')).toBeVisible();
    sql(`DELETE FROM similar_looks; UPDATE bots SET cache = 'off', cache_similar_by = NULL WHERE id = '${playground}'`);
  });
});
