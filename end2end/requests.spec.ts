// The log of calls: ranges of time, columns, the file, and what belongs to one trace. Goes on where the story stopped.
import { readFileSync } from 'node:fs';
import type { Download, Page } from '@playwright/test';
import { accessible, expect, fits, focusByTab, open, owner, signIn, sql, test } from './deck';

// Nine hours ahead of UTC, all year.
test.use({ timezoneId: 'Asia/Tokyo' });

const trace = '4bf92f3577b34da6a3ce929d0e0e4736';
const rows = (page: Page) => page.locator('.requests tbody tr');
const heads = (page: Page) => page.locator('.requests thead th').allTextContents();
const param = (page: Page, name: string) => new URL(page.url()).searchParams.get(name);

/** Two days ago by UTC. */
const day = () => sql("SELECT ((now() AT TIME ZONE 'UTC')::date - 2)::text");

test.beforeAll(() => {
  // Just now, and two days ago at 10:30 and 11:30 UTC.
  sql(`INSERT INTO usage (job_id, at, user_id, bot_id, conversation_id, provider, model, prompt_tokens, completion_tokens, cached_tokens,
         reported, cost, attempts, finish, first_token_ms, total_ms, felt_ms, alias, trace_id)
       SELECT gen_random_uuid(), t.at, user_id, bot_id, conversation_id, 'local', 'llama', 1200, 80, 400, true, 4200000, 1, 'stop', 300, 900, 1000,
         'ranged', t.trace
       FROM (SELECT * FROM usage WHERE user_id IS NOT NULL LIMIT 1) AS one,
         (VALUES (now(), '${trace}'::uuid),
                 (((now() AT TIME ZONE 'UTC')::date - 2 + time '10:30') AT TIME ZONE 'UTC', '${trace}'),
                 (((now() AT TIME ZONE 'UTC')::date - 2 + time '11:30') AT TIME ZONE 'UTC', NULL)) AS t (at, trace)`);
});

test.afterAll(() => {
  sql("DELETE FROM usage WHERE alias = 'ranged'");
});

test('a range is one press away, and stays when something else is asked', async ({ page }) => {
  await signIn(page, '/requests?model=ranged');
  await expect(rows(page)).toHaveCount(3);
  const ranges = page.getByRole('navigation', { name: 'Period' });
  await expect(ranges.getByRole('link', { name: 'All time' })).toHaveAttribute('aria-current', 'true');
  await ranges.getByRole('link', { name: '24 hours' }).click();
  await expect(rows(page)).toHaveCount(1);
  await expect(page).toHaveURL(/past=day/);
  await expect(ranges.getByRole('link', { name: '24 hours' })).toHaveAttribute('aria-current', 'true');
  await page.getByRole('combobox', { name: 'Result' }).selectOption('good');
  await page.getByRole('button', { name: 'Apply' }).click();
  await expect(page).toHaveURL(/outcome=good/);
  await expect(page).toHaveURL(/past=day/);
  await ranges.getByRole('link', { name: '7 days' }).click();
  await expect(rows(page)).toHaveCount(3);
});

test('times are picked in the own zone, and the address holds UTC', async ({ page }) => {
  const date = day();
  await signIn(page, '/requests?model=ranged&past=hour');
  await page.getByLabel('From', { exact: true }).fill(`${date}T19:00`);
  await page.getByLabel('Until', { exact: true }).fill(`${date}T20:00`);
  await page.getByRole('button', { name: 'Apply' }).click();
  await expect(rows(page)).toHaveCount(1);
  await expect(rows(page).first().locator('time')).toHaveText(`${date} 19:30:00`);
  expect([param(page, 'from'), param(page, 'to')]).toEqual([`${date}T10:00Z`, `${date}T11:00Z`]);
  await page.reload();
  await expect(page.getByLabel('From', { exact: true })).toHaveValue(`${date}T19:00`);
  await expect(rows(page)).toHaveCount(1);
  // What was picked goes where a range is chosen instead.
  await page.getByRole('navigation', { name: 'Period' }).getByRole('link', { name: '30 days' }).click();
  await expect(rows(page)).toHaveCount(3);
  expect(param(page, 'from')).toBeNull();
  await expect(page.getByLabel('From', { exact: true })).toHaveValue('');
});

test('a time that is none, or an end before its beginning, is refused with a code', async ({ page }) => {
  await signIn(page);
  await page.goto('/requests?from=yesterday');
  await expect(page.locator('main')).toContainText('Expected a time such as 2026-11-24T10:30');
  await expect(page.locator('main')).toContainText('BD-INPUT');
  await page.goto('/requests?from=2026-11-24T10:30Z&to=2026-11-24T10:00Z');
  await expect(page.locator('main')).toContainText('Expected an end that comes after its beginning');
});

