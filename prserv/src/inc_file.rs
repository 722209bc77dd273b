//! The file format of `bitbake-prserv-tool`: a BitBake include file with one variable per row.
//!
//! Dotted values are written too, although oe-core's importer ignores them.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

use crate::store::Row;
use crate::tuple::{Package, Tuple};
use crate::value::{Value, ValueError};

const PREFIX: &str = "PRAUTO$";

/// The description of the table in the format of oe-core's exporter.
const DESCRIPTION: &str = "\
#PR_core_ver = \"2.19.0\"

#Table: PRMAIN
#Columns:
#name      \t type    \t notn    \t dflt    \t pk
#----------\t --------\t --------\t --------\t ----
";

/// The variable `PRSERV_LOCKDOWN`, which forbids BitBake to request missing values from a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lockdown {
    /// The file sets the variable, as `bitbake-prserv-tool` does.
    Yes,
    /// The file does not set the variable.
    No,
}

/// A formatted file and the rows that are lost in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formatted {
    /// The whole file.
    pub text: String,
    /// Rows that the file does not contain, because no variable can have their name.
    pub skipped: Vec<Row>,
    /// The number of dotted values, which oe-core's importer ignores.
    pub dotted: usize,
}

/// A parsed file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The rows in the order of the file without duplicates.
    pub rows: Vec<Row>,
    /// The numbers of malformed lines: they begin like a row but are not one.
    pub malformed_lines: Vec<usize>,
    /// The keys of rows whose value is too long, with the numbers of their lines.
    pub long_values: Vec<(usize, Tuple)>,
}

/// Formats rows, which must be sorted by package.
pub fn format(rows: Vec<Row>, lockdown: Lockdown) -> Formatted {
    let (rows, skipped): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_representable);
    let dotted = rows.iter().filter(|row| row.value.depth() > 1).count();
    let mut versions: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &rows {
        versions
            .entry(&row.tuple.package.version)
            .or_default()
            .push(row);
    }
    let mut text = String::new();
    for (version, rows) in versions {
        write_version(&mut text, version, &rows);
    }
    text.push_str(DESCRIPTION);
    for (name, kind, not_null, key) in [
        ("version", "TEXT", 1, 1),
        ("pkgarch", "TEXT", 1, 2),
        ("checksum", "TEXT", 1, 3),
        ("value", "TEXT", 0, 4),
    ] {
        let _ = writeln!(
            text,
            "#{name:>10}\t {kind:>8}\t {not_null:>8}\t {:>8}\t {key:>4}",
            "None"
        );
    }
    text.push('\n');
    if lockdown == Lockdown::Yes {
        text.push_str("PRSERV_LOCKDOWN = \"1\"\n\n");
    }
    Formatted {
        text,
        skipped,
        dotted,
    }
}

/// Writes the rows of a version, then the greatest value of each of its architectures.
fn write_version(text: &mut String, version: &str, rows: &[&Row]) {
    let mut max_values: BTreeMap<&str, &Value> = BTreeMap::new();
    for Row {
        tuple: Tuple { package, checksum },
        value,
    } in rows
    {
        let _ = writeln!(
            text,
            "{PREFIX}{version}${}${checksum} = \"{value}\"",
            package.pkgarch
        );
        let max = max_values.entry(&package.pkgarch).or_insert(value);
        *max = (*max).max(value);
    }
    for (pkgarch, value) in max_values {
        let _ = writeln!(text, "PRAUTO_{version}_{pkgarch} = \"{value}\"");
    }
}

/// Returns true if a variable can have the row's name.
fn is_representable(row: &Row) -> bool {
    let Tuple {
        package: Package { version, pkgarch },
        checksum,
    } = &row.tuple;
    let is_name = |text: &str, forbidden: &[char]| {
        !text.contains(|c: char| c.is_whitespace() || c.is_control() || forbidden.contains(&c))
    };
    is_name(version, &['"', '\'', '=', '\\', '#'])
        && [pkgarch, checksum]
            .iter()
            .all(|text| is_name(text, &['"', '\'', '=', '\\', '#', '$']))
}

/// Parses the rows of a file and ignores everything else.
pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut seen = HashSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let Some(rest) = line.trim().strip_prefix(PREFIX) else {
            continue;
        };
        match row(rest) {
            Some((tuple, Ok(value))) => {
                let row = Row { tuple, value };
                if seen.insert(row.clone()) {
                    parsed.rows.push(row);
                }
            }
            Some((tuple, Err(ValueError::TooLong))) => parsed.long_values.push((number, tuple)),
            Some((_, Err(ValueError::Malformed))) | None => parsed.malformed_lines.push(number),
        }
    }
    parsed
}

