//! BitBake's own tests of its server, run against this one.

use std::process::Command;

/// The number of tests that run. Others need a server of BitBake itself.
const TESTS_MIN: usize = 100;

#[test]
#[ignore = "needs BITBAKE=DIR, a checkout of BitBake, Python with `websockets`, and two minutes"]
fn bitbakes_own_tests_pass() {
    let bitbake = std::env::var("BITBAKE").unwrap();
    #[expect(clippy::disallowed_methods, reason = "runs BitBake's tests")]
    let output = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bitbake.py"))
        .env("BITBAKE", bitbake)
        .env("HASHSERV", env!("CARGO_BIN_EXE_hashserv"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let ran = text.split_once("\nRan ").unwrap().1;
    let count: usize = ran.split(' ').next().unwrap().parse().unwrap();
    assert!(output.status.success(), "{text}");
    assert!(count >= TESTS_MIN, "{text}");
}
