// Takes pictures of all pages: `node screenshots.mjs DIRECTORY`.
import { Demo, browser, tab } from "./browser.mjs";

const directory = process.argv[2];
const demo = await Demo.start("400");
await demo.tell("leftover");
const chromium = await browser();
const authorization = { Authorization: "Bearer admin-token" };
const pages = {
  overview: "/",
  builds: "/builds",
  "builds-filtered": "/builds?machine=linux&outcome=error",
  build: "/builds/396",
  "build-failed": "/builds/398",
  "build-running": `/builds/${demo.running}`,
  log: "/builds/398/log?find=warning",
  machines: "/machines",
  machine: "/machines/linux",
  console: `/builds/${demo.running}/console`,
  host: "/host",
  doctor: "/host/doctor",
  services: "/host/services",
  tokens: "/host/tokens",
  settings: "/host/settings",
  login: "/login",
};
for (const [scheme, width] of [["light", 1280], ["dark", 1280], ["light", 360]]) {
  const { page } = await tab(chromium, { colorScheme: scheme, viewport: { width, height: width > 400 ? 900 : 780 }, extraHTTPHeaders: authorization });
  for (const [name, path] of Object.entries(pages)) {
    await page.goto(demo.url + path);
    await page.waitForTimeout(300);
    await page.screenshot({ path: `${directory}/${name}-${scheme}-${width}.png`, fullPage: true });
  }
}
await chromium.close();
demo.stop();
