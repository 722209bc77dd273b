//! The programs of the toolchain `bitbake`, which are tested in their own language.

use std::time::Duration;

use sys::command;

#[test]
fn the_modules_of_the_toolchain_pass_their_own_tests() {
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut python = command::prepare("python3");
    python.args(["-B", "-m", "unittest", "discover", "--start-directory"]);
    python.arg(format!("{repository}/tests/bitbake"));
    python.env(
        "PYTHONPATH",
        format!("{repository}/scripts/toolchains/bitbake"),
    );
    command::run(python, Duration::from_mins(2)).unwrap();
}
