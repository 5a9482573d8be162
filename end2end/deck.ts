// What every browser test stands on: a page whose console is watched, and the words to look for.
import AxeBuilder from '@axe-core/playwright';
import { expect, test as base, type Locator, type Page } from '@playwright/test';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

export const owner = { name: 'Anna Owner', email: 'anna@example.org', password: 'a long enough password' };

/** The bot that is talked to in the browser. */
export const playground = '01930000-0000-7000-8000-0000000000b0';

/** The bot that the fake Telegram knows; bin/test starts that. */
export const bot = { token: process.env.E2E_BOT_TOKEN ?? '', name: 'fake_1_bot' };

interface Said {
  text: string;
  from_bot: boolean;
}

/** People at the fake Telegram, and what they see. */
export const telegram = {
  async control(action: string, init?: RequestInit): Promise<unknown> {
    const answer = await fetch(`${process.env.E2E_TELEGRAM_URL}/control/${action}`, init);
    if (!answer.ok) throw new Error(`${action}: ${await answer.text()}`);
    return answer.json();
  },
  say(chat: number, name: string, text: string) {
    const body = new URLSearchParams({ chat: String(chat), first_name: name, text, token: bot.token });
    return telegram.control('send_text', { method: 'POST', body });
  },
  /** Until nobody asks for updates any more: what is written now waits. */
  async untilNobodyAsks() {
    await expect.poll(async () => ((await telegram.state()) as { polls_open: number }).polls_open).toBe(0);
  },
  async waiting(): Promise<number> {
    return ((await telegram.state()) as { pending_updates: unknown[] }).pending_updates.length;
  },
  state: () => telegram.control(`state?token=${bot.token}`),
  async messages(chat: number): Promise<Said[]> {
    return (await telegram.control(`messages?chat=${chat}&token=${bot.token}`)) as Said[];
  },
};

/** A page; the test fails when its console holds an error or a script throws. */
export const test = base.extend({
  page: async ({ page, javaScriptEnabled }, use) => {
    const problems: string[] = [];
    page.on('console', message => {
      // A refused form answers with its status (502 when Telegram refused), which Chromium reports as an error of the network, not of
      // the page.
      const refused = /Failed to load resource: the server responded with a status of (4\d\d|502)/.test(message.text());
      // Without script nobody takes what was fetched ahead for it.
      const unused = javaScriptEnabled === false && message.text().includes('was preloaded using link preload but not used');
      if ((message.type() === 'error' || message.type() === 'warning') && !refused && !unused) problems.push(message.text());
    });
    page.on('pageerror', error => problems.push(String(error)));
    await use(page);
    expect(problems, 'the console is clean').toEqual([]);
  },
});

export { expect };

/** What no browser can bring about, or see. */
export function sql(text: string): string {
  const url = process.env.E2E_DATABASE_URL;
  if (!url) throw new Error('E2E_DATABASE_URL names the database of the server under test');
  return execFileSync('psql', ['-X', '-q', '-A', '-t', '-v', 'ON_ERROR_STOP=1', url, '-c', text], { encoding: 'utf8' }).trim();
}

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

export async function signIn(page: Page, next = '/', who = owner) {
  await open(page, `/sign-in?next=${encodeURIComponent(next)}`);
  await page.getByLabel('E-mail').fill(who.email);
  await page.getByLabel('Password', { exact: true }).fill(who.password);
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

/** Goes there by the Tab key, as somebody without a mouse does. */
export async function focusByTab(page: Page, target: Locator) {
  const focused = () => target.evaluate(element => element === document.activeElement);
  for (let steps = 0; steps < 80; steps += 1) {
    if (await focused()) return;
    await page.keyboard.press('Tab');
  }
  throw new Error(`Tab does not lead to ${target}`);
}
