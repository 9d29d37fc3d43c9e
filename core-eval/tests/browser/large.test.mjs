// The figures of a page with 5,000 images.

import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { launch, open, scratch } from "./chromium.mjs";
import { coreEval, results } from "./results.mjs";

test("a page with 5,000 images stays within 20 MB, 1 s and 600 MB, and scrolls through all of them", async () => {
  const home = join(scratch(), "large");
  const variants = Array.from({ length: 5 }, (_, i) => `variant ${i}`);
  const concepts = Array.from({ length: 10 }, (_, i) => `concept-${i}`);
  const prompts = Array.from({ length: 25 }, (_, i) => ({ kind: ["plain", "style", "background"][i % 3], prompt: `a {} number ${i} in the snow` }));
  const rows = results(home, { variants, concepts, prompts, images: 4, side: 160, patterns: 25 });
  assert.equal(rows.length, 5000);
  coreEval("report", home);
  const report = join(home, "report.html");
  const size = statSync(report).size / 1e6;
  const browser = await launch();
  try {
    // The fastest of three, as other programs may be at work.
    let page, load = Infinity;
    for (let attempt = 0; attempt < 3 && load >= 1000; attempt += 1) {
      await page?.context().close();
      page = await open(browser, report);
      load = await page.evaluate(() => { const [entry] = performance.getEntriesByType("navigation"); return entry.loadEventEnd - entry.startTime; });
    }
    await page.locator("#grid").scrollIntoViewIfNeeded();
    const frames = await page.evaluate(async () => {
      const grid = document.getElementById("grid"), times = [];
      let last = performance.now();
      for (let top = 0; top < grid.scrollHeight; top += grid.clientHeight) {
        grid.scrollTop = top;
        await new Promise(requestAnimationFrame);
        times.push(performance.now() - last);
        last = performance.now();
      }
      return times.sort((a, b) => a - b)[Math.floor(times.length / 2)];
    });
    const nodes = await page.evaluate(() => document.querySelectorAll("*").length);
    const memory = await rendererMemory(browser, page);
    console.log(`5,000 images: ${size.toFixed(1)} MB, loaded in ${load.toFixed(0)} ms, ${memory.toFixed(0)} MB in the renderer after scrolling through all, ${frames.toFixed(0)} ms per frame (median), ${nodes} elements`);
    assert.deepEqual(page.problems, []);
    assert.ok(size <= 20, `${size} MB`);
    assert.ok(load < 1000, `${load} ms`);
    assert.ok(memory < 600, `${memory} MB`);
    assert.ok(nodes < 5000, `${nodes} elements`);
  } finally {
    await browser.close();
  }
});

/** Resident memory of the largest process that draws pages, in MB. */
async function rendererMemory(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const resident = processInfo.filter((process) => process.type === "renderer").map((process) => {
    const line = readFileSync(`/proc/${process.id}/status`, "utf8").match(/VmRSS:\s+(\d+) kB/);
    return line ? Number(line[1]) / 1e3 : 0;
  });
  return Math.max(...resident);
}
