// Who answers: a provider with a key and a model is added, asked under a name of its own, and taken away again.
import { accessible, expect, fits, open, signIn, test } from './deck';

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
  await expect(page.locator('body')).not.toContainText('0123456789');
  await card.getByText('Add a model', { exact: true }).click();
  await card.getByLabel('Model', { exact: true }).fill('house-model');
  await card.getByLabel('Input, $ per million', { exact: true }).fill('0.25');
  await card.getByLabel('Output, $ per million', { exact: true }).fill('1');
  await card.getByRole('button', { name: 'Save' }).first().click();
  await expect(card).toContainText('$0.25 in, $1 out per million tokens');
  await expect(page.getByRole('region', { name: 'Names' })).toContainText('house-model');
  // Nobody listens there, and staff read so.
  await card.getByRole('button', { name: 'Test house-model' }).click();
  await expect(card).toContainText('It does not answer:');
  await accessible(page);
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
