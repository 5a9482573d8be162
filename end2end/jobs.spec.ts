// The queue and the bots, as staff see and govern them; goes on where the story stopped: the owner is there, and has talked.
import { accessible, expect, fits, open, owner, playground, signIn, sql, test } from './deck';
import type { Page } from '@playwright/test';

test.describe.configure({ mode: 'serial' });

/** Jobs as the queue leaves them. Each asks for help, which costs nothing, in a chat of its own. */
function jobs(count: number, state: string, set: string, value: string) {
  sql(`
    WITH person AS (SELECT external_id AS id FROM users WHERE transport = 'browser' LIMIT 1),
    new AS (
      INSERT INTO updates (id, bot_id, update_id, kind, message_id, payload, received_at)
      SELECT gen_random_uuid(), '${playground}', u, 'message', u, jsonb_build_object('update_id', u, 'message', jsonb_build_object(
               'message_id', u, 'date', 1795378000, 'text', '/help a very private text',
               'entities', '[{"type": "bot_command", "offset": 0, "length": 5}]'::jsonb,
               'chat', jsonb_build_object('id', person.id, 'type', 'private', 'first_name', 'Secret'),
               'from', jsonb_build_object('id', person.id, 'is_bot', false, 'first_name', 'Secret'))), now()
      FROM person, (SELECT nextval('browser_revisions') + 1000000000 AS u FROM generate_series(1, ${count})) AS numbers
      RETURNING id, update_id
    )
    INSERT INTO jobs (id, kind, lane, payload, state, attempts, created_at, ${set})
    SELECT id, 'update', '${playground}/' || update_id || '/0', '{}', '${state}', 25, now() - interval '2 hours', ${value} FROM new`);
}

const bury = (count: number, cause: string) =>
  jobs(count, 'dead', 'last_error, finished_at', `'${cause}', now() - interval '20 minutes'`);

const count = (where: string) => Number(sql(`SELECT count(*) FROM jobs WHERE ${where}`));

const row = (page: Page, cause: string) => page.getByRole('row').filter({ hasText: cause });

