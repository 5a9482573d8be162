// API keys and the log of calls; goes on where the story stopped.
import { accessible, expect, fits, open, owner, signIn, sql, test } from './deck';

test.describe.configure({ mode: 'serial' });

let secret = '';

test('a key is made, and shown this once', async ({ page }) => {
  await signIn(page, '/api-keys');
  await expect(page.getByText('No keys yet')).toBeVisible();
  await accessible(page);
  await page.getByLabel('What it is for').fill('search service');
  await page.getByLabel('Embeddings').check();
  await page.getByRole('button', { name: 'Make the key' }).click();
  const fresh = page.getByRole('region', { name: 'The key for search service' });
  await expect(fresh).toContainText('not shown again');
  secret = (await fresh.locator('.copy code').textContent()) ?? '';
  expect(secret).toMatch(/^bd-[A-Za-z0-9_-]{43}$/);
  await expect(fresh.locator('pre')).toContainText(`/v1/chat/completions`);
  await accessible(page);
  await open(page, '/api-keys');
  await expect(page.locator('main')).not.toContainText(secret);
  await expect(page.getByRole('row').filter({ hasText: 'search service' })).toContainText(secret.slice(0, 9));
  await open(page, '/audit?action=api_key');
  await expect(page.locator('main')).toContainText('Made an API key');
  expect(sql('SELECT count(*) FROM api_keys')).toBe('1');
});

test('it is limited', async ({ page }) => {
  await signIn(page, '/api-keys');
  const row = page.getByRole('row').filter({ hasText: 'search service' });
  await row.getByRole('link', { name: 'Change the limits. API key: search service' }).click();
  await page.getByLabel('Messages per minute').fill('20');
  await page.getByLabel('Dollars per month').fill('2.50');
  const effect = page.getByRole('region', { name: 'What it would do' });
  await expect(effect).toContainText('Dollars per month: No limit → $2.50');
  await accessible(page);
  await effect.getByRole('button', { name: 'Save' }).click();
  await expect(page.getByText('Saved:')).toBeVisible();
  await open(page, '/api-keys');
  await expect(row).toContainText('2.50');
  expect(sql("SELECT string_agg(amount::text, ' ' ORDER BY amount) FROM scope_limits WHERE scope = 'api_key'")).toBe('20 2500000000');
  await open(page, '/plans');
  await expect(page.getByRole('region', { name: 'Other limits' })).toContainText('search service');
});

test('it is revoked, after a question', async ({ page }) => {
  await signIn(page, '/api-keys');
  const row = page.getByRole('row').filter({ hasText: 'search service' });
  await row.getByText('Revoke…').click();
  await expect(row.getByText('cannot be brought back')).toBeVisible();
  await accessible(page);
  await row.getByRole('button', { name: 'Revoke search service' }).click();
  await expect(page.getByText('Every replica refuses the key')).toBeVisible();
  await expect(row.locator('.badge')).toHaveText('Revoked');
  await expect(row.getByText('Revoke…')).toHaveCount(0);
});

test('nothing ticked is refused', async ({ page }) => {
  await signIn(page, '/api-keys');
  await page.getByLabel('What it is for').fill('nothing');
  for (const kind of ['Chat and responses', 'List of models']) await page.getByLabel(kind).uncheck();
  await page.getByRole('button', { name: 'Make the key' }).click();
  await expect(page.getByRole('alert')).toContainText('BD-INPUT');
});

