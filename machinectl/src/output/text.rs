//! Text for people: counts, sizes, times and fields.

use std::fmt::{Display, Write as _};

use config::printable;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Returns a number with its noun: `no builds`, `1 build`, `2 builds`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    match number {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// Returns a time in the zone of the user, to the second, with the offset: `Z` for UTC. It can be
/// read back by [`past_time`].
pub(crate) fn time(time: Timestamp) -> String {
    time_in(time, TimeZone::system())
}

fn time_in(time: Timestamp, zone: TimeZone) -> String {
    let zoned = time.to_zoned(zone);
    let offset = match zoned.offset().seconds() {
        0 => "Z".to_owned(),
        _ => zoned.strftime("%:z").to_string(),
    };
    format!("{}{offset}", zoned.strftime("%Y-%m-%d %H:%M:%S"))
}

/// Returns the time of the day in the zone of the user, with the offset.
pub(crate) fn time_of_day(at: Timestamp) -> String {
    let text = time(at);
    text.split_once(' ')
        .map_or(text.clone(), |(_, day)| day.to_owned())
}

/// Parses a time, in the zone of the user unless it has an offset, or the span since that time.
pub(crate) fn past_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let now = Zoned::now();
    if let Ok(civil) = text.parse::<jiff::civil::DateTime>() {
        let zoned = civil.to_zoned(now.time_zone().clone());
        return zoned
            .map(|time| time.timestamp())
            .map_err(|error| error.to_string());
    }
    text.trim_end_matches(" ago")
        .parse::<jiff::Span>()
        .and_then(|span| now.checked_sub(span.abs()))
        .map(|time| time.timestamp())
        .map_err(|_| {
            "expected a time such as 2026-11-21T08:00, or a past span such as 2h".to_owned()
        })
}

/// Returns a number of bytes in KiB or MiB.
pub(crate) fn mebibytes(bytes: u64) -> String {
    if bytes < 1 << 20 {
        format!("{} KiB", bytes.div_ceil(1024))
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

/// Returns the text of a value, or an empty text.
pub(crate) fn or_empty(value: Option<impl Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Returns the texts that are not empty, with a separator between them.
pub(crate) fn joined<'a>(texts: impl IntoIterator<Item = &'a str>, separator: &str) -> String {
    let texts: Vec<_> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    texts.join(separator)
}

/// Returns the text with every line escaped by [`printable`].
pub(crate) fn printable_lines(text: &str) -> String {
    let lines: Vec<_> = text
        .split('\n')
        .map(|line| printable(line).to_string())
        .collect();
    lines.join("\n")
}

/// Returns a line for each field whose value is not empty. Further lines of a value are indented.
pub(crate) fn fields(fields: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        let value = printable_lines(value).replace('\n', "\n            ");
        let _ = writeln!(text, "{name:>10}  {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_offset_of_its_zone_and_is_read_back() {
        let at: Timestamp = "2026-11-28T13:03:09.5Z".parse().unwrap();
        for (zone, expected) in [
            ("UTC", "2026-11-28 13:03:09Z"),
            ("Asia/Tokyo", "2026-11-28 22:03:09+09:00"),
            ("America/New_York", "2026-11-28 08:03:09-05:00"),
        ] {
            let text = time_in(at, TimeZone::get(zone).unwrap());
            assert_eq!(text, expected);
            assert_eq!(past_time(&text).unwrap().as_second(), at.as_second());
        }
    }

    #[test]
    fn times_and_past_spans_are_parsed() {
        let now = Timestamp::now();
        let ago = |text: &str| now.duration_since(past_time(text).unwrap()).as_secs();
        for (text, seconds) in [("2h", 7200), ("90 minutes ago", 5400), ("1h 1s", 3601)] {
            assert!((0..=1).contains(&(seconds - ago(text))), "{text}");
        }
        assert!(past_time("2026-11-21").is_ok() && past_time("2026-11-21T08:00").is_ok());
        assert!(past_time("yesterday").is_err());
    }

    #[test]
    fn nouns_agree_with_their_numbers() {
        for (number, expected) in [(0, "no guests"), (1, "1 guest"), (2, "2 guests")] {
            assert_eq!(count(number, "guest"), expected);
        }
    }

    #[test]
    fn fields_are_escaped_and_left_out_if_empty() {
        let text = fields(&[
            ("build", "7".to_owned()),
            ("message", String::new()),
            ("sources", "a\u{1b}\nb".to_owned()),
        ]);
        assert_eq!(text, "     build  7\n   sources  a\\u{1b}\n            b\n");
    }
}
