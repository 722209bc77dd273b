//! Times, spans and sizes as pages show them.

use std::fmt;

use askama::filters::{Html, HtmlSafe, escape};
use jiff::Timestamp;

/// A time, as its distance from the present; the exact time is in the title.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ago {
    at: Timestamp,
    now: Timestamp,
}

impl Ago {
    /// Returns a time as seen from `now`.
    pub(crate) fn new(at: Timestamp, now: Timestamp) -> Self {
        Self { at, now }
    }
}

// Times consist of digits, letters and signs that need no escapes.
impl HtmlSafe for Ago {}

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = self.at.strftime("%Y-%m-%d %H:%M:%S UTC");
        let machine = self.at.strftime("%Y-%m-%dT%H:%M:%SZ");
        let seconds = self.now.duration_since(self.at).as_secs();
        let text = distance(seconds);
        write!(
            f,
            "<time datetime=\"{machine}\" title=\"{exact}\" data-ago>{text}</time>"
        )
    }
}

/// A sentence of the agent in which commands are between backticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prose<'t>(pub(crate) &'t str);

// Its text is escaped below.
impl HtmlSafe for Prose<'_> {}

impl fmt::Display for Prose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.matches('`').count().is_multiple_of(2) {
            return write!(f, "{}", escaped(self.0));
        }
        for (part, index) in self.0.split('`').zip(0_u32..) {
            match index % 2 {
                0 => write!(f, "{}", escaped(part))?,
                _ => write!(f, "<code>{}</code>", escaped(part))?,
            }
        }
        Ok(())
    }
}

fn escaped(text: &str) -> impl fmt::Display {
    let Ok(text) = escape(text, Html);
    text
}

/// Returns a distance from the present: `8 min ago`, or `in 8 min`.
pub(crate) fn distance(seconds: i64) -> String {
    match seconds {
        ..-4 => format!("in {}", rough(seconds.unsigned_abs())),
        -4..5 => "now".to_owned(),
        5.. => format!("{} ago", rough(seconds.unsigned_abs())),
    }
}

/// Returns a span in the largest unit that suits it: `8 min`.
pub(crate) fn rough(seconds: u64) -> String {
    match seconds {
        ..90 => format!("{seconds} s"),
        90..5400 => format!("{} min", (seconds + 30) / 60),
        5400..129_600 => format!("{} h", (seconds + 1800) / 3600),
        _ => format!("{} d", (seconds + 43_200) / 86_400),
    }
}

/// Returns a span exact to the second: `0:42`, `1:02:03`.
pub(crate) fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Returns a duration with a precision that suits it: `0.42 s`, `13.1 s`, `2:08`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is a duration"
)]
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        ..0.995 => format!("{:.2} s", seconds.max(0.0)),
        ..59.95 => format!("{seconds:.1} s"),
        _ => clock(seconds.round() as u64),
    }
}

/// Returns a size in binary units: `1.5 MiB`.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 9.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// Returns a size that is given in MiB.
pub(crate) fn mebibytes(mib: u64) -> String {
    size(mib << 20)
}

/// Returns a number with separators between its thousands: `1 300 000`, with narrow spaces.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Returns a number with its noun: `1 build`, `2 builds`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_in_sentences_are_code_and_everything_is_escaped() {
        for (text, expected) in [
            ("a `b c` d", "a <code>b c</code> d"),
            ("`a`", "<code>a</code>"),
            ("a ` b", "a ` b"),
            ("<i> `<b>`", "&#60;i&#62; <code>&#60;b&#62;</code>"),
            ("", ""),
        ] {
            assert_eq!(Prose(text).to_string(), expected);
        }
    }

    #[test]
    fn spans_have_the_unit_that_suits_them() {
        let texts = [0, 4, 5, 89, 90, 5399, 5400, 129_599, 129_600].map(distance);
        let expected = [
            "now",
            "now",
            "5 s ago",
            "89 s ago",
            "2 min ago",
            "90 min ago",
            "2 h ago",
            "36 h ago",
            "2 d ago",
        ];
        assert_eq!(texts, expected);
        assert_eq!(distance(-30), "in 30 s");
        assert_eq!([0, 62, 3723].map(clock), ["0:00", "1:02", "1:02:03"]);
        assert_eq!(
            [0.4, 13.14, 59.96, 128.0].map(duration),
            ["0.40 s", "13.1 s", "1:00", "2:08"]
        );
    }

    #[test]
    fn sizes_and_numbers_are_short() {
        let sizes = [0, 1023, 1024, 10_240, 1_048_000, 1_572_864, u64::MAX].map(size);
        let expected = [
            "0 B",
            "1023 B",
            "1.0 KiB",
            "10 KiB",
            "1.0 MiB",
            "1.5 MiB",
            "16384 PiB",
        ];
        assert_eq!(sizes, expected);
        assert_eq!(grouped(1_300_000), "1\u{202f}300\u{202f}000");
        assert_eq!(grouped(100), "100");
    }
}
