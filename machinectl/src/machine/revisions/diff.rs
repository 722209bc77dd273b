//! `diff`: the differences between two revisions.

use config::{MachineName, Revision};
use serde_json::{Value, json};
use store::{EntryDifference, Volume};

use crate::exit_code::{ExitStatus, Failure};
use crate::output::{Output, Table, joined, mebibytes, or_empty};

/// Prints the differences; fails if there are any.
pub(super) fn run(
    volume: &Volume,
    name: &MachineName,
    (older, newer): (Revision, Revision),
    output: &Output,
) -> Result<(), Failure> {
    let differences = volume.diff(name, older, newer)?;
    if output.is_json() {
        let entries: Vec<_> = differences.iter().map(json).collect();
        output.print_json(&json!({
            "machine": name, "older": older, "newer": newer, "differences": entries,
        }))?;
    } else {
        output.print_table(&table(&differences))?;
    }
    if differences.is_empty() {
        output.status(format_args!(
            "{name}: revisions {older} and {newer} have the same content"
        ));
        return Ok(());
    }
    let text = format!(
        "revision {newer} of {name} differs from revision {older}: {}",
        summary(&differences)
    );
    Err(Failure::new(ExitStatus::ContentDiffers, text))
}

/// Returns the kind of a difference.
fn kind(difference: &EntryDifference) -> &'static str {
    match (difference.before, difference.after) {
        (None, _) => "added",
        (_, None) => "missing",
        _ => "changed",
    }
}

fn table(differences: &[EntryDifference]) -> Table {
    let mut table = Table::new(["CHANGE", "BEFORE", "AFTER", "NAME", "DIFFERENCE"]);
    for it in differences {
        let predicates = match kind(it) {
            "changed" => it.predicates.join(", "),
            _ => String::new(),
        };
        table.add([
            kind(it).to_owned(),
            or_empty(it.before.map(mebibytes)),
            or_empty(it.after.map(mebibytes)),
            it.name.clone(),
            predicates,
        ]);
    }
    table
}

/// Returns the number of differences of each kind: `2 added, 1 changed`.
fn summary(differences: &[EntryDifference]) -> String {
    let number = |wanted| differences.iter().filter(|it| kind(it) == wanted).count();
    let text = |wanted| match number(wanted) {
        0 => String::new(),
        number => format!("{number} {wanted}"),
    };
    let texts = ["added", "missing", "changed"].map(text);
    joined(texts.iter().map(String::as_str), ", ")
}

/// Returns a difference as JSON. The keys are stable.
fn json(difference: &EntryDifference) -> Value {
    json!({
        "name": difference.name,
        "change": kind(difference),
        "bytes_before": difference.before,
        "bytes_after": difference.after,
        "differences": difference.predicates,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(name: &str, sizes: (Option<u64>, Option<u64>)) -> EntryDifference {
        EntryDifference {
            name: name.to_owned(),
            before: sizes.0,
            after: sizes.1,
            predicates: vec!["has another content".to_owned()],
        }
    }

    #[test]
    fn differences_as_text() {
        let differences = [
            difference("etc/fstab", (Some(2048), Some(3 << 20))),
            difference("new", (None, Some(1))),
            difference("gone", (Some(0), None)),
        ];
        insta::assert_snapshot!(table(&differences).to_text(true, false));
        assert_eq!(summary(&differences), "1 added, 1 missing, 1 changed");
        assert_eq!(summary(&differences[1..2]), "1 added");
    }
}