/// Parses `version$pkgarch$checksum = "value"`. The name is split from the right, because a version
/// may contain `$`.
fn row(text: &str) -> Option<(Tuple, Result<Value, ValueError>)> {
    let (names, value) = text.split_once('=')?;
    let value = value.trim();
    let value = ['"', '\'']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))?;
    let mut names = names
        .trim_end_matches(['?', ':', ' ', '\t'])
        .rsplitn(3, '$');
    let (checksum, pkgarch, version) = (names.next()?, names.next()?, names.next()?);
    if version.is_empty() || pkgarch.is_empty() {
        return None;
    }
    let tuple = Tuple::new(version, pkgarch, checksum);
    Some((tuple, value.trim().parse()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(version: &str, pkgarch: &str, checksum: &str, value: &str) -> Row {
        Row {
            tuple: Tuple::new(version, pkgarch, checksum),
            value: value.parse().unwrap(),
        }
    }

    #[test]
    fn the_format_is_that_of_bitbake_prserv_tool() {
        let rows = vec![
            row(
                "AUTOINC-linux-yocto-6.6+git",
                "qemux86_64",
                "AUTOINC+0123456789",
                "0",
            ),
            row("busybox-1.36.1-r0", "core2-64", "00", "9"),
            row("busybox-1.36.1-r0", "core2-64", "01", "12"),
        ];
        let formatted = format(rows.clone(), Lockdown::Yes);
        let expected = "\
PRAUTO$AUTOINC-linux-yocto-6.6+git$qemux86_64$AUTOINC+0123456789 = \"0\"
PRAUTO_AUTOINC-linux-yocto-6.6+git_qemux86_64 = \"0\"
PRAUTO$busybox-1.36.1-r0$core2-64$00 = \"9\"
PRAUTO$busybox-1.36.1-r0$core2-64$01 = \"12\"
PRAUTO_busybox-1.36.1-r0_core2-64 = \"12\"
#PR_core_ver = \"2.19.0\"

#Table: PRMAIN
#Columns:
#name      \t type    \t notn    \t dflt    \t pk
#----------\t --------\t --------\t --------\t ----
#   version\t     TEXT\t        1\t     None\t    1
#   pkgarch\t     TEXT\t        1\t     None\t    2
#  checksum\t     TEXT\t        1\t     None\t    3
#     value\t     TEXT\t        0\t     None\t    4

PRSERV_LOCKDOWN = \"1\"

";
        assert_eq!(formatted.text, expected);
        assert_eq!(parse(expected).rows, rows);
    }

    #[test]
    fn other_lines_are_ignored_and_malformed_ones_reported() {
        let text = "# PRAUTO$a$b$c = \"1\"\nPRAUTO$v$w$x$y = '1.2'\nPRAUTO$v$a = \"1\"\n\
            PRAUTO_v_a = \"7\"\nPRAUTO$v$a$c = \"x\"\nFOO = \"1\"\nPRAUTO$v$a$c ?= \"3\"\n";
        let parsed = parse(text);
        assert_eq!(
            parsed.rows,
            [row("v$w", "x", "y", "1.2"), row("v", "a", "c", "3")]
        );
        assert_eq!(parsed.malformed_lines, [3, 5]);
    }

    #[test]
    fn rows_whose_name_no_variable_can_have_are_skipped() {
        let with_space = row("v", "a b", "c", "1");
        let rows = vec![with_space.clone(), row("v", "a", "c", "1.1")];
        let formatted = format(rows, Lockdown::No);
        assert_eq!(formatted.skipped, [with_space]);
        assert_eq!(formatted.dotted, 1);
        assert!(!formatted.text.contains("LOCKDOWN"));
    }

    proptest! {
        #[test]
        fn formatted_rows_parse_back(names in proptest::collection::btree_set(("[a-z$+.-]{1,9}", "[a-z_]{1,5}", "[0-9a-f+]{0,9}", 0u64..99, 0u64..3), 0..20)) {
            let rows: Vec<Row> = names.into_iter().map(|(version, pkgarch, checksum, number, below)| {
                let value = if below == 0 { number.to_string() } else { format!("{number}.{below}") };
                row(&version, &pkgarch, &checksum, &value)
            }).collect();
            let mut back = parse(&format(rows.clone(), Lockdown::Yes).text).rows;
            back.sort();
            let mut rows = rows;
            rows.sort();
            prop_assert_eq!(back, rows);
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "(PRAUTO[$_]|[a$=\"'. \n?]|\\PC){0,40}") {
            let _ = parse(&text);
        }
    }
}
