// Parts that the tests and the screenshots share: the demos, the browser, pages that must have no errors, and
// the run of the tests.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

/** The program of a host with builds. */
export const HOST = process.env.WEB_DEMO ?? "target/debug/web-demo";
/** The program of a farm with builds. */
export const FARM = process.env.FARM_DEMO ?? "target/debug/examples/farm_demo";

/** A host or a farm with builds. */
export class Demo {
  static async start(program, ...options) {
    const child = spawn(program, options, { stdio: ["pipe", "pipe", "inherit"] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done) throw new Error(`${program} has not started`);
    const [url, running] = first.value.split(" ");
    return Object.assign(new Demo(), { child, lines, url, running });
  }

  /** Sends a command and waits for its answer. */
  async tell(command) {
    this.child.stdin.write(command + "\n");
    await this.lines.next();
  }

  stop() { this.child.stdin.end(); }
}

export const browser = () => chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});

/** Opens a tab that notes errors of scripts, of the policy and of requests. */
export async function tab(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, bypassCSP: false, ...options });
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(`script: ${error}`));
  page.on("console", (message) => { if (message.type() === "error") faults.push(`console: ${message.text()}`); });
  return { page, context, faults };
}

/** Repeats an assertion until it holds: after an action the browser may still show the page before. */
export async function eventually(assertion) {
  for (const end = Date.now() + 20000; ;) {
    try { return await assertion(); } catch (error) { if (Date.now() > end) throw error; }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Returns the violations that axe finds. It needs a context that bypasses the policy. */
export async function accessibility(page) {
  await page.addScriptTag({ path: AXE });
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return found.violations.map((it) => `${it.id}: ${it.help}: ${it.nodes.map((node) => node.html).slice(0, 3).join(" | ")}`);
}

/** Waits until a condition on the page is true. */
export const until = (page, what, value) => page.waitForFunction(what, value, { timeout: 20000 });

/** Signs a browser in to the pages of a farm or a host. */
export async function signIn(page, url, token) {
  await page.goto(`${url}/login`);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL(`${url}/`);
}

/** Returns the texts that reach beyond the row, tile or cell that they are in. */
function outside() {
  const boxes = [...document.querySelectorAll(".rows > li, .tiles > li, td")];
  const reaches = (box) => [...box.querySelectorAll("*")].some((it) =>
    !it.closest(".unseen") && it.getBoundingClientRect().right > box.getBoundingClientRect().right + 1);
  return boxes.filter(reaches).map((it) => it.textContent.trim().replace(/\s+/g, " "));
}

/** Opens pages in both schemes and widths: they have no violations, errors or overflow. */
export async function checkPages(chromium, url, paths, options, enter = async () => {}) {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 360]) {
      const all = { ...options, colorScheme, viewport: { width, height: 800 } };
      const plain = await tab(chromium, all);
      const checked = await tab(chromium, { ...all, bypassCSP: true });
      for (const it of [plain, checked]) await enter(it.page);
      for (const path of paths) {
        const where = `${path} ${colorScheme} ${width}`;
        await checked.page.goto(url + path);
        assert.deepEqual(await accessibility(checked.page), [], where);
        await plain.page.goto(url + path);
        const extra = await plain.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(extra <= 0, `${where}: ${extra} pixels too wide`);
        assert.deepEqual(await plain.page.evaluate(outside), [], where);
      }
      const faults = plain.faults.filter((it) => !it.includes("404"));
      assert.deepEqual(faults, []);
      await plain.context.close();
      await checked.context.close();
    }
  }
}

/** Runs all tests, or those whose name has a text, and returns the number of failures. */
export async function run(tests, demo, chromium, text) {
  let failures = 0;
  for (const [name, test] of Object.entries(tests)) {
    if (text && !name.includes(text)) continue;
    try {
      await test(demo, chromium);
      console.log(`passed: ${name}`);
    } catch (error) {
      failures += 1;
      console.error(`FAILED: ${name}\n${error.stack}`);
    }
  }
  return failures;
}
