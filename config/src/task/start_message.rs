//! The message that tells a waiting guest to fetch its task.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::TaskError;
use super::digest::hexadecimal;

/// The identity of a guest among the copies of one fork: `3 of 8`. The source has the number 0.
/// A guest that was never forked has no copies: `0 of 0`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkIdentity {
    /// The number of the copy, from 1 on.
    pub number: u32,
    /// The number of copies.
    pub copies: u32,
}

impl fmt::Display for ForkIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.number, self.copies)
    }
}

impl ForkIdentity {
    /// Parses `3/8`, the form in a start message.
    fn parse(word: &str) -> Option<Self> {
        let (number, copies) = word.split_once('/')?;
        let identity = Self {
            number: number.parse().ok()?,
            copies: copies.parse().ok()?,
        };
        (identity.number <= identity.copies).then_some(identity)
    }
}

/// The message that tells a waiting guest to fetch its task, or to go on after a fork: the line
/// `go SECONDS.NANOSECONDS RANDOM`, after a fork with the identity `NUMBER/COPIES` behind it.
#[derive(Clone, PartialEq, Eq)]
pub struct StartMessage {
    /// The host's time since the Unix epoch.
    pub time: Duration,
    /// Random bytes that no other guest gets; 128 hexadecimal digits.
    pub random: [u8; 64],
    /// The identity after a fork.
    pub fork: Option<ForkIdentity>,
}

impl StartMessage {
    /// Returns the line, line end included.
    pub fn print(&self) -> String {
        let (seconds, nanoseconds) = (self.time.as_secs(), self.time.subsec_nanos());
        let random = hexadecimal(&self.random);
        let fork = self
            .fork
            .map(|fork| format!(" {}/{}", fork.number, fork.copies));
        let fork = fork.unwrap_or_default();
        format!("go {seconds}.{nanoseconds:09} {random}{fork}\n")
    }

    /// Parses the line.
    ///
    /// # Errors
    /// The first invalid word.
    pub fn parse(line: &str) -> Result<Self, TaskError> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let (time, random, fork) = match *words.as_slice() {
            ["go", time, random] => (time, random, None),
            ["go", time, random, fork] => (time, random, Some(fork)),
            _ => return Err(TaskError::Value("go", line.chars().take(40).collect())),
        };
        let invalid_fork = |word: &str| TaskError::Value("fork", word.chars().take(40).collect());
        let parse_fork = |word| ForkIdentity::parse(word).ok_or_else(|| invalid_fork(word));
        let invalid = || TaskError::Value("time", time.chars().take(40).collect());
        let (seconds, fraction) = time.split_once('.').ok_or_else(invalid)?;
        let seconds = seconds.parse().map_err(|_| invalid())?;
        let nanoseconds: u32 = fraction.parse().map_err(|_| invalid())?;
        if fraction.len() != 9 {
            return Err(invalid());
        }
        // The error does not show the value: it is secret.
        let invalid_random = || TaskError::Value("random", "…".to_owned());
        Ok(Self {
            time: Duration::new(seconds, nanoseconds),
            random: bytes(random).ok_or_else(invalid_random)?,
            fork: fork.map(parse_fork).transpose()?,
        })
    }
}

impl fmt::Debug for StartMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartMessage")
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

fn bytes(digits: &str) -> Option<[u8; 64]> {
    let values: Option<Vec<_>> = digits.chars().map(|c| c.to_digit(16)).collect();
    let values = values?;
    let pairs = values.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    });
    pairs.collect::<Option<Vec<_>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_message_carries_the_time_and_secret_bytes() {
        let message = StartMessage {
            time: Duration::new(1_700_000_000, 7),
            random: std::array::from_fn(|index| u8::try_from(index * 4).unwrap()),
            fork: None,
        };
        assert!(
            message
                .print()
                .starts_with("go 1700000000.000000007 0004080c")
        );
        assert_eq!(StartMessage::parse(&message.print()), Ok(message.clone()));
        assert!(!format!("{message:?}").contains("random"));
        let fork = ForkIdentity {
            number: 3,
            copies: 8,
        };
        let forked = StartMessage {
            fork: Some(fork),
            ..message
        };
        assert!(forked.print().ends_with(" 3/8\n"));
        assert_eq!(StartMessage::parse(&forked.print()), Ok(forked));
        assert_eq!(fork.to_string(), "3 of 8");
        let random = "0".repeat(128);
        for line in [
            "go".to_owned(),
            "go 1.5 00".to_owned(),
            format!("stop 1.000000000 {random}"),
            format!("go 1.0 {random}"),
            format!("go -1.000000000 {random}"),
            format!("go 1.000000000 {}", "0".repeat(127)),
            format!("go 1.000000000 {}", "x".repeat(128)),
            format!("go 1.000000000 {random} more"),
            format!("go 1.000000000 {random} 9/8"),
            format!("go 1.000000000 {random} 1/8 more"),
        ] {
            assert!(StartMessage::parse(&line).is_err(), "{line}");
        }
    }
}
