// Results folders as an experiment writes them, with made-up scores and images.

import { execFileSync } from "node:child_process";
import { linkSync, mkdirSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { deflateSync } from "node:zlib";

/** The program under test. */
export const CORE_EVAL = process.env.CORE_EVAL ?? "target/debug/core-eval";

/** Runs core-eval and returns what it prints. */
export const coreEval = (...args) => execFileSync(CORE_EVAL, args, { encoding: "utf8" });

/** Numbers from 0 to 1 that are the same every time. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** A PNG file of square images with a few soft blobs and grain, which compress like photos. */
export function png(side, seed) {
  const next = random(seed + 1);
  const blobs = Array.from({ length: 9 }, () => [next() * side, next() * side, (0.1 + next() * 0.3) * side, [next() * 255, next() * 255, next() * 255]]);
  const rows = Buffer.alloc(side * (1 + 3 * side));
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      const weights = blobs.map(([bx, by, size]) => Math.exp(-((x - bx) ** 2 + (y - by) ** 2) / (size * size)) + 1e-3);
      const sum = weights.reduce((a, b) => a + b);
      const grain = (next() - 0.5) * 22;
      for (let c = 0; c < 3; c++) {
        const value = blobs.reduce((total, blob, i) => total + (weights[i] / sum) * blob[3][c], grain);
        rows[y * (1 + 3 * side) + 1 + 3 * x + c] = Math.max(0, Math.min(255, value));
      }
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header.set([8, 2, 0, 0, 0], 8);
  return Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), chunk("IHDR", header), chunk("IDAT", deflateSync(rows, { level: 1 })), chunk("IEND", Buffer.alloc(0))]);
}

function chunk(kind, data) {
  const whole = Buffer.alloc(12 + data.length);
  whole.writeUInt32BE(data.length, 0);
  whole.write(kind, 4, "latin1");
  data.copy(whole, 8);
  whole.writeUInt32BE(crc(whole.subarray(4, 8 + data.length)), 8 + data.length);
  return whole;
}

function crc(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

/** The text of a CSV file. */
export const csv = (rows) => rows.map((row) => row.map((value) => quoted(String(value))).join(",")).join("\n") + "\n";

function write(file, content) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
}

/**
 * Writes a results folder and returns its score rows, each with the names of the columns as keys. `scores` gives every
 * image of a variant the same three.
 */
