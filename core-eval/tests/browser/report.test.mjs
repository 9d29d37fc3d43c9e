// The report page as a reader uses it, without a network.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, open, scratch } from "./chromium.mjs";
import { coreEval, results } from "./results.mjs";

const HOSTILE = "<img src=x onerror=alert(1)>";
const VARIANTS = ["CoRe", "Textual Inversion", HOSTILE];
const CONCEPTS = ["spotted-dog", "striped-cup"];
const PROMPTS = [
  { kind: "plain", prompt: "a {}" },
  { kind: "plain", prompt: "a photo of a {}" },
  { kind: "style", prompt: "a painting of a {}" },
  { kind: "style", prompt: `a {} <script>alert(2)</script>${HOSTILE}` },
  { kind: "background", prompt: "a {} in the snow, \"quoted\", and | more" },
];

const folder = scratch();
const home = join(folder, "small");
const report = join(home, "report.html");
let browser, rows;

before(async () => {
  rows = results(home, { variants: VARIANTS, concepts: CONCEPTS, prompts: PROMPTS, protocols: ["dreambooth", "core"] });
  coreEval("report", home);
  browser = await launch();
});
after(() => browser.close());

/** Opens the page, does something, and checks that nothing was said on the console or left the disk. */
async function use(act, options) {
  const page = await open(browser, options?.file ?? report, options);
  try {
    await act(page);
    assert.deepEqual(page.problems, []);
  } finally {
    await page.context().close();
  }
}

const count = (page) => page.locator("#count").textContent();
const meanOf = (variant, metric) => {
  const values = CONCEPTS.map((concept) => {
    const own = rows.filter((row) => row.variant === variant && row.concept === concept).map((row) => row[metric]);
    return own.reduce((a, b) => a + b) / own.length;
  });
  return values.reduce((a, b) => a + b) / values.length;
};

test("loads without a network and without a word on the console", () => use(async (page) => {
  assert.equal(await page.locator("h1").textContent(), "small");
  assert.equal(await page.locator("#scores tbody tr[data-variant]").count(), VARIANTS.length);
  assert.match(await page.locator(".warnings").textContent(), /One seed/);
  await page.locator("#grid").scrollIntoViewIfNeeded();
  await page.waitForSelector("#grid [role=gridcell]");
}));

test("sorting by DINO puts the variant with the highest mean of the CSV first", () => use(async (page) => {
  await page.click('[data-sort="dino"]');
  const first = page.locator("#scores tbody tr").first();
  const best = [...VARIANTS].sort((a, b) => meanOf(b, "dino") - meanOf(a, "dino"))[0];
  assert.equal(await first.getAttribute("data-variant"), best);
  const shown = Number(await first.locator("td").nth(2).locator("span").first().textContent());
  assert.ok(Math.abs(shown - meanOf(best, "dino")) < 1e-4, `${shown}`);
  assert.equal(await page.locator("th", { has: page.locator('[data-sort="dino"]') }).getAttribute("aria-sort"), "descending");
  await page.click('[data-sort="dino"]');
  const last = await page.locator("#scores tbody tr[data-variant]").last().getAttribute("data-variant");
  assert.equal(last, best);
}));

test("the filter by kind shows as many images as the CSV has", () => use(async (page) => {
  await page.locator('#filters [data-key="kind"]').selectOption("style");
  const expected = rows.filter((row) => row.kind === "style").length;
  assert.equal(await count(page), `${expected / VARIANTS.length} rows, ${expected} images`);
  await page.locator("#filters").getByLabel("search").fill("painting");
  const found = rows.filter((row) => row.kind === "style" && row.prompt.includes("painting")).length;
  assert.equal(await count(page), `${found / VARIANTS.length} rows, ${found} images`);
}));

test("largest loss starts with the image that loses most against the baseline", () => use(async (page) => {
  const filters = page.locator("#filters");
  await filters.getByLabel("view").selectOption("loss");
  await filters.getByLabel("counted for").selectOption("1");
  const baseline = new Map(rows.filter((row) => row.variant === "CoRe").map((row) => [row.image.split("/").slice(2).join("/"), row.dino]));
  const losses = rows.filter((row) => row.variant === "Textual Inversion").map((row) => row.dino - baseline.get(row.image.split("/").slice(2).join("/")));
  const cell = page.locator('[data-at="0,1"]');
  await cell.waitFor();
  assert.match(await cell.textContent(), new RegExp(`▼${Math.abs(Math.min(...losses)).toFixed(3)}$`));
  assert.match(await count(page), /^20 rows/);
}));

