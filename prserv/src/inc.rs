//! The files of `bitbake-prserv-tool`: BitBake configuration with one variable for each row.
//!
//! Dotted values are written too; oe-core's own importer passes them over.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

use crate::store::Row;
use crate::tuple::{Package, Tuple};
use crate::value::Value;

const PREFIX: &str = "PRAUTO$";

/// The table's description, as oe-core's writer formats it.
const DESCRIPTION: &str = "\
#PR_core_ver = \"2.19.0\"

#Table: PRMAIN
#Columns:
#name      \t type    \t notn    \t dflt    \t pk
#----------\t --------\t --------\t --------\t ----
";

/// Whether the file forbids BitBake to ask a server for what it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lockdown {
    /// It does, as `bitbake-prserv-tool` writes it.
    Yes,
    /// It does not.
    No,
}

/// The text of a file, and what it could not hold or others will not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The whole file.
    pub text: String,
    /// Rows with names that a variable's name cannot hold; they are not in the file.
    pub left_out: Vec<Row>,
    /// How many values have dots: oe-core's importer passes them over.
    pub dotted: usize,
}

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The rows in the order of the file, each once.
    pub rows: Vec<Row>,
    /// The numbers of lines that begin like a row and are none.
    pub bad_lines: Vec<usize>,
}

/// Writes rows that come sorted by package.
pub fn write(rows: Vec<Row>, lockdown: Lockdown) -> Written {
    let (rows, left_out): (Vec<_>, Vec<_>) = rows.into_iter().partition(is_writable);
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
    Written {
        text,
        left_out,
        dotted,
    }
}

/// The rows of a version, then the greatest value of each of its architectures.
fn write_version(text: &mut String, version: &str, rows: &[&Row]) {
    let mut greatest: BTreeMap<&str, &Value> = BTreeMap::new();
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
        let max = greatest.entry(&package.pkgarch).or_insert(value);
        *max = (*max).max(value);
    }
    for (pkgarch, value) in greatest {
        let _ = writeln!(text, "PRAUTO_{version}_{pkgarch} = \"{value}\"");
    }
}

fn is_writable(row: &Row) -> bool {
    let Tuple {
        package: Package { version, pkgarch },
        checksum,
    } = &row.tuple;
    let is_name = |text: &str, other: &[char]| {
        !text.contains(|c: char| c.is_whitespace() || c.is_control() || other.contains(&c))
    };
    is_name(version, &['"', '\'', '=', '\\', '#'])
        && [pkgarch, checksum]
            .iter()
            .all(|text| is_name(text, &['"', '\'', '=', '\\', '#', '$']))
}

/// Reads the rows of a file; everything else in it is passed over.
pub fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut seen = HashSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let Some(rest) = line.trim().strip_prefix(PREFIX) else {
            continue;
        };
        match row(rest) {
            Some(row) if seen.insert(row.clone()) => parsed.rows.push(row),
            Some(_) => {}
            None => parsed.bad_lines.push(number),
        }
    }
    parsed
}

/// `version$pkgarch$checksum = "value"`, split from the right.
fn row(text: &str) -> Option<Row> {
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
    Some(Row {
        tuple: Tuple::new(version, pkgarch, checksum),
        value: value.trim().parse().ok()?,
    })
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
    fn the_file_is_as_bitbakes_tool_writes_it() {
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
        let written = write(rows.clone(), Lockdown::Yes);
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
        assert_eq!(written.text, expected);
        assert_eq!(parse(expected).rows, rows);
    }

    #[test]
    fn other_lines_are_passed_over_and_bad_ones_are_counted() {
        let text = "# PRAUTO$a$b$c = \"1\"\nPRAUTO$v$w$x$y = '1.2'\nPRAUTO$v$a = \"1\"\n\
            PRAUTO_v_a = \"7\"\nPRAUTO$v$a$c = \"x\"\nFOO = \"1\"\nPRAUTO$v$a$c ?= \"3\"\n";
        let parsed = parse(text);
        assert_eq!(
            parsed.rows,
            [row("v$w", "x", "y", "1.2"), row("v", "a", "c", "3")]
        );
        assert_eq!(parsed.bad_lines, [3, 5]);
    }

    #[test]
    fn names_that_no_variable_can_have_are_left_out() {
        let odd = row("v", "a b", "c", "1");
        let written = write(vec![odd.clone(), row("v", "a", "c", "1.1")], Lockdown::No);
        assert_eq!(written.left_out, [odd]);
        assert_eq!(written.dotted, 1);
        assert!(!written.text.contains("LOCKDOWN"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(names in proptest::collection::btree_set(("[a-z$+.-]{1,9}", "[a-z_]{1,5}", "[0-9a-f+]{0,9}", 0u64..99, 0u64..3), 0..20)) {
            let rows: Vec<Row> = names.into_iter().map(|(version, pkgarch, checksum, number, below)| {
                let value = if below == 0 { number.to_string() } else { format!("{number}.{below}") };
                row(&version, &pkgarch, &checksum, &value)
            }).collect();
            let mut back = parse(&write(rows.clone(), Lockdown::Yes).text).rows;
            back.sort();
            let mut rows = rows;
            rows.sort();
            prop_assert_eq!(back, rows);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(PRAUTO[$_]|[a$=\"'. \n?]|\\PC){0,40}") {
            let _ = parse(&text);
        }
    }
}
