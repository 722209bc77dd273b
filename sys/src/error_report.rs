//! Errors as text, and their common causes.

use std::error::Error;
use std::io;

/// Returns true for the errors of a full disk and of a quota that is used up.
pub fn is_full(error: io::ErrorKind) -> bool {
    matches!(
        error,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Returns an error and its causes in one line, separated by colons. A cause with which the text
/// ends already is left out: errors of libraries may print their causes themselves.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error with a cause, whose message it may repeat.
    #[derive(Debug, thiserror::Error)]
    #[error("{message}")]
    struct Link {
        message: String,
        source: Option<Box<Link>>,
    }

    /// Returns a chain of which the links with a set bit repeat the message of their cause.
    fn link(number: u32, count: u32, repeats: u32) -> Option<Box<Link>> {
        let source = (number < count).then(|| link(number + 1, count, repeats))?;
        let message = match &source {
            Some(source) if repeats & (1 << number) != 0 => {
                format!("<{number}>: {}", source.message)
            }
            _ => format!("<{number}>"),
        };
        Some(Box::new(Link { message, source }))
    }

    #[test]
    fn every_message_of_a_chain_is_printed_once() {
        for repeats in 0..1 << 5 {
            let error = link(0, 5, repeats).unwrap();
            assert_eq!(chain(&*error), "<0>: <1>: <2>: <3>: <4>", "{repeats:b}");
        }
    }
}