test('dead letters show their cause, and nothing of what was written', async ({ page }) => {
  bury(3, 'Bad Request: chat not found');
  bury(2, 'the model list is empty');
  await signIn(page, '/jobs');
  await expect(page.getByRole('link', { name: /Dead letters/ })).toContainText('5');
  await expect(row(page, 'chat not found')).toHaveCount(3);
  await page.getByText('Payload, redacted').first().click();
  await expect(page.locator('.payload pre').first()).toContainText('text: "…" 25');
  await expect(page.locator('main')).not.toContainText('very private');
  await expect(page.locator('main')).not.toContainText('Secret');
  await expect(page.getByRole('link', { name: owner.name }).first()).toHaveAttribute('href', /\/users\//);
  await accessible(page);
});

test('lists are narrowed by the words of the cause', async ({ page }) => {
  await signIn(page, '/jobs');
  await page.getByLabel('Cause').fill('MODEL LIST');
  await page.getByRole('button', { name: 'Apply' }).click();
  await expect(page).toHaveURL(/q=MODEL/);
  await expect(row(page, 'model list')).toHaveCount(2);
  await expect(row(page, 'chat not found')).toHaveCount(0);
  await page.getByRole('link', { name: 'Reset' }).click();
  await expect(row(page, 'chat not found')).toHaveCount(3);
});

test('one is put back into the queue, and is worked off', async ({ page }) => {
  const before = count("state = 'done'");
  await signIn(page, '/jobs');
  await row(page, 'chat not found').first().getByRole('checkbox').check();
  await expect(page.getByText('Chosen: 1')).toBeVisible();
  await page.getByText('Retry…').click();
  await expect(page.getByText('go back into the queue')).toBeVisible();
  await accessible(page);
  await page.getByRole('button', { name: 'Put back into the queue' }).click();
  await expect(page.getByText('1 job put back into the queue.')).toBeVisible();
  await expect(page.getByRole('link', { name: /Dead letters/ })).toContainText('4');
  await expect.poll(() => count("state = 'done'")).toBe(before + 1);
});

test('nothing chosen changes nothing', async ({ page }) => {
  await signIn(page, '/jobs');
  await page.getByText('Retry…').click();
  await page.getByRole('button', { name: 'Put back into the queue' }).click();
  await expect(page.getByText('BD-INPUT')).toBeVisible();
  expect(count("state = 'dead'")).toBe(4);
});

test('all of a page are discarded, and kept for a while', async ({ page }) => {
  await signIn(page, '/jobs?state=dead&q=chat');
  await page.getByLabel('All on this page').check();
  for (const box of await row(page, 'chat not found').getByRole('checkbox').all()) await expect(box).toBeChecked();
  await page.getByText('Discard…').click();
  await expect(page.getByText('will not be tried again')).toBeVisible();
  await page.getByRole('button', { name: 'Discard them' }).click();
  await expect(page.getByText('2 jobs discarded.')).toBeVisible();
  await page.getByRole('link', { name: /Discarded/ }).click();
  await expect(row(page, 'chat not found')).toHaveCount(2);
  await open(page, '/audit?action=job');
  await expect(page.locator('main')).toContainText('Discarded a job');
  await expect(page.locator('main')).toContainText('Put a job back');
});

test('one that is to be tried again is given up', async ({ page }) => {
  jobs(2, 'ready', 'run_at, last_error', "now() + interval '1 hour', 'the provider is busy'");
  await signIn(page, '/jobs?state=retrying');
  await expect(row(page, 'the provider is busy')).toHaveCount(2);
  await row(page, 'the provider is busy').first().getByRole('checkbox').check();
  await page.getByText('Discard…').click();
  await page.getByRole('button', { name: 'Discard them' }).click();
  await expect(page.getByText('1 job discarded.')).toBeVisible();
  await expect(row(page, 'the provider is busy')).toHaveCount(1);
  expect(count("state = 'discarded' AND last_error = 'the provider is busy'")).toBe(1);
  await page.getByRole('link', { name: /Discarded/ }).click();
  await expect(row(page, 'the provider is busy')).toHaveCount(1);
});

test('a job that somebody holds is shown with its worker', async ({ page }) => {
  jobs(1, 'running', 'lease_token, lease_until, claimed_at, worker',
    "gen_random_uuid(), now() + interval '1 hour', now() - interval '70 seconds', 'another-replica'");
  await signIn(page, '/jobs?state=running');
  await expect(row(page, 'another-replica')).toHaveCount(1);
  await expect(page.getByRole('region', { name: 'Running now' })).toContainText('another-replica');
});

test('persona and model of a bot are changed', async ({ page }) => {
  await signIn(page, '/bots');
  const card = page.getByRole('region', { name: 'Playground' });
  await card.getByText('Settings', { exact: true }).click();
  await card.getByLabel('Persona', { exact: true }).fill('You are a pirate.\nSay arr.');
  await accessible(page);
  await card.getByRole('button', { name: /Save settings/ }).click();
  await expect(page.getByText('It holds from the next message on')).toBeVisible();
  expect(sql(`SELECT persona FROM bots WHERE id = '${playground}'`)).toBe('You are a pirate.\nSay arr.');
  await open(page, '/audit?action=bot.edit');
  await expect(page.locator('main')).toContainText("Changed a bot's persona or model");
});

const pages = ['/jobs', '/jobs?state=retrying', '/jobs?state=running', '/jobs?state=waiting', '/jobs?state=discarded', '/bots'];

for (const scheme of ['light', 'dark'] as const) {
  test(`every list is accessible and fits 360 px, ${scheme}`, async ({ page }) => {
    test.slow();
    jobs(1, 'ready', 'last_error, run_at', "'the provider is busy', now() + interval '1 hour'");
    await page.emulateMedia({ colorScheme: scheme });
    await signIn(page);
    for (const path of pages) {
      await open(page, path);
      for (const fold of await page.locator('#job-list details.payload > summary, details.unfold > summary').all()) await fold.click();
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
  await open(page, '/jobs');
  await expect(page.getByRole('heading', { name: 'Задачи' })).toBeVisible();
});

test.describe('without script', () => {
  test.use({ javaScriptEnabled: false });

  test('a whole page is put back, and a bot is changed', async ({ page }) => {
    await page.goto('/sign-in?next=/jobs');
    await page.getByLabel('E-mail').fill(owner.email);
    await page.getByLabel('Password', { exact: true }).fill(owner.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await expect(row(page, 'model list')).toHaveCount(2);
    await page.getByLabel('All on this page').check();
    await page.getByText('Retry…').click();
    await page.getByRole('button', { name: 'Put back into the queue' }).click();
    await expect(page).toHaveURL(/\/jobs/);
    await expect(page.getByText('No dead letters')).toBeVisible();
    await page.goto('/bots');
    const card = page.getByRole('region', { name: 'Playground' });
    await card.getByText('Settings', { exact: true }).click();
    await card.getByLabel('Persona', { exact: true }).fill('You are a poet.');
    await card.getByRole('button', { name: /Save settings/ }).click();
    await expect(page).toHaveURL(/\/bots/);
    await expect.poll(() => sql(`SELECT persona FROM bots WHERE id = '${playground}'`)).toBe('You are a poet.');
  });
});

test.afterAll(() => {
  sql(`DELETE FROM jobs WHERE worker = 'another-replica'; UPDATE bots SET persona = '' WHERE id = '${playground}'`);
});
