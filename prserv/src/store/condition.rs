//! The condition of a query for rows. It names only the columns that the filter gives, so that the
//! database searches the primary key instead of all rows.

use std::fmt::Write;

use super::Filter;

/// The condition of a query, with its parameters in the order of their placeholders.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Condition<'f> {
    /// ` WHERE …`, or nothing for all rows.
    pub(super) sql: String,
    /// The values of the placeholders.
    pub(super) parameters: Vec<&'f str>,
}

/// Returns the condition of a filter. The placeholders are numbers, from 1, after the sigil of the
/// database.
pub(super) fn condition(filter: &Filter, sigil: char) -> Condition<'_> {
    let columns = [
        ("version", &filter.version),
        ("pkgarch", &filter.pkgarch),
        ("checksum", &filter.checksum),
    ];
    let (mut sql, mut parameters) = (String::new(), Vec::new());
    for (column, value) in columns {
        if let Some(value) = value {
            parameters.push(value.as_str());
            let word = if parameters.len() == 1 {
                "WHERE"
            } else {
                "AND"
            };
            // Writing to a String cannot fail.
            let _ = write!(sql, " {word} {column} = {sigil}{}", parameters.len());
        }
    }
    Condition { sql, parameters }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_given_columns_are_compared() {
        let filter =
            |version: Option<&str>, pkgarch: Option<&str>, checksum: Option<&str>| Filter {
                version: version.map(str::to_owned),
                pkgarch: pkgarch.map(str::to_owned),
                checksum: checksum.map(str::to_owned),
            };
        for (filter, sql, parameters) in [
            (filter(None, None, None), "", vec![]),
            (
                filter(Some("v"), None, None),
                " WHERE version = ?1",
                vec!["v"],
            ),
            (
                filter(None, Some("a"), None),
                " WHERE pkgarch = ?1",
                vec!["a"],
            ),
            (
                filter(Some("v"), None, Some("c")),
                " WHERE version = ?1 AND checksum = ?2",
                vec!["v", "c"],
            ),
            (
                filter(Some("v"), Some("a"), Some("c")),
                " WHERE version = ?1 AND pkgarch = ?2 AND checksum = ?3",
                vec!["v", "a", "c"],
            ),
        ] {
            let expected = Condition {
                sql: sql.to_owned(),
                parameters,
            };
            assert_eq!(condition(&filter, '?'), expected);
        }
    }
}