test('columns are chosen by the keyboard and kept by the address', async ({ page }) => {
  await signIn(page, '/requests?model=ranged');
  await expect(rows(page)).toHaveCount(3);
  expect(await heads(page)).not.toContain('Trace');
  const choice = page.locator('details.column-choice');
  await focusByTab(page, choice.locator('summary'));
  await page.keyboard.press('Enter');
  await accessible(page);
  await focusByTab(page, choice.getByLabel('Cost'));
  await page.keyboard.press('Space');
  // The keys of the list are letters here.
  await page.keyboard.press('j');
  await focusByTab(page, choice.getByLabel('Trace'));
  await page.keyboard.press('Space');
  await page.keyboard.press('Enter');
  await expect(page.locator('.requests thead')).toContainText('Trace');
  expect(await heads(page)).not.toContain('Cost');
  await expect(page).toHaveURL(/model=ranged/);
  await expect(rows(page).first()).toContainText(trace);
  // A filter keeps them.
  await page.getByLabel('Error code, trace or id').fill(trace);
  await page.getByRole('button', { name: 'Apply' }).click();
  await expect(rows(page)).toHaveCount(2);
  expect(await heads(page)).toContain('Trace');
  await open(page, '/requests?columns=cost,nonsense');
  expect(await heads(page)).toEqual(['Time', 'Cost']);
  await open(page, '/requests?columns=nonsense');
  expect((await heads(page)).length).toBe(8);
});

async function linesOf(download: Download): Promise<string[]> {
  expect(download.suggestedFilename()).toMatch(/^requests-\d{4}-\d\d-\d\d\.csv$/);
  const text = readFileSync(await download.path(), 'utf8');
  expect(text.startsWith('\u{feff}')).toBe(true);
  return text.slice(1).trimEnd().split('\r\n');
}

test('the file holds what the page shows', async ({ page }) => {
  const date = day();
  await signIn(page, `/requests?model=ranged&columns=who,tokens,cost,trace&to=${date}T11:00Z`);
  await expect(rows(page)).toHaveCount(1);
  const coming = page.waitForEvent('download');
  await page.getByRole('link', { name: 'CSV' }).click();
  const lines = await linesOf(await coming);
  expect(lines[0]).toBe('"Time, UTC",User,API key,Bot,Tokens in,Tokens out,Tokens cached,"Cost, $",Trace');
  expect(lines).toHaveLength(2);
  expect(lines[1]).toMatch(new RegExp(`^${date}T10:30:00Z,.*,1200,80,400,0\\.0042,${trace}$`));
  await open(page, '/audit?action=requests.export');
  await expect(page.locator('main')).toContainText('Exported the log of requests');
});

test('the drawer leads to all of a trace', async ({ page }) => {
  await signIn(page, '/requests?model=ranged');
  await rows(page).first().getByRole('link').first().click();
  const drawer = page.getByRole('complementary', { name: 'Request' });
  await expect(drawer).toContainText(trace);
  await expect(drawer.getByRole('button', { name: 'Copy' })).toHaveCount(2);
  await accessible(page);
  await drawer.getByRole('link', { name: 'All of this trace' }).click();
  await expect(drawer).toHaveCount(0);
  expect(param(page, 'code')).toBe(trace);
  await expect(rows(page)).toHaveCount(2);
});

for (const scheme of ['light', 'dark'] as const) {
  test(`with all columns it is accessible and fits 360 px, ${scheme}`, async ({ page }) => {
    await page.emulateMedia({ colorScheme: scheme });
    await signIn(page);
    const all = 'who,model,tokens,cost,first,total,felt,result,cache,status,trace,id';
    await open(page, `/requests?model=ranged&columns=${all}&from=2026-01-01T00:00Z`);
    await accessible(page);
    await page.locator('details.column-choice summary').click();
    await accessible(page);
    await page.setViewportSize({ width: 360, height: 740 });
    await fits(page);
    await accessible(page);
    const choice = page.locator('details.column-choice .menu-body');
    const box = await choice.boundingBox();
    expect(box && box.x >= 0 && box.x + box.width <= 360, 'the choice of columns lies in the window').toBe(true);
  });
}

test.describe('without script', () => {
  test.use({ javaScriptEnabled: false });

  test('times are in UTC, columns are chosen, and the file comes', async ({ page }) => {
    const date = day();
    await page.goto('/sign-in?next=/requests%3Fmodel=ranged');
    await page.getByLabel('E-mail').fill(owner.email);
    await page.getByLabel('Password', { exact: true }).fill(owner.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByLabel('From, UTC').fill(`${date}T10:00`);
    await page.getByLabel('Until, UTC').fill(`${date}T11:00`);
    await page.getByRole('button', { name: 'Apply' }).click();
    await expect(rows(page)).toHaveCount(1);
    const choice = page.locator('details.column-choice');
    await choice.locator('summary').click();
    for (const name of ['Who', 'Tokens in / out / cached', 'First token', 'Took', 'Cost']) await choice.getByLabel(name, { exact: true }).uncheck();
    await choice.getByRole('button', { name: 'Show' }).click();
    expect(await heads(page)).toEqual(['Time', 'Model', 'Result']);
    await expect(rows(page)).toHaveCount(1);
    await expect(page.getByLabel('From, UTC')).toHaveValue(`${date}T10:00`);
    const coming = page.waitForEvent('download');
    await page.getByRole('link', { name: 'CSV' }).click();
    const lines = await linesOf(await coming);
    expect(lines).toEqual(['"Time, UTC",Asked for as,Provider,Model,Finish,Error code', `${date}T10:30:00Z,ranged,local,llama,stop,`]);
  });
});