test("masks under 3 % and near copies are found under the protocol that has them", () => use(async (page) => {
  await page.locator("#filters").getByLabel("protocol").selectOption("1");
  await page.locator("#filters").getByLabel("view").selectOption("mask");
  const small = new Set(rows.filter((_, i) => (i % 40) / 100 < 0.03).map((row) => row.image.split("/").slice(2).join("/")));
  assert.match(await count(page), new RegExp(`^${small.size} rows`));
  await page.locator("#filters").getByLabel("view").selectOption("copies");
  const close = new Set(rows.filter((_, i) => 0.5 + (i % 50) / 100 > 0.95).map((row) => row.image.split("/").slice(2).join("/")));
  assert.match(await count(page), new RegExp(`^${close.size} rows`));
}));

test("the pair view shows two variants on one noise, moves on, and its link restores it", () => use(async (page) => {
  await page.locator('[data-at="0,1"]').click();
  const pair = async () => ({
    prompt: await page.locator("#prompt").textContent(),
    noise: await page.locator("#noise").textContent(),
    images: await page.locator("#stage .pic").evaluateAll((all) => all.map((e) => e.dataset.image)),
    seeds: await page.locator("#stage .pic").evaluateAll((all) => all.map((e) => e.dataset.seed)),
    shown: await page.locator("#stage img").evaluateAll((all) => Promise.all(all.map((e) => e.decode().then(() => decodeURIComponent(e.src).split("/").slice(-4).join("/"))))),
  });
  const first = await pair();
  assert.equal(first.prompt, "a dog");
  for (let i = 0; i < 2; i++) await page.keyboard.press("ArrowRight");
  const second = await pair();
  assert.equal(second.prompt, "a photo of a dog");
  assert.equal(second.seeds[0], second.seeds[1]);
  assert.equal(second.shown[0], second.shown[1], "both are one concept, seed, prompt and number");
  assert.notEqual(second.images[0], second.images[1]);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("2");
  assert.equal(await page.locator("#stage.slider").count(), 1);
  const there = await pair();
  const hash = new URL(page.url()).hash;
  await use(async (other) => {
    assert.equal(await other.locator("#prompt").textContent(), there.prompt);
    assert.deepEqual(await other.locator("#stage .pic").evaluateAll((all) => all.map((e) => e.dataset.image)), there.images);
    assert.equal(await other.locator("#stage.slider").count(), 1);
  }, { hash });
  await page.keyboard.down("Space");
  assert.equal(await page.locator("#stage.other").count(), 1, "Space shows the other");
  await page.keyboard.up("Space");
  assert.equal(await page.locator("#stage.other").count(), 0);
  await page.keyboard.press("4");
  assert.equal(await page.locator("#stage.difference").count(), 1);
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("dialog[open]").count(), 0);
  assert.equal(await page.locator('[data-at="0,1"]').count(), 1);
}));

test("both images zoom together", () => use(async (page) => {
  await page.locator('[data-at="0,1"]').click();
  await page.keyboard.press("+");
  const transforms = await page.locator("#stage img").evaluateAll((all) => all.map((e) => getComputedStyle(e).transform));
  assert.deepEqual(new Set(transforms).size, 1);
  assert.match(transforms[0], /^matrix\(1\.25, 0, 0, 1\.25/);
}));

test("the gallery is walked with the arrow keys and one cell alone is in the tab order", () => use(async (page) => {
  const cell = page.locator('[role=gridcell][tabindex="0"]');
  await cell.focus();
  for (const key of ["ArrowDown", "ArrowDown", "ArrowRight"]) await page.keyboard.press(key);
  assert.equal(await page.evaluate(() => document.activeElement.dataset.at), "2,1");
  assert.equal(await cell.count(), 1);
  assert.match(await cell.getAttribute("aria-label"), /^Textual Inversion, spotted-dog, a photo of a dog, DINO 0\.\d+$/);
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("dialog[open]").count(), 1);
}));

