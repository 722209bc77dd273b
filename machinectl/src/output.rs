//! Output: data on stdout, messages and errors on stderr.

mod progress;
mod table;
mod text;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use config::printable;
use serde::Serialize;
use serde_json::json;
use sys::error_report::chain;

use crate::exit_code::{ExitStatus, Failure};
use crate::options::GlobalOptions;
use crate::program::Program;

pub(crate) use progress::Progress;
pub(crate) use table::Table;
use text::printable_lines;
pub(crate) use text::{count, fields, joined, mebibytes, or_empty, past_time, time, time_of_day};

/// The number of messages that an answer in JSON has.
const MESSAGES_MAX: usize = 1000;

/// The two output streams and their formats.
#[derive(Debug)]
pub(crate) struct Output {
    program: Program,
    quiet: bool,
    json: bool,
    tables: TableStyle,
    /// The answer in JSON, as far as it is not printed.
    answer: Answer,
}

/// The look of tables.
#[derive(Debug, Clone, Copy)]
struct TableStyle {
    /// The headings are printed.
    legend: bool,
    /// States and outcomes have colors.
    colors: bool,
}

/// The state of an answer in JSON: a command that prints no data answers with its messages.
#[derive(Debug, Default)]
struct Answer {
    has_data: AtomicBool,
    messages: Mutex<Vec<String>>,
}

impl Answer {
    fn keep(&self, message: &str) {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        if messages.len() < MESSAGES_MAX {
            messages.push(message.to_owned());
        }
    }
}

impl Output {
    /// Returns the output that the options ask for; messages carry the program's name.
    pub(crate) fn new(program: Program, options: &GlobalOptions) -> Self {
        Self {
            program,
            quiet: options.quiet,
            json: options.json,
            tables: TableStyle {
                legend: !options.no_legend,
                colors: options.color.applies(
                    io::stdout().is_terminal(),
                    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
                ),
            },
            answer: Answer::default(),
        }
    }

    /// Ends the output of a command that has succeeded. In JSON, one that has printed no data prints
    /// an object with its messages.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        if !self.json || self.answer.has_data.load(Ordering::Relaxed) {
            return Ok(());
        }
        let messages = self.answer.messages.lock();
        let messages = messages.unwrap_or_else(PoisonError::into_inner).clone();
        self.print_json(&json!({ "messages": messages }))
    }

    /// Prints the error that has ended the command: in JSON, an object with the exit code.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.json {
            let _ = writeln!(io::stderr(), "{}", error_object(failure));
        } else {
            self.error(failure.error.as_ref());
        }
    }

    /// Prints a message about progress or a result, unless `--quiet` is set.
    pub(crate) fn status(&self, text: impl Display) {
        let text = text.to_string();
        if self.json {
            self.answer.keep(&text);
        }
        if !self.quiet {
            // There is no other place to report that stderr is closed.
            let _ = writeln!(io::stderr(), "{}", printable(&text));
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
            let step = json!({ "would": step.to_string() });
            self.answer.has_data.store(true, Ordering::Relaxed);
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
    pub(crate) fn print_json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::new(ExitStatus::Failure, error))?;
        self.answer.has_data.store(true, Ordering::Relaxed);
        print(&format!("{text}\n"))
    }

    /// Prints data as a table; prints nothing for a table without rows.
    pub(crate) fn print_table(&self, table: &Table) -> Result<(), Failure> {
        print(&table.to_text(self.tables.legend, self.tables.colors))
    }

    /// Prints data as text; in JSON, as an object with the text on a line.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        if !self.json {
            return print(text);
        }
        self.answer.has_data.store(true, Ordering::Relaxed);
        print(&format!("{}\n", json!({ "text": text })))
    }
}

/// Prints an error of the command line itself as an object in JSON.
pub(crate) fn print_usage_error(text: &str) {
    let failure = Failure::new(ExitStatus::Usage, text.trim_end());
    let _ = writeln!(io::stderr(), "{}", error_object(&failure));
}

/// Returns the object of an error: its message with the causes, and the exit code.
fn error_object(failure: &Failure) -> serde_json::Value {
    let message = chain(failure.error.as_ref());
    json!({ "error": { "message": message, "exit_code": failure.status as u8 } })
}

fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        // The reader has read enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Failure::new(ExitStatus::Failure, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_json_has_its_message_and_exit_code() {
        let failure = Failure::new(ExitStatus::NotFound, "there is no build 7");
        assert_eq!(
            error_object(&failure).to_string(),
            r#"{"error":{"exit_code":10,"message":"there is no build 7"}}"#
        );
    }
}
