//! BitBake itself, with the programs of the toolchain `bitbake`. BITBAKE names a checkout.

use std::time::Duration;

use sys::command;

/// Compares the hashes of tasks after random edits of a layer. Returns the lines of the comparison.
fn compare(edits: usize, seed: u32, limit: Duration) -> String {
    let checkout = std::env::var("BITBAKE").unwrap();
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let mut python = command::prepare("python3");
    python.arg("-B");
    python.arg(format!("{repository}/tests/bitbake/edits.py"));
    python.args([checkout, edits.to_string(), seed.to_string()]);
    python.env("BITBAKE_HOME", home);
    let modules = format!("{repository}/scripts/toolchains/bitbake");
    python.env("PYTHONPATH", modules);
    let output = command::run(python, limit).unwrap();
    String::from_utf8(output).unwrap()
}

/// Checks that each comparison has succeeded, and that both kinds of BitBake were used.
fn check(lines: &str, edits: usize) {
    let count = |text: &str| lines.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("tasks are the same"), edits, "{lines}");
    let (resident, cold) = (count("BitBake has parsed"), count("BitBake starts cold"));
    assert_eq!(resident + cold, edits, "{lines}");
    assert!(resident > 0 && cold > 0, "{lines}");
}

#[test]
#[ignore = "needs a checkout of BitBake in $BITBAKE"]
fn the_resident_bitbake_has_the_task_hashes_of_a_cold_parse() {
    let lines = compare(4, 1, Duration::from_mins(4));
    check(&lines, 4);
}

mod long {
    use super::*;

    #[test]
    #[ignore = "needs a checkout of BitBake in $BITBAKE, and half an hour"]
    fn the_resident_bitbake_has_the_task_hashes_of_a_cold_parse_after_200_edits() {
        let lines = compare(200, 2, Duration::from_mins(85));
        check(&lines, 200);
    }
}
