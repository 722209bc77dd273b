// Tests of the pages in a browser: `node pages.mjs [NAME]` runs all tests, or one.
import assert from "node:assert/strict";
import { Demo, HOST, browser, checkPages, eventually, run, tab, until } from "./browser.mjs";

const ADMIN = { extraHTTPHeaders: { Authorization: "Bearer admin-token" } };
const PAGES = (demo) => ["/", "/builds", "/builds?machine=linux&outcome=error", "/builds/120", "/builds/116",
  `/builds/${demo.running}`, "/builds/116/log?find=warning", "/builds/9999", `/builds/${demo.running}/console`,
  "/machines", "/machines/linux", "/host", "/host/doctor", "/host/services?find=lib", "/host/tokens", "/host/settings"];

const tests = {
  async "pages have no violations, errors or overflow in both schemes and widths"(demo, chromium) {
    await checkPages(chromium, demo.url, PAGES(demo), ADMIN);
  },

  async "pages work without scripts"(demo, chromium) {
    const { page, context } = await tab(chromium, { ...ADMIN, javaScriptEnabled: false });
    await page.goto(demo.url);
    assert.equal(await page.locator("#running li").count(), 3);
    await page.getByRole("link", { name: "Builds", exact: true }).click();
    await page.getByLabel("Package").fill("zlib");
    await page.getByRole("button", { name: "Show" }).click();
    await page.waitForURL(/package=zlib/);
    const targets = await page.locator(".builds .target").allTextContents();
    assert.ok(targets.length > 5 && targets.every((it) => it === "zlib"), targets.join());
    await page.goto(`${demo.url}/builds/116/log?line=1`);
    await page.getByRole("link", { name: "End" }).click();
    await page.waitForURL((url) => url.searchParams.get("line") !== "1");
    assert.equal(await page.locator(".log li").last().isVisible(), true);
    await context.close();
  },

  async "the keyboard skips the navigation"(demo, chromium) {
    const { page, context } = await tab(chromium, ADMIN);
    await page.goto(demo.url);
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to content");
    await page.keyboard.press("Enter");
    await until(page, () => document.activeElement.id === "content");
    await context.close();
  },

  async "a log is searched, and read on when it is scrolled"(demo, chromium) {
    const { page, context, faults } = await tab(chromium, ADMIN);
    await page.goto(`${demo.url}/builds/116/log`);
    await page.getByLabel("Search").fill("WARNING");
    await page.getByRole("button", { name: "Show" }).click();
    await eventually(async () => assert.match(await page.locator(".found").textContent(), /^0 lines/));
    await page.getByLabel("Search").fill("warning");
    await page.getByRole("button", { name: "Show" }).click();
    await eventually(async () => assert.match(await page.locator(".found").textContent(), /1 of \d+ lines/));
    const first = await page.locator(".log .here").getAttribute("id");
    await page.getByRole("link", { name: "Next", exact: true }).click();
    await eventually(async () => assert.notEqual(await page.locator(".log .here").getAttribute("id"), first));
    assert.ok(await page.locator(".log .here mark").count() > 0);
    await page.goto(`${demo.url}/builds/116/log?line=1`);
    const before = await page.locator(".log li").count();
    await page.locator(".log").evaluate((it) => { it.scrollTop = it.scrollHeight; });
    await until(page, (count) => document.querySelectorAll(".log li").length > count, before);
    const numbers = await page.locator(".log li").evaluateAll((all) => all.map((it) => +it.id.slice(1)));
    assert.deepEqual(numbers, numbers.map((_, at) => at + 1));
    assert.deepEqual(faults, []);
    await context.close();
  },

  async "a growing log is followed"(demo, chromium) {
    const { page, context, faults } = await tab(chromium, ADMIN);
    await page.goto(`${demo.url}/builds/${demo.running}`);
    await demo.tell("log followed <b>text</b>");
    await until(page, (text) => document.querySelector(".log li:last-child code").textContent === text, "followed <b>text</b>");
    const isAtEnd = await page.locator(".log").evaluate((it) => it.scrollHeight - it.scrollTop - it.clientHeight < 5);
    assert.ok(isAtEnd);
    assert.deepEqual(faults, []);
    await context.close();
  },

  async "a build is built again and canceled"(demo, chromium) {
    const { page, context, faults } = await tab(chromium, ADMIN);
    await page.goto(`${demo.url}/builds?machine=linux&outcome=success`);
    await page.locator(".builds .target a").first().click();
    await page.getByRole("button", { name: "Rebuild" }).click();
    await eventually(async () => assert.equal(await page.locator(".facts .pill").textContent(), "queued"));
    await page.locator("summary", { hasText: "Cancel" }).click();
    await page.getByRole("button", { name: /Cancel build/ }).click();
    await until(page, () => document.querySelector(".facts .pill").textContent === "abort");
    assert.deepEqual(faults, []);
    await context.close();
  },

  async "the overview follows events"(demo, chromium) {
    const { page, context, faults } = await tab(chromium, ADMIN);
    await page.goto(demo.url);
    await until(page, () => document.getElementById("live").textContent === "live");
    await demo.tell("end");
    await until(page, () => document.querySelectorAll("#running li").length === 2);
    assert.deepEqual(faults, []);
    await context.close();
  },

  async "a repair of the doctor is rehearsed, and made"(demo, chromium) {
    await demo.tell("leftover");
    const { page, context, faults } = await tab(chromium, ADMIN);
    await page.goto(demo.url);
    // With the keyboard only.
    await page.getByRole("link", { name: "Host", exact: true }).focus();
    await page.keyboard.press("Enter");
    await page.waitForURL(/host$/);
    await page.getByRole("link", { name: "Doctor" }).focus();
    await page.keyboard.press("Enter");
    await page.waitForURL(/doctor$/);
    const finding = page.locator(".findings > li", { hasText: "7777" });
    assert.match(await finding.textContent(), /leftover-directory/);
    await finding.getByRole("button").focus();
    await page.keyboard.press("Enter");
    await page.waitForURL(/repair$/);
    assert.match(await page.locator(".steps").textContent(), /7777/);
    await page.getByRole("link", { name: "Cancel" }).click();
    await finding.getByRole("button").click();
    await page.waitForURL(/repair$/);
    await until(page, () => document.activeElement.matches("button"));
    await page.keyboard.press("Enter");
    await page.waitForURL(/doctor$/);
    assert.equal(await finding.count(), 0);
    assert.deepEqual(faults, []);
    await context.close();
  },

  async "a console only shows until its viewer types, which needs the scope"(demo, chromium) {
    const url = `${demo.url}/builds/${demo.running}/console`;
    const shows = (page, text) => page.waitForFunction((it) =>
      document.querySelector("#terminal").textContent.includes(it), text, { timeout: 20000 });
    const reader = await tab(chromium, { extraHTTPHeaders: { Authorization: "Bearer read-token" } });
    await reader.page.goto(url);
    await shows(reader.page, "root@build");
    assert.equal(await reader.page.getByRole("button", { name: "Type" }).count(), 0);
    const { page, context, faults } = await tab(chromium, ADMIN);
    await page.goto(url);
    await shows(page, "root@build");
    await page.locator("#terminal").click();
    await page.keyboard.type("unseen");
    await page.getByRole("button", { name: "Type" }).focus();
    await page.keyboard.press("Enter");
    await until(page, () => document.getElementById("console-state").textContent === "typing");
    await page.keyboard.type("make -j4");
    await shows(page, "make -j4");
    await shows(reader.page, "make -j4");
    assert.ok(!(await page.locator("#terminal").textContent()).includes("unseen"));
    await page.getByRole("button", { name: "Watch only" }).click();
    await until(page, () => document.getElementById("console-state").textContent === "watching");
    assert.deepEqual([faults, reader.faults], [[], []]);
    await context.close();
    await reader.context.close();
  },

  async "a token is created, used and removed without scripts, and its session ends"(demo, chromium) {
    const { page, context, faults } = await tab(chromium, { ...ADMIN, javaScriptEnabled: false });
    await page.goto(`${demo.url}/host/tokens`);
    await page.getByLabel("Name").fill("robot");
    await page.getByLabel("Scope").selectOption("submit");
    await page.getByRole("button", { name: "Create" }).press("Enter");
    const secret = await page.getByLabel(/Copy its secret/).inputValue();
    assert.match(secret, /^buildhost_[0-9a-f]{64}$/);
    const robot = await tab(chromium);
    await robot.page.goto(demo.url);
    await robot.page.getByLabel("Token").fill(secret);
    await robot.page.getByRole("button", { name: "Sign in" }).click();
    await until(robot.page, () => document.getElementById("live").textContent === "live");
    assert.equal(await robot.page.getByText("token:robot").count() > 0, true);
    const refused = await robot.page.goto(`${demo.url}/host/tokens`);
    assert.equal(refused.status(), 403);
    await robot.page.goto(demo.url);
    await until(robot.page, () => document.getElementById("live").textContent === "live");
    await page.goto(`${demo.url}/host/tokens`);
    assert.equal(await page.getByText(secret).count(), 0);
    const row = page.locator("tr", { hasText: "robot" });
    assert.match(await row.textContent(), /submit/);
    await row.getByRole("button", { name: /Remove/ }).click();
    assert.match(await page.locator(".steps").first().textContent(), /end its web session/);
    await page.getByRole("button", { name: "Remove" }).click();
    await row.waitFor({ state: "detached" });
    // The stream of events ends, and the next page is that for signing in.
    await until(robot.page, () => document.getElementById("live").textContent === "offline");
    await robot.page.goto(`${demo.url}/builds`);
    assert.match(robot.page.url(), /login/);
    assert.deepEqual(faults, []);
    await context.close();
    await robot.context.close();
  },

  async "readers without a session have no actions"(_, chromium) {
    const demo = await Demo.start(HOST, "40", 'http.web = "read"');
    try {
      const { page, context, faults } = await tab(chromium);
      await page.goto(demo.url);
      await until(page, () => document.getElementById("live").textContent === "live");
      await page.goto(`${demo.url}/builds/31`);
      assert.equal(await page.locator("form").count(), 0);
      const refused = await page.request.post(`${demo.url}/builds/31/cancel`);
      assert.equal(refused.status(), 403);
      assert.deepEqual(faults, []);
      await context.close();
    } finally { demo.stop(); }
  },
};

const demo = await Demo.start(HOST, "120");
const chromium = await browser();
const failures = await run(tests, demo, chromium, process.argv[2]);
await chromium.close();
demo.stop();
process.exitCode = failures ? 1 : 0;
