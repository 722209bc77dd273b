//! A revision: dot-separated integers of any length, ordered numerically.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use smol_str::{SmolStr, SmolStrBuilder, ToSmolStr, format_smolstr};

/// A package revision such as `7` or `2.0.11`.
///
/// Fields compare as integers of any length, and a value is greater than its own prefix:
/// `2 < 9 < 9.0 < 9.0.1 < 10`. Leading zeros are dropped, so equal values have equal texts.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Value(SmolStr);

/// The maximum length of a value that is accepted from a peer or a file. Values become parts of
/// file names.
pub const VALUE_CHARS_MAX: usize = 64;

/// The error of a text that is not accepted as a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The text is not a revision.
    #[error("not a revision (expected integers separated by dots)")]
    Malformed,
    /// The revision is longer than [`VALUE_CHARS_MAX`].
    #[error("too long (a revision has at most {VALUE_CHARS_MAX} characters)")]
    TooLong,
}

impl Value {
    /// Returns the first value of a package: `0`.
    pub fn first() -> Self {
        Self(SmolStr::new_static("0"))
    }

    /// Parses a recorded value, which may be of any length, because older versions recorded them.
    pub fn from_record(text: &str) -> Result<Self, ValueError> {
        let is_number =
            |field: &str| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
        if !text.split('.').all(is_number) {
            return Err(ValueError::Malformed);
        }
        let mut fields = text.split('.').map(without_leading_zeros);
        let first = fields.next().unwrap_or_default();
        let mut builder = SmolStrBuilder::new();
        builder.push_str(first);
        for field in fields {
            builder.push('.');
            builder.push_str(field);
        }
        Ok(Self(builder.finish()))
    }

    /// Returns the text that is stored and sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the value with its last field incremented.
    #[must_use]
    pub fn incremented(&self) -> Self {
        let (head, last) = match self.0.rfind('.') {
            Some(dot) => self.0.split_at(dot + 1),
            None => ("", self.0.as_str()),
        };
        Self(format_smolstr!("{head}{}", plus_one(last)))
    }

    /// Returns the first value one level below this one in a hierarchy: `7` → `7.0`.
    #[must_use]
    pub fn first_child(&self) -> Self {
        Self(format_smolstr!("{}.0", self.0))
    }

    /// Returns the number of fields.
    pub fn depth(&self) -> usize {
        self.fields().count()
    }

    fn fields(&self) -> impl Iterator<Item = (usize, &str)> {
        self.0.split('.').map(|digits| (digits.len(), digits))
    }
}

/// Adds one to a decimal integer of any length.
fn plus_one(digits: &str) -> String {
    let nines = digits.len() - digits.trim_end_matches('9').len();
    let (head, zeros) = (&digits[..digits.len() - nines], "0".repeat(nines));
    match head.as_bytes().split_last() {
        None => format!("1{zeros}"),
        Some((last, front)) => {
            let front = &head[..front.len()];
            format!("{front}{}{zeros}", last - b'0' + 1)
        }
    }
}

impl FromStr for Value {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let value = Self::from_record(text)?;
        if text.len() > VALUE_CHARS_MAX {
            return Err(ValueError::TooLong);
        }
        Ok(value)
    }
}

fn without_leading_zeros(field: &str) -> &str {
    match field.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self(number.to_smolstr())
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        self.fields().cmp(other.fields())
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Value {
        text.parse().unwrap()
    }

    #[test]
    fn fields_compare_as_integers_and_a_prefix_sorts_first() {
        let sorted = [
            "0",
            "0.0",
            "0.9",
            "0.10",
            "1",
            "2",
            "9",
            "9.0",
            "10",
            "99999999999999999999",
        ];
        for pair in sorted.windows(2) {
            assert!(value(pair[0]) < value(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn incremented_adds_one_to_the_last_field() {
        for (before, after) in [
            ("0", "1"),
            ("9", "10"),
            ("1.9", "1.10"),
            ("99.99", "99.100"),
            ("7.0", "7.1"),
            ("18446744073709551615", "18446744073709551616"),
            ("007", "8"),
            ("1999", "2000"),
        ] {
            assert_eq!(value(before).incremented().as_str(), after);
        }
    }

    #[test]
    fn only_integers_separated_by_dots_parse() {
        for text in [
            "", ".", "1.", ".1", "1..2", "abc", "-1", "+1", "1 ", "1e3", "٣",
        ] {
            assert_eq!(
                text.parse::<Value>(),
                Err(ValueError::Malformed),
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_value_of_a_peer_has_at_most_64_characters_and_a_recorded_one_any_number() {
        for (text, expected) in [
            ("9".repeat(64), Ok(64)),
            ("9".repeat(65), Err(ValueError::TooLong)),
            (format!("{}.0", "9".repeat(62)), Ok(64)),
            ("1.".repeat(32) + "0", Err(ValueError::TooLong)),
            ("0".repeat(65), Err(ValueError::TooLong)),
            ("x".repeat(65), Err(ValueError::Malformed)),
            ("9".repeat(60_000), Err(ValueError::TooLong)),
        ] {
            let length = |value: Value| value.as_str().len();
            assert_eq!(text.parse().map(length), expected, "{text}");
        }
        let long = Value::from_record(&"9".repeat(60_000)).unwrap();
        assert_eq!(long.incremented().as_str().len(), 60_001);
        assert_eq!(Value::from_record("1..2"), Err(ValueError::Malformed));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        "(0|[1-9][0-9]{0,24})(\\.(0|[1-9][0-9]{0,3})){0,3}".prop_map(|text| value(&text))
    }

    proptest! {
        #[test]
        fn a_displayed_value_parses_back(value in any_value()) {
            prop_assert_eq!(value.to_string().parse::<Value>(), Ok(value));
        }

        #[test]
        fn the_first_child_lies_between_a_value_and_its_increment(value in any_value()) {
            prop_assert!(value < value.first_child());
            prop_assert!(value.first_child() < value.incremented());
            prop_assert_eq!(value.first_child().depth(), value.depth() + 1);
        }

        #[test]
        fn the_order_agrees_with_integers(left: u64, right: u64) {
            prop_assert_eq!(Value::from(left).cmp(&Value::from(right)), left.cmp(&right));
            if left < u64::MAX {
                prop_assert_eq!(Value::from(left).incremented(), Value::from(left + 1));
            }
        }

        #[test]
        fn the_order_is_total(a in any_value(), b in any_value(), c in any_value()) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a.cmp(&b).is_eq(), a.as_str() == b.as_str());
            if a <= b && b <= c { prop_assert!(a <= c); }
        }

        #[test]
        fn any_text_is_rejected_or_normalized(text in ".{0,12}") {
            if let Ok(value) = text.parse::<Value>() {
                prop_assert_eq!(value.as_str().parse::<Value>(), Ok(value.clone()));
            }
        }
    }
}