test("a variant that is switched off leaves every part of the page", () => use(async (page) => {
  await page.locator("#results .legend button", { hasText: "Textual Inversion" }).click();
  assert.equal(await page.locator("#scores tr[data-variant]").count(), VARIANTS.length - 1);
  assert.equal(await page.locator("#grid [role=columnheader]").count(), VARIANTS.length);
  assert.doesNotMatch(await page.locator("#forest").textContent(), /Textual/);
}));

test("hostile names of variants and prompts stay text", () => use(async (page) => {
  assert.equal(await page.locator('img[src="x"]').count(), 0);
  assert.equal(await page.locator("#scores th", { hasText: HOSTILE }).count(), 1);
  await page.locator("#filters").getByLabel("search").fill("<script>");
  await page.locator('[data-at="0,2"]').click();
  assert.equal(await page.locator("#prompt").textContent(), `a dog <script>alert(2)</script>${HOSTILE}`);
  await page.locator("#stage img").evaluateAll((all) => Promise.all(all.map((e) => e.decode())));
  assert.equal(await page.locator('img[src="x"]').count(), 0);
}));

test("the copied tables are the expected texts", async () => {
  const exact = join(folder, "exact");
  results(exact, { variants: ["CoRe", "50 % & <more>"], concepts: ["dog"], prompts: PROMPTS, patterns: 2, scores: [[0.25, 0.75, -0.5], [0.5, 0.25, -0.25]] });
  coreEval("report", exact);
  await use(async (page) => {
    const copied = async (kind) => {
      await page.getByRole("button", { name: `Copy as ${kind}` }).click();
      return page.locator("#copied").inputValue();
    };
    assert.equal(await copied("LaTeX"), `\\begin{tabular}{lccc}
\\toprule
Method & CLIP-T & CLIP-I & DINO \\\\
\\midrule
CoRe & 0.2500 {\\scriptsize[0.2500, 0.2500]} & \\textbf{0.7500} {\\scriptsize[0.7500, 0.7500]} & $-$0.5000 {\\scriptsize[$-$0.5000, $-$0.5000]} \\\\
50 \\% \\& \\textless{}more\\textgreater{} & \\textbf{0.5000} {\\scriptsize[0.5000, 0.5000]} & 0.2500 {\\scriptsize[0.2500, 0.2500]} & \\textbf{$-$0.2500} {\\scriptsize[$-$0.2500, $-$0.2500]} \\\\
\\bottomrule
\\end{tabular}
`);
    assert.equal(await copied("Markdown"), `| variant | CLIP-T | CLIP-I | DINO |
|---|---|---|---|
| CoRe | 0.2500 [0.2500, 0.2500] | 0.7500 [0.7500, 0.7500] | -0.5000 [-0.5000, -0.5000] |
| 50 % & <more> | 0.5000 [0.5000, 0.5000] (+0.2500 [+0.2500, +0.2500]) | 0.2500 [0.2500, 0.2500] (-0.5000 [-0.5000, -0.5000]) | -0.2500 [-0.2500, -0.2500] (+0.2500 [+0.2500, +0.2500]) |
`);
    const columns = ["clip_t", "clip_i", "dino"].flatMap((m) => ["", "_low", "_high", "_difference", "_difference_low", "_difference_high"].map((end) => m + end));
    assert.equal(await copied("CSV"), `variant,${columns.join()}
CoRe,0.25,0.25,0.25,,,,0.75,0.75,0.75,,,,-0.5,-0.5,-0.5,,,
50 % & <more>,0.5,0.5,0.5,0.25,0.25,0.25,0.25,0.25,0.25,-0.5,-0.5,-0.5,-0.25,-0.25,-0.25,0.25,0.25,0.25
`);
  }, { file: join(exact, "report.html") });
});

test("a masked protocol's masks lie over both images on request", () => use(async (page) => {
  await page.locator('[data-at="0,1"]').click();
  assert.equal(await page.locator("#stage svg").count(), 0);
  await page.keyboard.press("m");
  assert.equal(await page.locator("#stage svg").count(), 2);
}));

