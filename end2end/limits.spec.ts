// Limits of everything: set on a bot with what that would do shown first, seen where the bot is, sent as a link, raised for a while,
// taken away again.
import { accessible, expect, fits, open, owner, signIn, sql, test } from './deck';

test.describe.configure({ mode: 'serial' });

const playground = '01930000-0000-7000-8000-0000000000b0';
const ofBot = `/plans/edit?owner=bot:${playground}`;

test('a limit of a bot is set after what it would do was shown, and is seen where the bot is', async ({ page }) => {
  await signIn(page, '/plans');
  await page.getByLabel('Set limits of').selectOption(`bot:${playground}`);
  await page.getByRole('button', { name: 'Open' }).click();
  await expect(page).toHaveURL(/plans\/edit\?owner=bot/);
  const effect = page.getByRole('region', { name: 'What it would do' });
  await page.getByLabel('Messages per day', { exact: true }).fill('1000');
  await expect(effect).toContainText('Messages per day: No limit → 1 000');
  await expect(effect).toContainText('It counts from now on');
  await expect(effect.locator('.use a').first(), 'who uses it most is named').toBeVisible();
  await accessible(page);
  await effect.getByRole('button', { name: 'Save' }).click();
  await expect(page.getByText('Saved:')).toBeVisible();
  await expect(effect, 'there is nothing more to save').toHaveCount(0);
  await expect(page.getByRole('region', { name: 'Used now' })).toContainText('of 1 000');

  await open(page, '/bots');
  const card = page.locator('section.card').filter({ has: page.locator(`a[href*="${playground}/playground"]`) });
  await expect(card.locator('ul.limits')).toContainText('Messages per day');
  await accessible(page);
  await open(page, '/plans');
  await expect(page.getByRole('region', { name: 'Other limits' })).toContainText('of 1 000');
});

test('what was typed last is what is shown, and nothing else can be saved', async ({ page }) => {
  await signIn(page, ofBot);
  const field = page.getByLabel('Messages per day', { exact: true });
  const save = page.getByRole('button', { name: 'Save' });
  await field.fill('5');
  await expect(page.getByText('1 000 → 5')).toBeVisible();
  await page.route('**/api/fn/limits/preview*', route => route.abort());
  await field.fill('50');
  await expect(save, 'what it would do was not shown').toBeDisabled();
  await page.unroute('**/api/fn/limits/preview*');
  await field.fill('500');
  await expect(page.getByText('1 000 → 500')).toBeVisible();
  await expect(save).toBeEnabled();
  await field.fill('0');
  await expect(page.getByText('0: lets nothing through')).toBeVisible();
  await field.fill('');
  await expect(page.getByText('1 000 → No limit')).toBeVisible();
});

test('a proposal is an address that can be sent', async ({ page }) => {
  await signIn(page, ofBot);
  await page.getByLabel('Messages per day', { exact: true }).fill('7');
  await page.getByRole('button', { name: 'Show what it would do' }).click();
  await expect(page).toHaveURL(/messages_per_day=7/);
  await open(page, page.url());
  await expect(page.getByLabel('Messages per day', { exact: true })).toHaveValue('7');
  await expect(page.getByText('1 000 → 7')).toBeVisible();
});

test('by the days of a time zone, and with a threshold', async ({ page }) => {
  await signIn(page, '/plans');
  await page.getByRole('link', { name: 'Change the limits. Plan: plus' }).click();
  await page.getByText('More limits, time zone, threshold').click();
  await page.getByLabel('Tokens in all').fill('5000000');
  await page.getByLabel('Time zone').fill('Europe/Berlin');
  const effect = page.getByRole('region', { name: 'What it would do' });
  await expect(effect).toContainText('Time zone: UTC → Europe/Berlin');
  await effect.getByRole('button', { name: 'Save' }).click();
  await expect(page.getByText('Saved:')).toBeVisible();
  await open(page, page.url());
  await expect(page.getByLabel('Tokens in all')).toHaveValue('5000000');
  await expect(page.getByLabel('Time zone')).toHaveValue('Europe/Berlin');
  await page.getByLabel('Time zone').fill('Mars/Olympus');
  await expect(page.getByText('BD-INPUT')).toBeVisible();
});

test('a limit that many share is raised for a while, and begun anew', async ({ page }) => {
  await signIn(page, '/plans/edit?owner=deployment');
  const field = page.getByLabel('Images per month', { exact: true });
  const limit = async (amount: string) => {
    await field.fill(amount);
    await page.getByRole('region', { name: 'What it would do' }).getByRole('button', { name: 'Save' }).click();
    await expect(page.getByText('Saved:')).toBeVisible();
  };
  await page.getByText('More limits, time zone, threshold').click();
  await limit('500');
  sql(`INSERT INTO scope_counters (scope, subject, measure, period, starts_at, used)
       VALUES ('deployment', '', 'images', 'month', date_trunc('month', now(), 'UTC'), 3)`);
  await open(page, '/plans/edit?owner=deployment');
  const use = page.getByRole('region', { name: 'Used now' });
  await expect(use).toContainText('3 of 500');
  const raise = async (amount: string) => {
    await use.getByLabel('Limit until then').fill(amount);
    await use.getByLabel('To the end of (UTC)').fill('2999-12-31');
    await use.getByRole('button', { name: 'Set', exact: true }).click();
  };
  await raise('900');
  await expect(use).toContainText('3 of 900');
  await expect(use).toContainText('raised until');
  await accessible(page);
  await use.getByRole('button', { name: 'Images per month: begin anew' }).click();
  await expect(use).toContainText('0 of 900');
  await expect(use.getByRole('button', { name: 'Images per month: begin anew' }), 'nothing is used').toHaveCount(0);
  await raise('1');
  await expect(use.getByText('BD-INPUT')).toBeVisible();
  await raise('');
  await expect(use).toContainText('0 of 500');
  await expect(page.getByRole('region', { name: 'History' })).toContainText('Began a limit anew');
  await limit('');
  await expect(use).toHaveCount(0);
});

