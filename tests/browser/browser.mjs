// Parts that the tests and the screenshots share: the demo host, the browser, and pages that must have
// no errors.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

/** A host with builds, as `web-demo` serves it. */
export class Demo {
  static async start(...options) {
    const program = process.env.WEB_DEMO ?? "target/debug/web-demo";
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
