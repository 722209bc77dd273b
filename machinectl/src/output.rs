//! How we speak: data on stdout, talk and errors on stderr.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::Ending;
use crate::{Common, Failure};

/// How loudly we speak, and in what form.
#[derive(Debug)]
pub(crate) struct Voice {
    quiet: bool,
    json: bool,
    legend: bool,
}

impl Voice {
    pub(crate) fn new(common: &Common) -> Self {
        Self {
            quiet: common.quiet,
            json: common.json,
            legend: !common.no_legend,
        }
    }

    /// Talk: for people who watch.
    pub(crate) fn say(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            // Nobody can be told that nobody can be told.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// An error with everything that led to it.
    #[expect(clippy::unused_self, reason = "errors are never silent")]
    pub(crate) fn error(&self, error: &dyn Error) {
        let _ = writeln!(io::stderr(), "machinectl: {}", chain(error));
    }

    /// Something that the caller should know, though what was asked for is done.
    pub(crate) fn warn(&self, warning: &dyn Error) {
        self.say(format!("machinectl: warning: {}", chain(warning)));
    }

    /// A step of a plan that is only rehearsed: data, an object on each line for
    /// programs.
    pub(crate) fn would(&self, step: impl std::fmt::Display) -> Result<(), Failure> {
        if self.json {
            let step = serde_json::json!({ "would": step.to_string() });
            return print(&format!("{step}\n"));
        }
        print(&format!("would {step}\n"))
    }

    /// Whether nobody wants to hear us.
    pub(crate) fn quiet(&self) -> bool {
        self.quiet
    }

    /// Whether data is wanted as JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// Data as JSON.
    #[expect(clippy::unused_self, reason = "the one way to stdout")]
    pub(crate) fn print_json(&self, value: &serde_json::Value) -> Result<(), Failure> {
        print(&format!("{value:#}\n"))
    }

    /// Data as a table; nothing at all when it has no rows.
    pub(crate) fn print_table(&self, table: &Table) -> Result<(), Failure> {
        print(&table.show(self.legend))
    }

    /// Data as it is.
    #[expect(clippy::unused_self, reason = "the one way to stdout")]
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        print(text)
    }
}

/// An error with everything that led to it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough: `| head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Failure::new(Ending::Failed, error)),
    }
}

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        let headings = headings.to_vec();
        let rows = Vec::new();
        Self { headings, rows }
    }

    /// Adds a row; every empty cell shows as `-`.
    pub(crate) fn add<const N: usize>(&mut self, cells: [String; N]) {
        let dash = |cell: String| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                cell
            }
        };
        self.rows.push(cells.into_iter().map(dash).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(crate) fn show(&self, legend: bool) -> String {
        let headings = self.headings.iter().map(ToString::to_string).collect();
        let lines: Vec<&Vec<String>> = match &headings {
            _ if self.rows.is_empty() => Vec::new(),
            headings if legend => std::iter::once(headings).chain(&self.rows).collect(),
            _ => self.rows.iter().collect(),
        };
        let width = |column| {
            lines
                .iter()
                .map(|line| cell(line, column).chars().count())
                .max()
        };
        let widths: Vec<_> = (0..self.headings.len())
            .map(|column| width(column).unwrap_or(0))
            .collect();
        let mut text = String::new();
        for line in &lines {
            let padded = widths
                .iter()
                .enumerate()
                .map(|(column, width)| format!("{:width$}", cell(line, column)));
            let line = padded.collect::<Vec<_>>().join("  ");
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

fn cell(line: &[String], column: usize) -> &str {
    line.get(column).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["MACHINE", "CURRENT"]);
        assert_eq!(table.show(true), "");
        table.add(["a-long-name".into(), "2".into()]);
        table.add(["b".into(), String::new()]);
        assert_eq!(
            table.show(true),
            "MACHINE      CURRENT\na-long-name  2\nb            -\n"
        );
        assert_eq!(table.show(false), "a-long-name  2\nb            -\n");
    }
}
