//! Tables for people.

use std::fmt::Write as _;

use config::printable;

/// The heading of the column whose cells have colors.
const COLORED: &str = "STATE";

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table without rows.
    pub(crate) fn new(headings: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            headings: headings.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. An empty cell is shown as `-`.
    pub(crate) fn add(&mut self, cells: impl IntoIterator<Item = String>) {
        let show = |cell: String| match cell.as_str() {
            "" => "-".to_owned(),
            text => printable(text).to_string(),
        };
        self.rows.push(cells.into_iter().map(show).collect());
    }

    /// Returns true if the table has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the table as text; an empty text if it has no rows.
    pub(crate) fn to_text(&self, legend: bool, colors: bool) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let headings: Vec<String> = self.headings.iter().map(ToString::to_string).collect();
        let lines: Vec<&Vec<String>> = legend
            .then_some(&headings)
            .into_iter()
            .chain(&self.rows)
            .collect();
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|column| width(&lines, column))
            .collect();
        let mut text = String::new();
        for line in lines {
            let mut padded = String::new();
            let cells = line.iter().zip(&widths).zip(&self.headings);
            for ((cell, width), heading) in cells {
                let color = (colors && *heading == COLORED)
                    .then(|| color(cell))
                    .flatten();
                let _ = match color {
                    // The codes take no place, so the padding is outside of them.
                    Some(code) => {
                        let blanks = width.saturating_sub(cell.chars().count());
                        write!(padded, "\x1b[{code}m{cell}\x1b[0m{:blanks$}  ", "")
                    }
                    None => write!(padded, "{cell:width$}  "),
                };
            }
            let _ = writeln!(text, "{}", padded.trim_end());
        }
        text
    }
}

/// Returns the color of a state or an outcome, as a parameter of SGR.
fn color(cell: &str) -> Option<&'static str> {
    match cell {
        "success" => Some("32"),
        "warning" => Some("33"),
        "error" | "abnormal" => Some("31"),
        "abort" | "interrupt" => Some("35"),
        "starting" | "running" | "storing" => Some("36"),
        _ => None,
    }
}

fn width(lines: &[&Vec<String>], column: usize) -> usize {
    lines
        .iter()
        .filter_map(|line| line.get(column))
        .map(|cell| cell.chars().count())
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["MACHINE", "CURRENT"]);
        assert_eq!(table.to_text(true, false), "");
        table.add(["a-long-name".into(), "2".into()]);
        table.add(["b".into(), String::new()]);
        assert_eq!(
            table.to_text(true, false),
            "MACHINE      CURRENT\na-long-name  2\nb            -\n"
        );
        assert_eq!(
            table.to_text(false, false),
            "a-long-name  2\nb            -\n"
        );
    }

    #[test]
    fn colors_do_not_move_columns() {
        let mut table = Table::new(["BUILD", "STATE", "RESULT"]);
        table.add(["1".into(), "error".into(), "error".into()]);
        table.add(["2".into(), "success".into(), "hello".into()]);
        let colored = table.to_text(true, true);
        assert!(colored.contains("1      \u{1b}[31merror\u{1b}[0m    error\n"));
        let plain = colored
            .replace("\u{1b}[31m", "")
            .replace("\u{1b}[32m", "")
            .replace("\u{1b}[0m", "");
        assert_eq!(plain, table.to_text(true, false));
    }
}
