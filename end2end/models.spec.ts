// Who answers: a provider with a key and a model is added, asked under a name of its own, and taken away again.
import { accessible, expect, fits, focusByTab, open, owner, signIn, test } from './deck';

test.describe.configure({ mode: 'serial' });

test('a provider, its model and a name are added, and the key is seen no more', async ({ page }) => {
  await signIn(page, '/models');
  await accessible(page);
  const form = page.getByRole('region', { name: 'Add a provider' });
  await form.getByLabel('Name').fill('Home lab');
  await form.getByLabel('Address').fill('http://127.0.0.1:9/v1');
  await form.getByLabel('Key').fill('sk-browser-0123456789abcd');
  await form.getByRole('button', { name: 'Save' }).click();
  const card = page.getByRole('region', { name: 'Home lab' });
  await expect(card).toContainText('sk-…abcd');
  const said = page.locator('main').getByRole('status').filter({ hasText: 'Saved:' });
  await expect(said).toContainText('Home lab');
  await expect(said).toContainText('http://127.0.0.1:9/v1');
  await expect(page.locator('body')).not.toContainText('0123456789');
  // There is no model yet: address and key are tried out all the same.
  await card.getByRole('button', { name: 'Test Home lab' }).click();
  await expect(card).toContainText('Asked for the list of its models.');
  await expect(card).toContainText('It does not answer:');
  await card.getByText('Add a model', { exact: true }).click();
  await card.getByLabel('Model', { exact: true }).fill('house-model');
  await card.getByLabel('Input, $ per million', { exact: true }).fill('0.25');
  await card.getByLabel('Output, $ per million', { exact: true }).fill('1');
  await card.getByRole('button', { name: 'Save' }).first().click();
  await expect(card).toContainText('$0.25 in, $1 out per million tokens');
  await expect(page.getByRole('region', { name: 'Names' })).toContainText('house-model');
  // Nobody listens there, and staff read so.
  await card.getByRole('button', { name: 'Test house-model' }).click();
  await expect(card).toContainText('Asked for one token of house-model.');
  await expect(card).toContainText('It does not answer:');
  await accessible(page);
});

test('a price keeps its past, and each model its own', async ({ page }) => {
  await signIn(page, '/models');
  const card = page.getByRole('region', { name: 'Home lab' });
  const model = card.locator('.models > li').filter({ hasText: 'house-model' });
  await model.getByText('Change', { exact: true }).click();
  await model.getByLabel('Input, $ per million', { exact: true }).fill('0.5');
  await model.getByRole('button', { name: 'Save' }).click();
  await expect(model).toContainText('$0.5 in, $0.25 cached, $1 out, $0.25 audio in per million tokens');
  const change = page.locator('main').getByRole('status').filter({ hasText: 'Saved:' }).locator('tr.changed');
  await expect(change).toHaveCount(1);
  await expect(change).toHaveText(/price_input\s*0\.25\s*0\.5/);
  await model.getByText('Price history').click();
  const past = model.locator('ul.changes li');
  await expect(past).toHaveCount(2);
  await expect(past.first()).toContainText('$0.5 in');
  await expect(past.last()).toContainText('$0.25 in');
  await accessible(page);
});

test('the order of fallback is changed by keyboard alone', async ({ page }) => {
  await signIn(page, '/models');
  const card = page.getByRole('region', { name: 'Home lab' });
  await card.getByText('Add a model', { exact: true }).click();
  await card.getByLabel('Model', { exact: true }).last().fill('spare-model');
  await card.getByRole('button', { name: 'Save' }).filter({ visible: true }).first().click();
  const names = page.getByRole('region', { name: 'Names' });
  await expect(names.locator('code', { hasText: /^spare-model$/ })).toBeVisible();
  await names.getByText('New name').click();
  const form = names.locator('form').filter({ has: page.locator('#alias-name') });
  await form.getByLabel('Name', { exact: true }).fill('house');
  await form.getByLabel('Place of house-model Home lab').fill('1');
  await form.getByLabel('Place of spare-model Home lab').fill('2');
  await form.getByRole('button', { name: 'Save' }).click();
  const way = names.locator('.routes > li').filter({ has: page.locator('code', { hasText: /^house$/ }) }).locator('.route-way');
  await expect(way).toHaveText(/house-model.*→.*spare-model/);
  await focusByTab(page, way.getByRole('button', { name: 'Ask spare-model of Home lab earlier for house' }));
  await page.keyboard.press('Enter');
  await expect(way).toHaveText(/spare-model.*→.*house-model/);
  await accessible(page);
});

test.describe('without script', () => {
  test.use({ javaScriptEnabled: false });

  test('the order of fallback is changed, and prices have a past', async ({ page }) => {
    await page.goto('/sign-in?next=/models');
    await page.getByLabel('E-mail').fill(owner.email);
    await page.getByLabel('Password', { exact: true }).fill(owner.password);
    await page.getByRole('button', { name: 'Sign in' }).click();
    const names = page.getByRole('region', { name: 'Names' });
    const way = names.locator('.routes > li').filter({ has: page.locator('code', { hasText: /^house$/ }) }).locator('.route-way');
    await way.getByRole('button', { name: 'Ask house-model of Home lab earlier for house' }).click();
    await expect(way).toHaveText(/house-model.*→.*spare-model/);
    const model = page.locator('.models > li').filter({ hasText: 'house-model' });
    await model.getByText('Price history').click();
    await expect(model.locator('ul.changes li')).toHaveCount(2);
    // What a form has changed is said without script, too.
    await model.getByText('Change', { exact: true }).click();
    await model.getByLabel('Output, $ per million', { exact: true }).fill('2');
    await model.getByRole('button', { name: 'Save' }).click();
    await expect(page).toHaveURL(/saved=model/);
    const change = page.locator('main').getByRole('status').filter({ hasText: 'Saved:' }).locator('tr.changed');
    await expect(change).toHaveText(/price_output\s*1\s*2/);
    await expect(model.locator('ul.changes li')).toHaveCount(3);
  });
});

test('the page is whole on a telephone, in both colours', async ({ page }) => {
  await page.setViewportSize({ width: 360, height: 740 });
  await signIn(page, '/models');
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme });
    await fits(page);
    await accessible(page);
  }
  for (const more of await page.getByText(/Where it leads|Change or remove the provider/).all()) await more.click();
  await fits(page);
});

test('it is taken away again, and the trail knows all of it', async ({ page }) => {
  await signIn(page, '/models');
  const card = page.getByRole('region', { name: 'Home lab' });
  await card.getByText('Change or remove the provider').click();
  await card.locator('details.confirm').last().getByText('Remove').first().click();
  await expect(card).toContainText('goes with its keys and models');
  await card.getByRole('button', { name: 'Remove' }).last().click();
  await expect(page.getByRole('region', { name: 'Home lab' })).toHaveCount(0);
  await open(page, '/audit');
  await expect(page.locator('main')).toContainText('Removed a provider');
  await expect(page.locator('main')).not.toContainText('0123456789');
});
