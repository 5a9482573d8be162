import { defineConfig } from '@playwright/test';

// bin/test starts the server and says where it is, which browser to take, and where to leave the counts.
export default defineConfig({
  testDir: '.',
  testMatch: '**/*.spec.ts',
  // One server and one database for all of them: in order, one at a time.
  workers: 1,
  fullyParallel: false,
  // The story begins with an empty deck; the others need what it leaves behind.
  projects: [
    { name: 'story', testMatch: 'story.spec.ts' },
    { name: 'pages', testIgnore: 'story.spec.ts', dependencies: ['story'] },
  ],
  timeout: 60_000,
  expect: { timeout: 10_000 },
  forbidOnly: !!process.env.CI,
  reporter: process.env.E2E_RESULTS ? [['list'], ['json', { outputFile: process.env.E2E_RESULTS }]] : [['list']],
  use: {
    baseURL: process.env.E2E_BASE_URL ?? 'http://127.0.0.1:3000',
    trace: 'retain-on-failure',
    screenshot: 'only-on-failure',
    launchOptions: {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: [
        '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync',
        '--no-first-run',
      ],
    },
  },
});
