//! The web pages in a browser: `tests/browser/pages.mjs` has the tests, and drives Chromium.

use std::time::Duration;

use sys::command;

#[test]
#[ignore = "needs Chromium, Node.js and `npm ci --prefix tests/browser`"]
fn the_pages_work_in_a_browser() {
    let mut node = command::prepare("node");
    node.arg("pages.mjs")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/browser"))
        .env("WEB_DEMO", tests::program("web-demo"));
    // Its error has the tests that failed.
    command::run(node, Duration::from_mins(8)).unwrap();
}
