// A person votes on the real page of a preference study, and `core-eval study analyse` reads the file.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { launch, open, scratch } from "./chromium.mjs";
import { CORE_EVAL, coreEval } from "./results.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const results = process.env.RESULTS ?? "results/ablation-quick";
const variants = ["CoRe", "Textual Inversion", "class word"];
const people = 40;
const perPerson = 12;

const folder = scratch();
const study = join(folder, "study");
const page = pathToFileURL(join(study, "index.html")).href;
let browser;
let printed;
let key;

before(async () => {
  assert.ok(existsSync(results), `${results} is missing: run core-eval experiments/ablation.toml --quick first`);
  writeFileSync(join(folder, "contact.txt"), "Ask <b>us</b>.\n\nHand in the file by mail.\n");
  printed = coreEval("study", "make", results, "--compare", ...variants, "--people", `${people}`, "--per-person",
    `${perPerson}`, "--contact", join(folder, "contact.txt"), "--out", study);
  key = readKey(readFileSync(join(study, "key.csv"), "utf8"));
  browser = await launch();
});

after(() => browser?.close());

// The names of variants in this test hold no commas or quotes.
function readKey(text) {
  const [header, ...lines] = text.trim().split("\n").map(line => line.split(","));
  const rows = lines.map(line => Object.fromEntries(header.map((name, index) => [name, line[index]])));
  return Object.fromEntries(rows.map(row => [row.pair, row]));
}

/** A page without network, whose errors fail the test. */
async function visit(query = "", options = {}) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 900 }, acceptDownloads: true, ...options });
  await context.setOffline(true);
  const tab = await context.newPage();
  tab.errors = [];
  tab.on("pageerror", error => tab.errors.push(error.message));
  tab.on("console", message => { if (message.type() === "error") tab.errors.push(message.text()); });
  if (options.clock) await tab.clock.install();
  await tab.goto(page + query);
  // From here on time passes only when a test says so, however slow the machine is.
  if (options.clock) await tab.clock.pauseAt(Date.now() + 60_000);
  return tab;
}

const ready = tab => tab.locator(".answer:not([aria-disabled=true])").first().waitFor();
const count = tab => tab.locator("#count").textContent();
const start = tab => tab.getByRole("button", { name: "I agree, start" }).click();

/** Answers all questions of the trial that is shown, with one key. */
async function answerTrial(tab, keyName) {
  const before = await count(tab);
  await ready(tab);
  while (await tab.locator("#trial").isVisible() && await count(tab) === before) await tab.keyboard.press(keyName);
}

async function violations(tab) {
  // A string is evaluated by the browser itself, whatever the page's policy says.
  await tab.evaluate(axe);
  const { violations } = await tab.evaluate("axe.run()");
  return violations.filter(found => ["serious", "critical"].includes(found.impact))
    .map(found => `${found.id}: ${found.nodes.map(node => node.html).join(" ")}`);
}

async function savedFile(tab) {
  const [download] = await Promise.all([tab.waitForEvent("download"), tab.getByRole("button", { name: "Save my answers" }).click()]);
  return { name: download.suggestedFilename(), text: readFileSync(await download.path(), "utf8") };
}

