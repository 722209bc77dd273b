// Tests of the pages of a farm in a browser: `node farm.mjs [NAME]` runs all tests, or one.
import assert from "node:assert/strict";
import { Demo, FARM, browser, checkPages, eventually, run, signIn, tab, until } from "./browser.mjs";

const PAGES = (demo) => ["/", "/builds", "/builds?machine=yocto-arm&outcome=error", "/builds/118", "/builds/117",
  `/builds/${demo.running}`, `/builds/${+demo.running + 5}`, "/builds/117/artifacts", "/builds/9999",
  "/hosts", "/hosts/build1", "/hosts/arm-rack2-node2", "/hosts/build4", "/hosts/build6", "/machines"];
const live = () => document.getElementById("live").textContent === "live";

/** Opens a tab that has signed in. */
async function signedIn(demo, chromium, token, options = {}) {
  const opened = await tab(chromium, options);
  await signIn(opened.page, demo.url, `${token}-token`);
  return opened;
}

const tests = {
  async "pages have no violations, errors or overflow in both schemes and widths"(demo, chromium) {
    const enter = (page) => signIn(page, demo.url, "admin-token");
    await checkPages(chromium, demo.url, ["/login"], {});
    await checkPages(chromium, demo.url, PAGES(demo), {}, enter);
  },

  async "a farm without hosts and builds says so"(_, chromium) {
    const demo = await Demo.start(FARM, "0");
    try {
      const enter = (page) => signIn(page, demo.url, "read-token");
      await checkPages(chromium, demo.url, ["/", "/builds", "/hosts", "/machines"], {}, enter);
      const { page, context } = await signedIn(demo, chromium, "read");
      assert.equal(await page.locator(".none").count(), 5);
      await page.goto(`${demo.url}/hosts`);
      assert.match(await page.locator(".none").textContent(), /buildhost-farm invite NAME/);
      await context.close();
    } finally { demo.stop(); }
  },

  async "pages work without scripts"(demo, chromium) {
    const { page, context } = await signedIn(demo, chromium, "read", { javaScriptEnabled: false });
    assert.equal(await page.locator("#running li").count(), 4);
    assert.match(await page.locator("#waiting").textContent(), /none has machine windows-11/);
    await page.getByRole("link", { name: "Builds", exact: true }).click();
    await page.getByLabel("Package").fill("zlib");
    await page.getByLabel("State").selectOption("finished");
    await page.getByRole("button", { name: "Show" }).click();
    await page.waitForURL(/package=zlib/);
    const targets = await page.locator(".builds .target").allTextContents();
    assert.ok(targets.length > 5 && targets.every((it) => it === "zlib"), targets.join());
    await page.locator(".chip", { hasText: "package" }).click();
    await eventually(async () => assert.equal(await page.getByLabel("Package").inputValue(), ""));
    await page.goto(`${demo.url}/hosts`);
    assert.equal(await page.locator("tbody tr").count(), 8);
    assert.match(await page.locator("tr", { hasText: "build1" }).textContent(), /alive[^]*0\.1\.0/);
    await context.close();
  },

  async "a browser signs in, comes to the page that it wanted, and signs out"(demo, chromium) {
    const { page, context, faults } = await tab(chromium);
    await page.goto(`${demo.url}/builds?machine=yocto-arm`);
    assert.match(page.url(), /\/login\?next=/);
    await page.getByLabel("Token").fill("not-a-token");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").waitFor();
    assert.match(await page.getByRole("alert").textContent(), /unknown or revoked/);
    await page.getByLabel("Token").fill("read-token");
    await page.keyboard.press("Enter");
    await page.waitForURL(/\/builds\?machine=yocto-arm$/);
    await until(page, live);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.waitForURL(/\/login$/);
    await page.goto(`${demo.url}/hosts`);
    assert.match(page.url(), /\/login/);
    assert.deepEqual(faults.filter((it) => !it.includes("403")), []);
    await context.close();
  },

  async "the pager reaches the oldest build and keeps the filters"(demo, chromium) {
    const { page, context } = await signedIn(demo, chromium, "read");
    await page.goto(`${demo.url}/builds?state=finished`);
    const seen = [];
    for (;;) {
      seen.push(...await page.locator(".builds .id a").allTextContents());
      const older = page.getByRole("link", { name: "Older builds" });
      if (await older.count() === 0) break;
      const next = new URL(await older.getAttribute("href"), demo.url).href;
      assert.match(next, /state=finished&before=/);
      await older.click();
      await page.waitForURL(next);
    }
    const numbers = seen.map(Number).filter((it) => it <= 120);
    assert.deepEqual(numbers, [...Array(120).keys()].map((it) => 120 - it));
    await page.getByRole("link", { name: "Newest" }).click();
    await page.waitForURL(/\/builds\?state=finished$/);
    await context.close();
  },

  async "the overview follows events, and a host shows what is free"(demo, chromium) {
    const { page, context, faults } = await signedIn(demo, chromium, "read");
    await until(page, live);
    const count = () => page.locator("#running li").count();
    const before = await count();
    await demo.tell("end");
    await until(page, (build) => document.querySelector("#finished li b")?.textContent === build, demo.running);
    assert.ok(await count() <= before);
    assert.deepEqual(faults, []);
    await context.close();
  },

  async "attempts that were lost say why"(demo, chromium) {
    const { page, context } = await signedIn(demo, chromium, "read");
    await page.goto(`${demo.url}/builds/118`);
    const events = await page.locator(".events li").allTextContents();
    assert.equal(events.length, 7);
    assert.match(events[2], /attempt 1 on build3 lost: the host gave no sign of life/);
    assert.match(events[4], /attempt 2 on build1 lost: the host lost the guest/);
    assert.match(events[6], /finished as error/);
    await context.close();
  },

  async "logs and artifacts come from the host of the build"(demo, chromium) {
    const { page, context, faults } = await signedIn(demo, chromium, "read");
    await page.goto(`${demo.url}/builds/117`);
    const log = await page.request.get(`${demo.url}/builds/117/log.txt`);
    assert.match(await log.text(), /build 117\n/);
    assert.match(log.headers()["content-type"], /^text\/plain/);
    await page.getByRole("link", { name: "Artifacts" }).click();
    await page.waitForURL(/artifacts$/);
    const downloaded = page.waitForEvent("download");
    await page.getByRole("link", { name: "package_1.2-117_amd64.deb" }).click();
    assert.equal((await downloaded).suggestedFilename(), "package_1.2-117_amd64.deb");
    assert.deepEqual(faults, []);
    await context.close();
  },

  async "a waiting and a running build are canceled"(demo, chromium) {
    const { page, context, faults } = await signedIn(demo, chromium, "submit");
    for (const build of [+demo.running + 5, +demo.running + 1]) {
      await page.goto(`${demo.url}/builds/${build}`);
      await page.locator("summary", { hasText: "Cancel" }).click();
      await page.getByRole("button", { name: `Cancel build ${build}` }).click();
      await until(page, () => document.querySelector(".facts .pill").textContent === "abort");
      assert.equal(await page.locator("form[action*=cancel]").count(), 0);
    }
    assert.deepEqual(faults, []);
    await context.close();
  },

  async "a host is drained and undrained, with the keyboard"(demo, chromium) {
    const { page, context, faults } = await signedIn(demo, chromium, "admin");
    await page.goto(`${demo.url}/hosts/build2`);
    const state = (word) => until(page, (it) => document.querySelector(".facts .pill").textContent === it, word);
    await page.getByRole("button", { name: "Drain", exact: true }).focus();
    await page.keyboard.press("Enter");
    await state("drained");
    assert.match(await page.locator(".notice").textContent(), /No builds are placed here/);
    await page.getByRole("button", { name: "Undrain" }).focus();
    await page.keyboard.press("Enter");
    await state("alive");
    assert.deepEqual(faults, []);
    await context.close();
  },

  async "readers have no actions, and submitters drain nothing"(demo, chromium) {
    for (const [token, path] of [["read", `/builds/${+demo.running + 4}`], ["read", "/hosts/build1"], ["submit", "/hosts/build1"]]) {
      const { page, context } = await signedIn(demo, chromium, token);
      await page.goto(demo.url + path);
      assert.equal(await page.locator("main form, main button").count(), 0, `${token} ${path}`);
      const action = path.startsWith("/hosts") ? "drain" : "cancel";
      const status = await page.evaluate((it) => fetch(it, { method: "POST" }).then((answer) => answer.status), `${path}/${action}`);
      assert.equal(status, 403, `${token} ${path}`);
      await context.close();
    }
  },
};

const demo = await Demo.start(FARM, "120");
const chromium = await browser();
const failures = await run(tests, demo, chromium, process.argv[2]);
await chromium.close();
demo.stop();
process.exitCode = failures ? 1 : 0;
