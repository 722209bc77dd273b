// Takes pictures of all pages of a host and of a farm: `node screenshots.mjs DIRECTORY`.
import { Demo, FARM, HOST, browser, signIn, tab } from "./browser.mjs";

const directory = process.argv[2];
const chromium = await browser();

/** Takes pictures of pages, by their names, in both schemes and on a narrow screen. */
async function take(url, pages, options, enter = async () => {}) {
  for (const [colorScheme, width] of [["light", 1280], ["dark", 1280], ["light", 360]]) {
    const { page, context } = await tab(chromium, { ...options, colorScheme, viewport: { width, height: width > 400 ? 900 : 780 } });
    await enter(page);
    for (const [name, path] of Object.entries(pages)) {
      await page.goto(url + path);
      await page.waitForTimeout(300);
      await page.screenshot({ path: `${directory}/${name}-${colorScheme}-${width}.png`, fullPage: true });
    }
    await context.close();
  }
}

const host = await Demo.start(HOST, "400");
await host.tell("leftover");
await take(host.url, {
  overview: "/",
  builds: "/builds",
  "builds-filtered": "/builds?machine=linux&outcome=error",
  build: "/builds/396",
  "build-failed": "/builds/398",
  "build-running": `/builds/${host.running}`,
  log: "/builds/398/log?find=warning",
  machines: "/machines",
  machine: "/machines/linux",
  console: `/builds/${host.running}/console`,
  host: "/host",
  doctor: "/host/doctor",
  services: "/host/services",
  tokens: "/host/tokens",
  settings: "/host/settings",
  login: "/login",
}, { extraHTTPHeaders: { Authorization: "Bearer admin-token" } });
host.stop();

const farm = await Demo.start(FARM, "400");
await take(farm.url, {
  "farm-overview": "/",
  "farm-builds": "/builds",
  "farm-build": "/builds/398",
  "farm-build-running": `/builds/${farm.running}`,
  "farm-artifacts": "/builds/397/artifacts",
  "farm-hosts": "/hosts",
  "farm-host": "/hosts/build1",
  "farm-machines": "/machines",
  "farm-login": "/login",
}, {}, (page) => signIn(page, farm.url, "admin-token"));
farm.stop();
await chromium.close();