test("the page names no variant, concept, file or score", () => {
  const text = readFileSync(join(study, "index.html"), "utf8");
  for (const name of [...variants, "spotted-dog", ".png", "images/", "clip_t", "dino"]) {
    assert.ok(!text.includes(name), name);
  }
  assert.ok(!/https?:\/\//.test(text), "nothing is loaded");
});

test("keys 1, 2 and 3 answer, a reload loses nothing, and only the last trial can be answered again", async () => {
  const tab = await visit("?p=3&PROLIFIC_PID=5f<b>x");
  await start(tab);
  for (let practice = 1; practice <= 3; practice += 1) {
    assert.equal(await count(tab), `Practice ${practice} of 3`);
    await answerTrial(tab, "3");
  }
  const total = perPerson + 1 + 2;
  assert.equal(await count(tab), `1 of ${total}`);
  await answerTrial(tab, "1");
  await answerTrial(tab, "2");
  assert.equal(await count(tab), `3 of ${total}`);
  const sources = () => tab.evaluate(() => ["left", "right"].map(id => document.getElementById(id).src));
  const shown = await sources();
  await tab.reload();
  assert.equal(await count(tab), `3 of ${total}`);
  assert.deepEqual(await sources(), shown);

  const back = tab.getByRole("button", { name: "Back" });
  await back.click();
  assert.equal(await count(tab), `2 of ${total}`);
  assert.equal(await back.getAttribute("aria-disabled"), "true");
  await back.click({ force: true });
  assert.equal(await count(tab), `2 of ${total}`);
  await answerTrial(tab, "3");

  await tab.getByRole("button", { name: "Stop here" }).click();
  const { name, text } = await savedFile(tab);
  assert.equal(name, "votes-5fbx.csv");
  const rows = text.trim().split("\n").map(line => line.split(","));
  assert.deepEqual(rows[0], ["study", "person", "trial", "pair", "question", "left", "right", "answer", "milliseconds",
    "catch", "repeat_of", "viewport", "time"]);
  assert.deepEqual(rows.slice(1).map(row => [row[2], row[7]]), [
    ["1", "A"], ["1", "A"], ["1", "A"], ["2", "cannot_tell"], ["2", "cannot_tell"], ["2", "cannot_tell"]]);
  assert.ok(rows.slice(1).every(row => Number(row[8]) >= 800), text);
  await tab.getByRole("button", { name: "Continue" }).click();
  assert.equal(await count(tab), `3 of ${total}`);
  assert.deepEqual(tab.errors, []);
  await tab.context().close();
});

test("an answer before 800 ms does not count, and an image can be enlarged", async () => {
  const tab = await visit("?p=1", { clock: true });
  await start(tab);
  await tab.waitForFunction(() => shownAt !== null);
  await tab.clock.runFor(700);
  await tab.keyboard.press("1");
  const question = await tab.locator("#question").textContent();
  assert.match(question, /same thing as the photos/);
  await tab.clock.runFor(200);
  await tab.keyboard.press("z");
  assert.equal(await tab.locator("#enlarged").getAttribute("alt"), "Image A");
  await tab.keyboard.press("z");
  assert.equal(await tab.locator("#enlarged").getAttribute("alt"), "Image B");
  await tab.keyboard.press("Escape");
  await tab.keyboard.press("1");
  assert.notEqual(await tab.locator("#question").textContent(), question);
  await tab.context().close();
});

test("light, dark and at 360 px nothing serious is wrong and nothing is cut off", async () => {
  for (const options of [{}, { colorScheme: "dark" }, { viewport: { width: 360, height: 740 } }]) {
    const tab = await visit("?p=2", options);
    assert.deepEqual(await violations(tab), []);
    await start(tab);
    await ready(tab);
    assert.deepEqual(await violations(tab), []);
    const overflow = () => tab.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(await overflow() <= 0);
    await tab.getByRole("button", { name: "Stop here" }).click();
    assert.deepEqual(await violations(tab), []);
    assert.ok(await overflow() <= 0);
    assert.deepEqual(tab.errors, []);
    await tab.context().close();
  }
});

test("texts are data", async () => {
  const tab = await visit();
  assert.match(await tab.locator(".contact").first().textContent(), /<b>us<\/b>/);
  assert.equal(await tab.locator(".contact b").count(), 0);
  await tab.context().close();
});

/** Davidson's model with these strengths; the answer as a key. */
const strengths = { "CoRe": 2, "Textual Inversion": 1, "class word": 0.5 };
function preferred(row, leftIsFirst, random) {
  let first = random();
  if (row.kind === "catch") {
    first = 1;
  } else {
    const [p, q] = [strengths[row.first], strengths[row.second]];
    const tie = 0.4 * Math.sqrt(p * q);
    const at = first * (p + q + tie);
    if (at >= p + q) return "3";
    first = at < p ? 1 : 0;
  }
  return (first === 1) === leftIsFirst ? "1" : "2";
}

/** A small generator with a seed (mulberry32). */
function generator(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

test("forty people vote, two of them badly, and their strengths are recovered", { timeout: 600_000 }, async () => {
  const votes = join(folder, "votes");
  mkdirSync(votes);
  const tab = await visit("", { clock: true });
  for (let person = 1; person <= people; person += 1) {
    const random = generator(person);
    await tab.goto(`${page}?p=${person}`);
    await start(tab);
    while (await tab.locator("#trial").isVisible()) {
      await tab.waitForFunction(() => shownAt !== null);
      const { trial, practice, questions } = await tab.evaluate(() => ({
        trial: current(), practice: isPractice(), questions: questionsOf(current()).length }));
      await tab.clock.runFor(person === 7 ? 850 : 3000);
      const row = key[trial.pair];
      const keys = Array.from({ length: questions }, () => {
        if (person === 7) return String(1 + Math.floor(3 * random()));
        if (person === 23 || practice) return "1";
        return preferred(row, row.first_image === trial.left, random);
      });
      for (const name of keys) await tab.keyboard.press(name);
    }
    const { name, text } = await savedFile(tab);
    writeFileSync(join(votes, name), text);
    const code = await tab.locator("#code").textContent();
    assert.ok(printed.includes(code), `completion code ${code}: ${printed}`);
  }
  assert.deepEqual(tab.errors, []);
  execFileSync("sh", ["-c", `"$0" study analyse "$1" "$2"/*.csv --results "$3"`, CORE_EVAL, study, votes, results]);
  const [header, ...lines] = readFileSync(join(study, "study.csv"), "utf8").trim().split("\n").map(line => line.split(","));
  const rows = lines.map(line => Object.fromEntries(header.map((name, index) => [name, line[index]])));
  const excluded = readFileSync(join(study, "people.csv"), "utf8").trim().split("\n").slice(1)
    .map(line => line.split(",")).filter(line => line.at(-1) !== "").length;
  assert.equal(excluded, 2);
  for (const [variant, strength] of Object.entries(strengths)) {
    for (const row of rows.filter(row => row.measure === "strength" && row.first === variant && row.exclusions === "applied")) {
      // Three questions of three strengths: one of nine 95 % intervals may miss, none by far.
      const width = Number(row.high) - Number(row.low);
      assert.ok(Math.abs(Number(row.value) - Math.log(strength)) < 0.75 * width, `${variant}: ${JSON.stringify(row)}`);
    }
  }
  await tab.context().close();

  // The report page of the results shows the study.
  const copy = join(folder, "results");
  cpSync(results, copy, { recursive: true, filter: source => !/(runs|features|study)$/.test(source) });
  cpSync(study, join(copy, "study"), { recursive: true });
  coreEval("report", copy);
  const report = await open(browser, join(copy, "report.html"));
  const section = await report.locator("#study").textContent();
  assert.match(section, /38 of 40 voters count/);
  assert.match(section, /Krippendorff's alpha: -?0\.\d/);
  assert.match(section, /CoRe is preferred/);
  assert.deepEqual(report.problems, []);
  await report.context().close();
});
