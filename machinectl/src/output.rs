//! Output: data on stdout, messages and errors on stderr.

mod progress;
mod table;
mod text;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write as _};

use config::printable;
use serde::Serialize;
use sys::error_report::chain;

use crate::exit_code::{ExitStatus, Failure};
use crate::options::GlobalOptions;
use crate::program::Program;

pub(crate) use progress::Progress;
pub(crate) use table::Table;
use text::printable_lines;
pub(crate) use text::{count, fields, joined, mebibytes, or_empty, time};

/// The two output streams and their formats.
#[derive(Debug)]
pub(crate) struct Output {
    program: Program,
    quiet: bool,
    json: bool,
    legend: bool,
}

impl Output {
    /// Returns the output that the options ask for; messages carry the program's name.
    pub(crate) fn new(program: Program, options: &GlobalOptions) -> Self {
        Self {
            program,
            quiet: options.quiet,
            json: options.json,
            legend: !options.no_legend,
        }
    }

    /// Prints a message about progress or a result, unless `--quiet` is set.
    pub(crate) fn status(&self, text: impl Display) {
        if !self.quiet {
            // There is no other place to report that stderr is closed.
            let _ = writeln!(io::stderr(), "{}", printable(&text.to_string()));
        }
    }

    /// Prints an error with its causes.
    pub(crate) fn error(&self, error: &dyn Error) {
        let (name, text) = (self.program.name(), printable_lines(&chain(error)));
        let _ = writeln!(io::stderr(), "{name}: {text}");
    }

    /// Prints a problem that does not make the command fail, unless `--quiet` is set.
    pub(crate) fn warn(&self, warning: &dyn Error) {
        let name = self.program.name();
        self.status(format_args!("{name}: warning: {}", chain(warning)));
    }

    /// Prints a step of a dry run on stdout: a line, or a JSON object.
    pub(crate) fn plan(&self, step: impl Display) -> Result<(), Failure> {
        if self.json {
            let step = serde_json::json!({ "would": step.to_string() });
            return print(&format!("{step}\n"));
        }
        print(&format!("would {}\n", printable(&step.to_string())))
    }

    /// Returns true if messages are suppressed.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Returns true if data is wanted as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints data as JSON.
    #[expect(clippy::unused_self, reason = "all data passes through an `Output`")]
    pub(crate) fn print_json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::new(ExitStatus::Failure, error))?;
        print(&format!("{text}\n"))
    }

    /// Prints data as a table; prints nothing for a table without rows.
    pub(crate) fn print_table(&self, table: &Table) -> Result<(), Failure> {
        print(&table.to_text(self.legend))
    }

    /// Prints data as text.
    #[expect(clippy::unused_self, reason = "all data passes through an `Output`")]
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        print(text)
    }
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // The reader has read enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Failure::new(ExitStatus::Failure, error)),
    }
}