test('the log is filtered, opened and walked by the keyboard', async ({ page }) => {
  sql(`INSERT INTO usage (job_id, at, user_id, bot_id, conversation_id, provider, model, prompt_tokens, completion_tokens, cached_tokens,
         reported, cost, attempts, finish, first_token_ms, total_ms, felt_ms, alias, tries, error_code)
       SELECT gen_random_uuid(), now() - n * interval '1 second', user_id, bot_id, conversation_id, 'local', 'llama', 1200, 80, 400, true, 4200000, 2,
         CASE n WHEN 1 THEN 'failed' ELSE 'stop' END, 300, 900, 1000, 'smart',
         '[{"provider":"openai","model":"gpt-4o","code":"BD-AI-DOWN","status":503,"ms":120},{"provider":"local","model":"llama","code":null,"status":200,"ms":780}]',
         CASE n WHEN 1 THEN 'BD-AI-DOWN' END
       FROM (SELECT * FROM usage WHERE user_id IS NOT NULL LIMIT 1) AS one, generate_series(1, 3) AS n`);
  await signIn(page, '/requests');
  await expect(page.getByText('openai → local').first()).toBeVisible();
  await accessible(page);
  await page.getByRole('textbox', { name: 'Model' }).fill('smart');
  await page.getByRole('button', { name: 'Apply' }).click();
  await expect(page).toHaveURL(/model=smart/);
  const rows = page.locator('.requests tbody tr');
  await expect(rows).toHaveCount(3);
  await expect(rows.filter({ hasText: 'BD-AI-DOWN' })).toContainText('Failed');
  await page.locator('h1').click();
  await page.keyboard.press('j');
  await expect(rows.nth(0).getByRole('link').first()).toBeFocused();
  await page.keyboard.press('ArrowDown');
  await expect(rows.nth(1).getByRole('link').first()).toBeFocused();
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(/open=/);
  const drawer = page.getByRole('complementary', { name: 'Request' });
  await expect(drawer).toContainText('BD-AI-DOWN (503)');
  await accessible(page);
  const second = page.url();
  await page.keyboard.press('k');
  await expect(page).not.toHaveURL(second);
  await expect(rows.nth(0)).toHaveAttribute('aria-current', 'true');
  await expect(drawer).toContainText('The provider failed.');
  await open(page, second);
  await expect(drawer).toContainText('BD-AI-DOWN (503)');
  await page.keyboard.press('Escape');
  await expect(drawer).toHaveCount(0);
  await expect(page).toHaveURL(/model=smart/);
  await page.getByRole('combobox', { name: 'Result' }).selectOption('failed');
  await page.getByRole('button', { name: 'Apply' }).click();
  await expect(rows).toHaveCount(1);
  await rows.first().locator('a[href^="/users/"]').click();
  await page.locator('main').getByRole('link', { name: 'Requests', exact: true }).click();
  await expect(page).toHaveURL(/\/requests\?user=/);
});

for (const scheme of ['light', 'dark'] as const) {
  test(`both pages are accessible and fit 360 px, ${scheme}`, async ({ page }) => {
    test.slow();
    await page.emulateMedia({ colorScheme: scheme });
    await signIn(page);
    const one = sql("SELECT job_id FROM usage WHERE alias = 'smart' LIMIT 1");
    for (const path of ['/api-keys', '/requests', `/requests?open=${one}`, '/requests?model=none-of-it']) {
      await open(page, path);
      await accessible(page);
      await page.setViewportSize({ width: 360, height: 740 });
      await fits(page);
      await accessible(page);
      if (process.env.E2E_SHOTS) {
        const name = path.replace(/[^a-z]+/g, '-').slice(0, 20);
        await page.screenshot({ path: `${process.env.E2E_SHOTS}/${name}-${scheme}-360.png`, fullPage: true });
        await page.setViewportSize({ width: 1280, height: 800 });
        await page.screenshot({ path: `${process.env.E2E_SHOTS}/${name}-${scheme}.png`, fullPage: true });
      }
      await page.setViewportSize({ width: 1280, height: 800 });
    }
  });
}

test('they speak Russian', async ({ page }) => {
  await signIn(page);
  await page.getByRole('button', { name: 'Русский' }).click();
  await expect(page.getByRole('heading', { name: 'Обзор' })).toBeVisible();
  await open(page, '/api-keys');
  await expect(page.getByRole('heading', { name: 'Ключи API' })).toBeVisible();
  await open(page, '/requests');
  await expect(page.getByRole('heading', { name: 'Запросы' })).toBeVisible();
});

