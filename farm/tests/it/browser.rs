//! The pages of a farm in a browser: `tests/browser/farm.mjs` has the tests, and drives Chromium.

use std::time::Duration;

use sys::command;

use super::processes::example;

#[test]
#[ignore = "needs PostgreSQL, Chromium, Node.js and `npm ci --prefix tests/browser`"]
fn the_pages_work_in_a_browser() {
    let mut node = command::prepare("node");
    node.arg("farm.mjs")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/browser"))
        .env("FARM_DEMO", example("farm_demo"));
    // Its error has the tests that failed.
    command::run(node, Duration::from_mins(8)).unwrap();
}
