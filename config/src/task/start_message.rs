//! The word with which a host lets a waiting guest begin.

use std::fmt;
use std::time::Duration;

use super::TaskError;
use super::digest::hexadecimal;

/// The line that lets a guest begin: `go SECONDS.NANOSECONDS RANDOM`.
#[derive(Clone, PartialEq, Eq)]
pub struct StartMessage {
    /// The host's time, counted from the beginning of 1970.
    pub time: Duration,
    /// Random bytes that no other guest is given; 128 hexadecimal digits.
    pub random: [u8; 64],
}

impl StartMessage {
    /// The line, with its end.
    pub fn print(&self) -> String {
        let (seconds, nanoseconds) = (self.time.as_secs(), self.time.subsec_nanos());
        let random = hexadecimal(&self.random);
        format!("go {seconds}.{nanoseconds:09} {random}\n")
    }

    /// Reads the line.
    ///
    /// # Errors
    /// The first word that cannot be used.
    pub fn parse(line: &str) -> Result<Self, TaskError> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let &["go", time, random] = words.as_slice() else {
            return Err(TaskError::Value("go", line.chars().take(40).collect()));
        };
        let wrong = || TaskError::Value("time", time.chars().take(40).collect());
        let (seconds, fraction) = time.split_once('.').ok_or_else(wrong)?;
        let seconds = seconds.parse().map_err(|_| wrong())?;
        let nanoseconds: u32 = fraction.parse().map_err(|_| wrong())?;
        if fraction.len() != 9 {
            return Err(wrong());
        }
        // Not repeated in the error: it is a secret.
        let secret = || TaskError::Value("random", "…".to_owned());
        Ok(Self {
            time: Duration::new(seconds, nanoseconds),
            random: bytes(random).ok_or_else(secret)?,
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
    fn a_guest_is_let_go_with_the_time_and_a_secret() {
        let go = StartMessage {
            time: Duration::new(1_700_000_000, 7),
            random: std::array::from_fn(|index| u8::try_from(index * 4).unwrap()),
        };
        assert!(go.print().starts_with("go 1700000000.000000007 0004080c"));
        assert_eq!(StartMessage::parse(&go.print()), Ok(go.clone()));
        assert!(!format!("{go:?}").contains("random"));
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
