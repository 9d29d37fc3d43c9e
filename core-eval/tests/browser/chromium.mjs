// Chromium without a network, and what a page said on its console.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const PLACES = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** A browser that cannot reach any host. */
export async function launch() {
  const executablePath = PLACES.find((path) => path && existsSync(path));
  if (!executablePath) throw new Error("Chromium is missing; install it, or name it in CHROMIUM");
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--enable-precise-memory-info",
    "--host-resolver-rules=MAP * ~NOTFOUND"];
  return chromium.launch({ executablePath, args });
}

/** Opens a file in a window of its own. `page.problems` collects errors, warnings and requests that left the disk. */
export async function open(browser, file, options = {}) {
  const context = await browser.newContext({ offline: true, viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.problems = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) page.problems.push(message.text());
  });
  page.on("pageerror", (error) => page.problems.push(String(error)));
  page.on("dialog", (dialog) => { page.problems.push(`dialog ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => {
    if (!/^(file|data|blob):/.test(request.url())) page.problems.push(`request ${request.url()}`);
  });
  await page.goto(pathToFileURL(file).href + (options.hash ?? ""));
  return page;
}

/** A folder for one test file, removed at its end. */
export function scratch() {
  const folder = mkdtempSync(join(tmpdir(), "core-eval-pages-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
