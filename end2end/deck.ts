// What every browser test stands on: a page whose console is watched, and the words to look for.
import AxeBuilder from '@axe-core/playwright';
import { expect, test as base, type Page } from '@playwright/test';
import { readFileSync } from 'node:fs';

export const owner = { name: 'Anna Owner', email: 'anna@example.org', password: 'a long enough password' };

/** A page; the test fails when its console holds an error or a script throws. */
export const test = base.extend({
  page: async ({ page }, use) => {
    const problems: string[] = [];
    page.on('console', message => {
      // A refused form answers with its status, which Chromium reports as an error of the network, not of the page.
      const refused = /Failed to load resource: the server responded with a status of 4\d\d/.test(message.text());
      if ((message.type() === 'error' || message.type() === 'warning') && !refused) problems.push(message.text());
    });
    page.on('pageerror', error => problems.push(String(error)));
    await use(page);
    expect(problems, 'the console is clean').toEqual([]);
  },
});

export { expect };

/** The one-time link, as the server printed it. */
export function setupLink(): string {
  const log = readFileSync(process.env.E2E_SERVER_LOG ?? '/dev/null', 'utf8');
  const link = /https?:\/\/\S+\/setup\?token=\S+/.exec(log);
  if (!link) throw new Error(`no set-up link in the server's log:\n${log}`);
  return link[0];
}

/** Waits until the script has taken the page over. */
export async function awake(page: Page) {
  await page.locator('html[data-awake]').waitFor();
}

/** Goes there and waits until the page is awake. */
export async function open(page: Page, path: string) {
  await page.goto(path);
  await awake(page);
}

export async function signIn(page: Page, next = '/') {
  await open(page, `/sign-in?next=${encodeURIComponent(next)}`);
  await page.getByLabel('E-mail').fill(owner.email);
  await page.getByLabel('Password', { exact: true }).fill(owner.password);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.waitForURL(url => url.pathname === new URL(next, url).pathname);
  await awake(page);
}

/** Nothing that axe knows of, in the colours and size the page has now. */
export async function accessible(page: Page) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map(node => node.html).join(' | ')}`)).toEqual([]);
}

/** Nothing stands out to the right of the window. */
export async function fits(page: Page) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  expect(over, 'sideways scroll in pixels').toBeLessThanOrEqual(0);
}
