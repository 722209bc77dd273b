// Measures the pages of a host with 100,000 builds and a log of 1.3 million lines. Prints the median and
// the slowest of some rounds beside the limit.
import { Demo, HOST, browser, tab } from "./browser.mjs";

const demo = await Demo.start(HOST, "400");
await demo.tell("large");
const headers = { Authorization: "Bearer admin-token" };
const ROUNDS = 15;

/** Returns the milliseconds until the first byte, and until the end, of an answer. */
async function answer(path) {
  const began = performance.now();
  const response = await fetch(demo.url + path, { headers });
  const first = performance.now() - began;
  await response.text();
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return first;
}

function row(name, values, limit) {
  values.sort((a, b) => a - b);
  const [middle, last] = [values[values.length >> 1], values.at(-1)];
  console.log(`${name.padEnd(46)} ${middle.toFixed(1).padStart(8)} ${last.toFixed(1).padStart(8)}   ${limit}`);
}

async function repeated(name, path, limit) {
  const values = [];
  for (let round = 0; round < ROUNDS; round++) values.push(await answer(path));
  row(name, values, limit);
}

console.log(`${"".padEnd(46)} ${"median".padStart(8)} ${"slowest".padStart(8)}   limit`);
row("log, first screen, not indexed (ms)", [await answer("/builds/1/log")], 200);
await repeated("log, first screen (ms)", "/builds/1/log", 200);
await repeated("log, line 1,000,000 (ms)", "/builds/1/log?line=1000000", 200);
row("log, search, not kept (ms)", [await answer("/builds/1/log?find=unit_1299999")], 2000);
row("log, search for a frequent text, not kept (ms)", [await answer("/builds/1/log?find=line")], 2000);
await repeated("log, next found line (ms)", "/builds/1/log?find=line&line=900000", 200);
await repeated("overview (ms)", "/", 20);
await repeated("builds (ms)", "/builds", 20);
await repeated("builds of a machine with an outcome (ms)", "/builds?machine=linux&outcome=error", 20);
await repeated("builds of a package (ms)", "/builds?package=zlib", 20);
await repeated("builds far behind (ms)", "/builds?until=2024-01-01", 20);
await repeated("a build (ms)", "/builds/300", 20);

const chromium = await browser();
const { page } = await tab(chromium, { extraHTTPHeaders: headers });
await page.goto(`${demo.url}/builds/1/log?line=650000`);
for (let round = 0; round < 40; round++) {
  await page.locator(".log").evaluate((it) => { it.scrollTop = it.scrollHeight; });
  await page.waitForTimeout(100);
}
const rows = await page.locator(".log li").count();
const session = await page.context().newCDPSession(page);
await session.send("Performance.enable");
const { metrics } = await session.send("Performance.getMetrics");
const metric = (name) => metrics.find((it) => it.name === name).value;
row(`log, heap after 40 screens, ${rows} lines (MiB)`, [metric("JSHeapUsedSize") / 2 ** 20], 150);
await chromium.close();
demo.stop();