export function results(folder, { variants, concepts, prompts, images = 2, side = 64, patterns = 30, protocols = ["dreambooth"], scores }) {
  const files = Array.from({ length: patterns }, (_, i) => join(folder, `../patterns/${i}.png`));
  files.forEach((file, i) => write(file, png(side, i)));
  const place = (file, pattern) => { mkdirSync(dirname(file), { recursive: true }); linkSync(files[pattern % patterns], file); };
  const all = { tokens: [["variant", "concept", "seed", "prompt", "position", "token", "cosine"]], curves: [["variant", "concept", "seed", "stage", "step", "loss", "embedding_norm"]] };
  const photos = {};
  for (const concept of concepts) {
    photos[concept] = { "0.png": "a", "1.png": "b", "2.png": "c" };
    for (let i = 0; i < 3; i++) place(join(folder, `../photos/${concept}/${i}.png`), i + 7);
  }
  const next = random(5);
  const rows = [];
  variants.forEach((variant, v) => concepts.forEach((concept, c) => {
    run(folder, variant, concept, v);
    for (let step = 1; step <= 20; step++) all.curves.push([variant, concept, 0, "embedding", step, 0.1 / step + 0.02 * next(), 0.5 + 0.01 * step]);
    prompts.forEach(({ kind, prompt }, p) => {
      for (const [position, token] of ["a", ...prompt.split(" ").slice(1)].entries()) all.tokens.push([variant, concept, 0, prompt, position, token, 1 - 0.05 * v * next()]);
      for (let i = 0; i < images; i++) {
        const image = `images/${variant}/${concept}/0/${p}/${String(i).padStart(5, "0")}.png`;
        place(join(folder, image), v * 5 + c * 3 + p + i);
        const score = (mean) => Math.round((mean + 0.1 * (next() - 0.5)) * 1e6) / 1e6;
        const [clip_t, clip_i, dino] = scores?.[v] ?? [score(0.3 + 0.01 * v), score(0.7 - 0.05 * v), score(0.6 + [0, -0.2, 0.15][v % 3])];
        rows.push({ variant, concept, seed: 0, group: "animate", kind, prompt, image, clip_t, clip_i, dino });
      }
    });
  }));
  for (const [index, name] of protocols.entries()) {
    const suffix = index ? `-${name}` : "";
    write(join(folder, `protocol${suffix}.json`), JSON.stringify({ protocol: { name, masked: index > 0 }, photos }));
    write(join(folder, `scores${suffix}.csv`), csv([Object.keys(rows[0]), ...rows.map((row) => Object.values(row))]));
    const extra = rows.map((row, i) => [row.image, (0.5 + (i % 50) / 100).toFixed(3), i % 3, index ? ((i % 40) / 100).toFixed(2) : "", index ? "0000ffff".repeat(32) : ""]);
    write(join(folder, `images${suffix}.csv`), csv([["image", "closest", "photo", "foreground", "mask"], ...extra]));
    const small = (variant) => rows.filter((row, i) => row.variant === variant && (i % 40) / 100 < 0.03).length;
    const counted = (variant) => (index ? [[variant, "small_foregrounds", small(variant).toFixed(1), ""]] : []);
    const checks = variants.flatMap((variant) => [...counted(variant), [variant, "diversity", 0.3, ""], [variant, "lowest_dino", 0.1, prompts[0].prompt], [variant, "closest", 0.99, rows[0].image]]);
    write(join(folder, `checks${suffix}.csv`), csv([["variant", "measure", "value", "place"], ["photos", "clip_i_same", 0.8, ""], ["photos", "dino_same", 0.9, ""], ["photos", "dino_other", 0.05, ""], ...checks]));
  }
  write(join(folder, "attention.json"), JSON.stringify({ prompts: prompts.slice(0, 2).map(({ prompt }, p) => attention(variants, concepts[0], prompt, p)) }));
  for (const [name, lines] of Object.entries(all)) write(join(folder, `${name}.csv`), csv(lines));
  return rows;
}

/** Attention maps of 2 by 2 points, where the map of token t of row r is darkest at point r and brightest at point t. */
function attention(variants, concept, prompt, p) {
  const tokens = prompt.split(" ").map((word) => word.replace("{}", "S*"));
  const map = (r, t) => Buffer.from([0, 1, 2, 3].map((i) => (i === (r + p) % 4 ? 0 : i === t % 4 ? 255 : 128))).toString("base64");
  const image = `data:image/png;base64,${png(8, p).toString("base64")}`;
  const rows = [null, ...variants].map((variant, r) => ({ variant, name: variant ?? "class word: dog", image,
    cosines: tokens.map((token, t) => (token === "S*" ? null : 1 - r / 10 - t / 100)), maps: tokens.map((_, t) => map(r, t)) }));
  return { prompt, concept, seed: 0, key: String(p), tokens, size: [2, 2], rows };
}

/** A training run and where its images come from. */
function run(folder, variant, concept, v) {
  const address = `${v}-${concept}`;
  write(join(folder, `images/${variant}/${concept}/0/source.json`), JSON.stringify({ run: address, super_category: "dog", steps: 20 }));
  write(join(folder, `runs/${address}/config.toml`), `seed = 0\n\n[concept]\nimages = "../../../photos/${concept}"\n\n[[stages]]\nname = "embedding"\nsteps = ${100 + v}\nrescale = { from = 4, to = 8 }\n`);
  write(join(folder, `runs/${address}/environment.json`), JSON.stringify({ device: "cpu", git_revision: "0123456789abcdef" }));
  // Training took 90 s, but for the last variant, whose files do not tell.
  write(join(folder, `runs/${address}/metrics.csv`), "stage,step,loss\n");
  const written = (file, seconds) => utimesSync(join(folder, `runs/${address}`, file), seconds, seconds);
  written("config.toml", 1e9);
  written("metrics.csv", 1e9 + (v === 2 ? 0 : 90));
}