test('a minute of a plan is judged by the busiest ones of its users', async ({ page }) => {
  await signIn(page, '/plans');
  await page.getByRole('link', { name: 'Change the limits. Plan: free' }).click();
  await page.getByLabel('Messages per minute', { exact: true }).fill('3');
  const effect = page.getByRole('region', { name: 'What it would do' });
  await expect(effect).toContainText('had a minute with more messages than that');
  await expect(effect).toContainText('By the busiest minute of each');
  await accessible(page);
});

test('a plan lists the models that its users may choose', async ({ page }) => {
  await signIn(page, '/plans');
  await page.getByRole('link', { name: 'Change the limits. Plan: plus' }).click();
  const models = page.getByRole('region', { name: 'Models allowed' });
  const first = models.getByRole('checkbox').first();
  await expect(first).not.toBeChecked();
  await first.check();
  await accessible(page);
  await models.getByRole('button', { name: 'Allow these' }).click();
  await expect(models.getByText('Saved.')).toBeVisible();
  await expect(page.getByRole('region', { name: 'History' })).toContainText('Changed the models of a plan');
  await open(page, '/plans');
  await expect(page.getByRole('region', { name: 'plus' })).toContainText('Models allowed');
  await page.getByRole('link', { name: 'Change the limits. Plan: plus' }).click();
  await expect(first).toBeChecked();
  await first.uncheck();
  await models.getByRole('button', { name: 'Allow these' }).click();
  await expect(models.getByText('Saved.')).toBeVisible();
  await open(page, '/plans');
  await expect(page.getByRole('region', { name: 'plus' })).not.toContainText('Models allowed');
});

for (const scheme of ['light', 'dark'] as const) {
  test(`the form and what it would do are whole on a telephone, ${scheme}`, async ({ page }) => {
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width: 360, height: 740 });
    await signIn(page, '/plans');
    await fits(page);
    await accessible(page);
    await open(page, `${ofBot}&preview=yes&messages_per_day=0&tokens_per_month=1&money_total=0.01`);
    await expect(page.getByRole('region', { name: 'What it would do' })).toBeVisible();
    await fits(page);
    await accessible(page);
  });
}

test.describe('without script', () => {
  test.use({ javaScriptEnabled: false });

  test('shown, saved with its difference, and taken away', async ({ page }) => {
    await page.goto(`/sign-in?next=${encodeURIComponent(ofBot)}`);
    await page.getByLabel('E-mail').fill(owner.email);
    await page.getByLabel('Password', { exact: true }).fill(owner.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    const limit = async (amount: string) => {
      await page.getByLabel('Messages per day', { exact: true }).fill(amount);
      await page.getByRole('button', { name: 'Show what it would do' }).click();
    };
    await limit('many');
    await expect(page.getByText('BD-INPUT')).toBeVisible();
    await expect(page.getByLabel('Messages per day', { exact: true })).toHaveValue('many');
    await limit('900');
    await expect(page.getByText('1 000 → 900')).toBeVisible();
    await page.getByRole('button', { name: 'Save' }).click();
    const saved = page.locator('.notice.good');
    await expect(saved.locator('del')).toHaveText('1000');
    await expect(saved.locator('ins')).toHaveText('900');
    await limit('');
    await expect(page.getByText('900 → No limit')).toBeVisible();
    await page.getByRole('button', { name: 'Save' }).click();
    await expect(page.getByLabel('Messages per day', { exact: true })).toHaveValue('');
    const history = page.getByRole('region', { name: 'History' }).locator('.trail > li');
    await expect(history).toHaveCount(3);
    await expect(history.first()).toContainText(owner.name);
    await page.goto('/bots');
    await expect(page.locator('ul.limits')).toHaveCount(0);
  });

  test('raised for a while', async ({ page }) => {
    const ofDeck = '/plans/edit?owner=deployment';
    await page.goto(`/sign-in?next=${encodeURIComponent(ofDeck)}`);
    await page.getByLabel('E-mail').fill(owner.email);
    await page.getByLabel('Password', { exact: true }).fill(owner.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    const limit = async (amount: string) => {
      await page.getByLabel('Tokens per day', { exact: true }).fill(amount);
      await page.getByRole('button', { name: 'Show what it would do' }).click();
      await page.getByRole('button', { name: 'Save' }).click();
    };
    await limit('7000');
    const use = page.getByRole('region', { name: 'Used now' });
    await use.getByLabel('Limit until then').fill('9000');
    await use.getByLabel('To the end of (UTC)').fill('2999-12-31');
    await use.getByRole('button', { name: 'Set', exact: true }).click();
    await expect(use).toContainText('of 9 000');
    await expect(use).toContainText('raised until');
    await limit('');
    await expect(use).toHaveCount(0);
  });
});
