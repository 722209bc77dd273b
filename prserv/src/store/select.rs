//! The selection of the rows that an export contains.

use super::{Filter, Row, Store, StoreError};
use crate::policy::History;

/// Returns the rows of a store that match: all of them with history, and only those with the
/// greatest value of their package without.
pub fn export(
    store: &mut dyn Store,
    filter: &Filter,
    history: History,
) -> Result<Vec<Row>, StoreError> {
    let rows = store.rows(&needed(filter, history))?;
    Ok(select(rows, filter.checksum.as_deref(), history))
}

/// Returns the filter of the rows that a selection depends on: without history, only the rows of
/// all checksums tell the greatest value of a package.
fn needed(filter: &Filter, history: History) -> Filter {
    let checksum = match history {
        History::Keep => filter.checksum.clone(),
        History::Ignore => None,
    };
    Filter {
        checksum,
        ..filter.clone()
    }
}

/// Removes rows with an empty version and, without history, rows below the greatest value of their
/// package. Then applies the checksum filter. The rows must be grouped by package.
fn select(rows: Vec<Row>, checksum: Option<&str>, history: History) -> Vec<Row> {
    let mut selected: Vec<Row> = Vec::new();
    for row in rows
        .into_iter()
        .filter(|row| !row.tuple.package.version.is_empty())
    {
        let last_is_smaller =
            |last: &Row| last.tuple.package == row.tuple.package && last.value < row.value;
        while history == History::Ignore && selected.last().is_some_and(last_is_smaller) {
            selected.pop();
        }
        let last_is_greater =
            |last: &Row| last.tuple.package == row.tuple.package && last.value > row.value;
        if history == History::Keep || !selected.last().is_some_and(last_is_greater) {
            selected.push(row);
        }
    }
    selected.retain(|row| checksum.is_none_or(|wanted| row.tuple.checksum == wanted));
    selected
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuple::Tuple;
    use crate::value::Value;

    fn row(version: &str, checksum: &str, number: u64) -> Row {
        Row {
            tuple: Tuple::new(version, "all", checksum),
            value: Value::from(number),
        }
    }

    #[test]
    fn without_history_the_numerically_greatest_rows_are_selected_including_ties() {
        let rows = vec![
            row("", "x", 1),
            row("a", "1", 9),
            row("a", "2", 12),
            row("a", "3", 12),
            row("a", "4", 3),
            row("b", "1", 0),
        ];
        let selected = select(rows.clone(), None, History::Ignore);
        assert_eq!(
            selected,
            [row("a", "2", 12), row("a", "3", 12), row("b", "1", 0)]
        );
        assert_eq!(select(rows.clone(), None, History::Keep).len(), 5);
        assert_eq!(select(rows, Some("1"), History::Ignore), [row("b", "1", 0)]);
    }
}
