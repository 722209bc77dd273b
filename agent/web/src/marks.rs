//! The symbols of outcomes and states, with their words for those who do not see them.

use std::fmt;

use askama::filters::HtmlSafe;
use config::builds::{Build, State};
use config::task::Outcome;

/// The symbol of an outcome or a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The class of its color.
    pub(crate) class: &'static str,
    symbol: char,
    word: &'static str,
}

impl Mark {
    /// Returns the symbol of a build: of its outcome, or of its state.
    pub(crate) fn of(build: &Build) -> Self {
        build
            .outcome
            .map_or_else(|| Self::of_state(build.state), Self::of_outcome)
    }

    /// Returns the symbol of an outcome.
    pub(crate) fn of_outcome(outcome: Outcome) -> Self {
        let (class, symbol, word) = match outcome {
            Outcome::Success => ("good", '✓', "success"),
            Outcome::Warning => ("warn", '✓', "warning"),
            Outcome::Skip => ("idle", '–', "skip"),
            Outcome::Error => ("bad", '✗', "error"),
            Outcome::Abort => ("idle", '⊘', "abort"),
            Outcome::Abnormal => ("bad", '!', "abnormal"),
            Outcome::Interrupt => ("idle", '↻', "interrupt"),
        };
        Self {
            class,
            symbol,
            word,
        }
    }

    /// Returns the symbol of a state.
    pub(crate) fn of_state(state: State) -> Self {
        let (class, symbol, word) = match state {
            State::Queued => ("idle", '…', "queued"),
            State::Starting => ("busy", '▸', "starting"),
            State::Running => ("busy", '▶', "running"),
            State::Storing => ("busy", '▾', "storing"),
            State::Finished => ("idle", '·', "finished"),
        };
        Self {
            class,
            symbol,
            word,
        }
    }
}

// Its texts are constants.
impl HtmlSafe for Mark {}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            class,
            symbol,
            word,
        } = self;
        write!(
            f,
            "<span class=\"mark {class}\" title=\"{word}\"><span aria-hidden=\"true\">{symbol}</span><span class=\"unseen\">{word}</span></span>"
        )
    }
}
