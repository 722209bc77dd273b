// Drives the pages of a real agent: `node guest.mjs build|machine LINK BUILD`. LINK signs the browser in.
// tests/device/web_page.rs starts the agent and looks at the results.
import assert from "node:assert/strict";
import { browser, tab } from "./browser.mjs";

const [part, link, build] = process.argv.slice(2);
const url = new URL(link).origin;
const until = (page, what, value) => page.waitForFunction(what, value, { timeout: 60000 });

/** Presses a button, looks at the rehearsed steps, and confirms them. */
async function confirm(page, button, steps, confirmation) {
  await button.click();
  assert.match(await page.locator(".steps").first().textContent(), steps);
  await page.getByRole("button", { name: confirmation }).click();
}

const parts = {
  /** A running build: its progress, its growing log, its console, and its end. */
  async build(page) {
    const row = page.locator("#running li", { hasText: "demo" });
    await row.waitFor();
    await until(page, () => document.querySelector("#running progress")?.value > 0);
    const before = await row.locator("progress").getAttribute("value");
    await until(page, (value) => document.querySelector("#running progress").value > value, +before);
    await row.getByRole("link").first().click();
    await page.waitForURL(`${url}/builds/${build}`);
    const line = () => page.locator(".log li code", { hasText: /line \d+ of the guest/ }).last().textContent();
    const number = async () => +(await line()).match(/\d+/)[0];
    await page.locator(".log li", { hasText: "of the guest" }).first().waitFor();
    const first = await number();
    await until(page, (text) => document.querySelector(".log").textContent.includes(text), `line ${first + 3} of the guest`);
    await page.goto(`${url}/builds/${build}/console`);
    await until(page, () => /console \d+/.test(document.getElementById("terminal").textContent));
    assert.equal(await page.locator("#console-state").textContent(), "watching");
    await page.goto(`${url}/builds/${build}`);
    await page.locator("summary", { hasText: "Cancel" }).click();
    await page.getByRole("button", { name: /Cancel build/ }).click();
    await until(page, () => document.querySelector(".facts .pill").textContent === "abort");
  },

  /** Revisions: pin the first one, make an earlier one current, prune. */
  async machine(page) {
    await page.goto(`${url}/machines/demo`);
    const row = (revision) => page.locator("#revisions tr", { has: page.locator("th", { hasText: new RegExp(`^${revision}$`) }) });
    const button = (revision, name) => row(revision).getByRole("button", { name });
    await confirm(page, button(1, /^Pin/), /pin/, "Pin");
    await page.waitForURL(/machines\/demo$/);
    assert.match(await row(1).textContent(), /pinned/);
    await confirm(page, button(3, "Make current"), /3/, "Make current");
    await page.waitForURL(/machines\/demo$/);
    assert.match(await row(3).textContent(), /current/);
    await page.getByLabel("Keep the newest").fill("2");
    await confirm(page, page.getByRole("button", { name: "Prune…" }), /2/, "Prune");
    await page.waitForURL(/machines\/demo$/);
    assert.equal(await row(2).count(), 0);
    assert.equal(await row(1).count(), 1);
  },
};

const chromium = await browser();
const { page, faults } = await tab(chromium);
try {
  await page.goto(link);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL(`${url}/`);
  await parts[part](page);
  assert.deepEqual(faults, []);
} finally {
  await chromium.close();
}
