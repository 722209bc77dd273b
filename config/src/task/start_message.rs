//! The message that tells a waiting guest to fetch its task.

use std::fmt;
use std::time::Duration;

use super::TaskError;
use super::digest::hexadecimal;

/// The message that tells a waiting guest to fetch its task: the line
/// `go SECONDS.NANOSECONDS RANDOM`.
#[derive(Clone, PartialEq, Eq)]
pub struct StartMessage {
    /// The host's time since the Unix epoch.
    pub time: Duration,
    /// Random bytes that no other guest gets; 128 hexadecimal digits.
    pub random: [u8; 64],
}

impl StartMessage {
    /// Returns the line, line end included.
    pub fn print(&self) -> String {
        let (seconds, nanoseconds) = (self.time.as_secs(), self.time.subsec_nanos());
        let random = hexadecimal(&self.random);
        format!("go {seconds}.{nanoseconds:09} {random}\n")
    }

    /// Parses the line.
    ///
    /// # Errors
    /// The first invalid word.
    pub fn parse(line: &str) -> Result<Self, TaskError> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let &["go", time, random] = words.as_slice() else {
            return Err(TaskError::Value("go", line.chars().take(40).collect()));
        };
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
        };
        assert!(
            message
                .print()
                .starts_with("go 1700000000.000000007 0004080c")
        );
        assert_eq!(StartMessage::parse(&message.print()), Ok(message.clone()));
        assert!(!format!("{message:?}").contains("random"));
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
        ] {
            assert!(StartMessage::parse(&line).is_err(), "{line}");
        }
    }
}