test('among many they are searched, narrowed, sorted, and gone through by pages', async ({ page }) => {
  sql(`INSERT INTO api_keys (id, name, prefix, hash, scopes, created_at, created_by, expires_at, last_used_at)
       SELECT gen_random_uuid(), 'team ' || lpad(n::text, 2, '0'), 'bd-' || lpad(n::text, 6, '0'), sha256(n::text::bytea), '{chat}',
         now() - n * interval '1 hour', 'Anna', CASE WHEN n > 50 THEN now() + (n - 55) * interval '1 day' END, now() - (60 - n) * interval '1 hour'
       FROM generate_series(1, 60) AS n`);
  await signIn(page, '/api-keys');
  const names = page.locator('.api-keys tbody th b');
  const form = page.getByRole('search', { name: 'Filters' });
  await form.getByLabel('Sort by').selectOption('name');
  await form.getByLabel('Search').fill('team');
  await page.keyboard.press('Enter');
  await expect(page).toHaveURL(/q=team.*sort=name/);
  await expect(names.first()).toHaveText('team 01');
  await expect(names).toHaveCount(50);
  await page.getByRole('link', { name: 'Next' }).click();
  await expect(names.first()).toHaveText('team 51');
  await expect(names).toHaveCount(10);
  await form.getByLabel('State').selectOption('expiring');
  await form.getByRole('button', { name: 'Apply' }).click();
  await expect(names).toHaveText(['team 56', 'team 57', 'team 58', 'team 59', 'team 60']);
  await expect(page.getByText('Ends soon').first()).toBeVisible();
  await accessible(page);
  await form.getByLabel('State').selectOption('expired');
  await form.getByLabel('Sort by').selectOption('used');
  await form.getByRole('button', { name: 'Apply' }).click();
  await expect(names).toHaveText(['team 55', 'team 54', 'team 53', 'team 52', 'team 51']);
  await form.getByLabel('Search').fill('bd-000042');
  await form.getByLabel('State').selectOption('any');
  await form.getByRole('button', { name: 'Apply' }).click();
  await expect(names).toHaveText(['team 42']);
  await form.getByLabel('Search').fill('nobody has this');
  await page.keyboard.press('Enter');
  await expect(page.getByText('No key fits these filters')).toBeVisible();
  await page.getByRole('link', { name: 'Reset' }).click();
  await expect(page).toHaveURL(/\/api-keys$/);
  await expect(names).toHaveCount(50);
});

test.describe('without script', () => {
  test.use({ javaScriptEnabled: false });

  test('a key is made, shown once, and revoked', async ({ page }) => {
    await page.goto('/sign-in?next=/api-keys');
    await page.getByLabel('E-mail').fill(owner.email);
    await page.getByLabel('Password', { exact: true }).fill(owner.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByLabel('What it is for').fill('plain');
    await page.getByRole('button', { name: 'Make the key' }).click();
    await expect(page).toHaveURL(/\/api-keys/);
    const shown = page.locator('.fresh-key .copy code');
    await expect(shown).toHaveText(/^bd-/);
    const key = (await shown.textContent()) ?? '';
    // Not even sealed is it left behind.
    await page.goto('/api-keys');
    await expect(page.locator('main')).not.toContainText(key);
    expect(sql("SELECT count(*) FROM sessions WHERE data::text LIKE '%fresh_api_key%'")).toBe('0');
    const row = page.getByRole('row').filter({ hasText: 'plain' });
    await row.getByText('Revoke…').click();
    await row.getByRole('button', { name: 'Revoke plain' }).click();
    await expect(row.locator('.badge')).toHaveText('Revoked');
  });

  test('the drawer has an address of its own', async ({ page }) => {
    await page.goto('/sign-in?next=/requests%3Fmodel=smart');
    await page.getByLabel('E-mail').fill(owner.email);
    await page.getByLabel('Password', { exact: true }).fill(owner.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.locator('.request-link').first().click();
    await expect(page.getByRole('complementary', { name: 'Request' })).toContainText('BD-AI-DOWN (503)');
    await page.getByRole('link', { name: 'Close' }).click();
    await expect(page.getByRole('complementary', { name: 'Request' })).toHaveCount(0);
  });
});

test.afterAll(() => {
  sql("DELETE FROM usage WHERE alias = 'smart'; DELETE FROM scope_limits WHERE scope = 'api_key'; DELETE FROM api_keys");
});