test("images that alternate by themselves stand still where motion is unwanted", async () => {
  for (const [reducedMotion, disabled] of [["reduce", true], ["no-preference", false]]) {
    await use(async (page) => {
      await page.locator('[data-at="0,1"]').click();
      await page.keyboard.press("3");
      assert.equal(await page.locator("#alternate").isDisabled(), disabled);
    }, { reducedMotion });
  }
});

test("a print holds all rows of the chosen filter with their images, none of which was in view before", () => use(async (page) => {
  await page.locator('#filters [data-key="kind"]').selectOption("plain");
  const expected = rows.filter((row) => row.kind === "plain" && row.variant === "CoRe").length;
  // Images of other sections would be counted too.
  await page.evaluate(() => document.getElementById("diagnostics").remove());
  await page.evaluate(() => addEventListener("afterprint", () => { globalThis.after = document.querySelectorAll(".body .part").length; }));
  await page.evaluate(() => addEventListener("beforeprint", () => { globalThis.before = document.querySelectorAll(".body [role=row]").length; }));
  const pdf = await page.pdf();
  assert.equal(await page.evaluate(() => before), expected);
  assert.equal(await page.evaluate(() => after), 0, "the page is as it was");
  const sheets = new Set(await page.evaluate(() => { dispatchEvent(new Event("beforeprint")); return [...document.querySelectorAll(".body .part img")].map((e) => e.src); }));
  await page.evaluate(() => dispatchEvent(new Event("afterprint")));
  const images = pdf.toString("latin1").match(/\/Subtype \/Image/g)?.length ?? 0;
  assert.ok(sheets.size > 1 && images >= sheets.size, `${images} images in the PDF, ${sheets.size} sheets`);
}));

