//! `prserv list` and `prserv show`: print tables or JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;

use prserv::store::{Filter, Row};
use prserv::{History, Package, Value};
use serde_json::json;

use super::ExitStatus;
use super::backend::Backend;

/// The arguments of `prserv list`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    backend: Backend,

    /// List only versions that contain this text.
    text: Option<String>,

    /// Print an array of objects instead of a table.
    #[arg(long)]
    json: bool,
}

/// The arguments of `prserv show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    #[command(flatten)]
    backend: Backend,

    /// The version, such as `busybox-1.36.1-r0`.
    version: String,

    /// Show only this architecture.
    pkgarch: Option<String>,

    /// Print an array of objects instead of a table.
    #[arg(long)]
    json: bool,
}

/// Lists packages with their greatest value and the number of their rows.
pub(crate) fn list(arguments: &List) -> anyhow::Result<ExitStatus> {
    let rows = arguments.backend.rows(&Filter::default(), History::Keep)?;
    let packages = summarize(&rows, arguments.text.as_deref().unwrap_or_default());
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let packages: Vec<_> = packages
            .iter()
            .map(|(package, (value, rows))| {
                json!({"version": package.version, "pkgarch": package.pkgarch, "value": value,
                    "rows": rows})
            })
            .collect();
        writeln!(out, "{}", json!(packages))?;
        return Ok(ExitStatus::Success);
    }
    let lines = packages.into_iter().map(|(package, (value, rows))| {
        [
            package.version.clone(),
            package.pkgarch.clone(),
            value.to_string(),
            rows.to_string(),
        ]
    });
    out.write_all(table(["VERSION", "PKGARCH", "VALUE", "ROWS"], lines).as_bytes())?;
    Ok(ExitStatus::Success)
}

/// Shows the rows of a version.
pub(crate) fn show(arguments: &Show) -> anyhow::Result<ExitStatus> {
    let filter = Filter {
        version: Some(arguments.version.clone()),
        pkgarch: arguments.pkgarch.clone(),
        checksum: None,
    };
    let mut rows = arguments.backend.rows(&filter, History::Keep)?;
    rows.sort_by(|a, b| {
        a.tuple
            .package
            .cmp(&b.tuple.package)
            .then_with(|| a.value.cmp(&b.value))
    });
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|Row { tuple, value }| {
                json!({"version": tuple.package.version, "pkgarch": tuple.package.pkgarch,
                    "checksum": tuple.checksum, "value": value})
            })
            .collect();
        writeln!(out, "{}", json!(rows))?;
        return Ok(ExitStatus::Success);
    }
    let lines = rows
        .into_iter()
        .map(|Row { tuple, value }| [tuple.package.pkgarch, value.to_string(), tuple.checksum]);
    out.write_all(table(["PKGARCH", "VALUE", "CHECKSUM"], lines).as_bytes())?;
    Ok(ExitStatus::Success)
}

/// Returns the greatest value and the number of rows of each package whose version contains a text.
fn summarize<'a>(rows: &'a [Row], text: &str) -> BTreeMap<&'a Package, (&'a Value, usize)> {
    let mut packages = BTreeMap::new();
    for Row { tuple, value } in rows
        .iter()
        .filter(|row| row.tuple.package.version.contains(text))
    {
        let (max, rows) = packages.entry(&tuple.package).or_insert((value, 0));
        *max = (*max).max(value);
        *rows += 1;
    }
    packages
}

/// Formats a table whose columns are as wide as their widest cell. The last column is not padded.
fn table<const N: usize>(header: [&str; N], lines: impl Iterator<Item = [String; N]>) -> String {
    let lines: Vec<[String; N]> = std::iter::once(header.map(str::to_owned))
        .chain(lines)
        .collect();
    let widths = widths(&lines);
    let mut text = String::new();
    for line in &lines {
        for (cell, width) in line.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{cell:<width$}");
        }
        text.push('\n');
    }
    text
}

/// Returns the width of each column in characters: that of its widest cell and a gap of two, and
/// none for the last one.
fn widths<const N: usize>(lines: &[[String; N]]) -> [usize; N] {
    let mut widths = [0; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line).take(N - 1) {
            *width = (*width).max(cell.chars().count() + 2);
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_except_for_the_last() {
        let lines = [["a", "é"], ["long", "x"]].map(|line| line.map(str::to_owned));
        let text = table(["A", "B"], lines.into_iter());
        assert_eq!(text, "A     B\na     é\nlong  x\n");
    }

    /// Quadratic time would be minutes.
    #[test]
    fn the_time_of_a_table_is_linear_in_its_lines() {
        let lines = (0..50_000).map(|number| [format!("v{number}"), number.to_string()]);
        let start = Instant::now();
        assert_eq!(table(["A", "B"], lines).lines().count(), 50_001);
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
    }
}
