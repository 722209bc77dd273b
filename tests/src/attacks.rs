//! The table of attacks that hostile tests have tried, and of what refused them.

use std::fs::File;
use std::io::Write;

/// The variable with the path of the table; `scripts/test` prints that file at its end.
const TABLE: &str = "BUILDHOST_TEST_ATTACKS";

/// Records that an attack across a boundary was refused: `sender -> volume`, the attack, and
/// the message or the rule that refused it.
pub fn refused(boundary: &str, attack: &str, by: &str) {
    let by = by.trim_end().lines().next().unwrap_or_default();
    let row = format!("{boundary} | {attack} | {by}\n");

    if let Some(table) = std::env::var_os(TABLE) {
        let table = File::options().append(true).create(true).open(table);
        // One call per row, so that rows of concurrent tests do not mix.
        let written = table.and_then(|mut table| table.write_all(row.as_bytes()));
        written.expect("the table of attacks");
    }
}