test("a print of more rows than its limit says so", async () => {
  const many = join(folder, "printed", "many");
  const prompts = Array.from({ length: 31 }, (_, i) => ({ kind: "plain", prompt: `a {} number ${i}` }));
  const variants = Array.from({ length: 7 }, (_, i) => `variant ${i}`);
  results(many, { variants, concepts: ["dog"], prompts, images: 10, side: 16, patterns: 10 });
  coreEval("report", many);
  await use(async (page) => {
    assert.match(await count(page), /^310 rows, 2170 images; a print holds the first 300 rows$/);
    await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
    await page.emulateMedia({ media: "print" });
    assert.equal(await page.locator(".body [role=row]").count(), 300);
    assert.ok(await page.locator("#count").isVisible(), "the limit is on the paper");
    await page.setViewportSize({ width: 700, height: 900 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= 700, `${wide} pixels are wider than paper`);
    await page.emulateMedia({ media: null });
    await page.evaluate(() => dispatchEvent(new Event("afterprint")));
    await page.locator("#filters").getByLabel("search").fill("number 3");
    assert.doesNotMatch(await count(page), /print/);
  }, { file: join(many, "report.html") });
});

test("attention maps are those of the chosen prompt, token by token, in colours from black to pale yellow", () => use(async (page) => {
  const table = page.locator("#attention table");
  const heads = async () => (await table.locator("thead th").allTextContents()).slice(2);
  assert.deepEqual(await heads(), ["a", "S*"]);
  await page.locator("#diagnostics").getByLabel("prompt and concept").selectOption("1");
  assert.deepEqual(await heads(), ["a", "photo", "of", "a", "S*"]);
  assert.equal(await table.locator("tbody tr").count(), 1 + VARIANTS.length);
  // Row 1 is CoRe; token 0 is brightest at point 0, and of the second prompt row 1 is darkest at point 2.
  const map = table.locator("tbody tr").nth(1).locator("canvas").nth(0);
  assert.equal(await map.getAttribute("aria-label"), "CoRe, a");
  const pixels = await map.evaluate((e) => [...e.getContext("2d").getImageData(0, 0, 2, 2).data]);
  assert.deepEqual(pixels.slice(0, 4), [252, 255, 164, 255]);
  assert.deepEqual(pixels.slice(8, 12), [0, 0, 4, 255]);
  const cells = await table.locator("tbody tr").nth(1).locator("td").allTextContents();
  assert.deepEqual(cells, ["", "0.9000", "0.8900", "0.8800", "0.8700", ""]);
  await page.locator("#diagnostics .legend button", { hasText: "Textual Inversion" }).click();
  assert.deepEqual(await table.locator("tbody th").allTextContents(), ["class word: dog", "CoRe", HOSTILE]);
}));

test("small foregrounds are counted, and what chance does is said where many intervals are compared", () => use(async (page) => {
  await page.locator("#results").getByLabel("protocol").selectOption("1");
  const table = page.locator('#diagnostics [aria-label="Checks"] table');
  const column = (await table.locator("thead th").allTextContents()).indexOf("foregrounds under 3 %");
  for (const [index, variant] of VARIANTS.entries()) {
    const expected = rows.filter((row, i) => row.variant === variant && (i % 40) / 100 < 0.03).length;
    const cells = await table.locator("tbody tr").nth(index).locator("th, td").allTextContents();
    assert.deepEqual([cells[0], cells[column]], [variant, String(expected)]);
  }
  // Two variants are compared with the baseline by three metrics; by concept and kind, by one metric in 2 + 3 columns.
  assert.match(await page.locator("#differences").textContent(), /about 0\.3 of these 6 intervals at 95 %/);
  assert.match(await page.locator("#diagnostics").textContent(), /about 0\.5 of these 10 intervals at 95 %/);
}));

test("durations are those of the files, and what they do not tell is said", () => use(async (page) => {
  const text = await page.locator("#durations").textContent();
  // Two of three variants with two concepts, 90 s each.
  assert.match(text, /^Training: 6\.0 min without 2 unknown ones, 6 runs\. Generating images: not known\. Scoring: not known\./);
  await page.locator("summary", { hasText: "sets of images" }).click();
  const row = page.locator("#runs tbody tr").first();
  assert.deepEqual((await row.locator("td").allTextContents()).slice(-2), ["90 s", "not known"]);
}));

for (const scheme of ["light", "dark"]) {
  for (const width of [1280, 360]) {
    test(`${scheme}, ${width} pixels wide: axe finds nothing serious, and the page does not scroll sideways`, () => use(async (page) => {
      await page.waitForSelector("#grid [role=gridcell]");
      await axe(page);
      const [inner, all] = await page.evaluate(() => [innerWidth, document.documentElement.scrollWidth]);
      assert.ok(all <= inner, `${all} of ${inner}`);
      await page.locator('[data-at="0,1"]').click();
      await axe(page);
    }, { colorScheme: scheme, viewport: { width, height: 800 } }));
  }
}

async function axe(page) {
  await page.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
  const { violations } = await page.evaluate(() => axe.run());
  const serious = violations.filter((violation) => ["serious", "critical"].includes(violation.impact));
  assert.deepEqual(serious.map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 200)).join("; ")}`), []);
}

test("a page that was moved away from its images shows thumbnails and says so", async () => {
  const alone = join(folder, "alone");
  mkdirSync(alone);
  coreEval("report", home);
  renameSync(report, join(alone, "report.html"));
  coreEval("report", home);
  const page = await open(browser, join(alone, "report.html"));
  await page.locator('[data-at="0,1"]').click();
  await page.waitForFunction(() => document.getElementById("small-note").textContent.includes("thumbnail"));
  assert.equal(await page.locator("#stage img").count(), 0);
  assert.ok(page.problems.every((problem) => problem.includes("ERR_FILE_NOT_FOUND")), page.problems.join());
  await page.context().close();
});

test("with all images embedded, a page that was moved away still shows them", async () => {
  const alone = join(folder, "embedded");
  coreEval("report", home, "--out", alone, "--embed", "full");
  const page = await open(browser, join(alone, "report.html"));
  await page.locator('[data-at="0,1"]').click();
  const sources = await page.locator("#stage img").evaluateAll((all) => Promise.all(all.map((e) => e.decode().then(() => e.src.slice(0, 5)))));
  assert.deepEqual(sources, ["blob:", "blob:"]);
  assert.deepEqual(page.problems, []);
  await page.context().close();
  assert.ok(statSync(join(alone, "report.html")).size > statSync(report).size);
});
