//! A revision: integers of any length, separated by dots, in their one correct order.

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

/// The text is not a revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a revision is made of digits and dots")]
pub struct ValueError;

impl Value {
    /// The first value that a package gets.
    pub fn first() -> Self {
        Self(SmolStr::new_static("0"))
    }

    /// The text, as it is stored and sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The next value: the last field plus one.
    #[must_use]
    pub fn increased(&self) -> Self {
        let (head, last) = match self.0.rfind('.') {
            Some(dot) => self.0.split_at(dot + 1),
            None => ("", self.0.as_str()),
        };
        Self(format_smolstr!("{head}{}", plus_one(last)))
    }

    /// The first value below this one in a hierarchy: `7` → `7.0`.
    #[must_use]
    pub fn first_below(&self) -> Self {
        Self(format_smolstr!("{}.0", self.0))
    }

    /// How many fields it has.
    pub fn depth(&self) -> usize {
        self.fields().count()
    }

    fn fields(&self) -> impl Iterator<Item = (usize, &str)> {
        self.0.split('.').map(|digits| (digits.len(), digits))
    }
}

/// Adds one to an integer written in digits.
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
        let is_number =
            |field: &str| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
        if !text.split('.').all(is_number) {
            return Err(ValueError);
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
    fn the_order_is_that_of_integers_and_a_prefix_comes_first() {
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
    fn the_next_value_adds_one_to_the_last_field() {
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
            assert_eq!(value(before).increased().as_str(), after);
        }
    }

    #[test]
    fn what_is_not_made_of_digits_and_dots_is_no_value() {
        for text in [
            "", ".", "1.", ".1", "1..2", "abc", "-1", "+1", "1 ", "1e3", "٣",
        ] {
            assert_eq!(text.parse::<Value>(), Err(ValueError), "{text:?}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        "(0|[1-9][0-9]{0,24})(\\.(0|[1-9][0-9]{0,3})){0,3}".prop_map(|text| value(&text))
    }

    proptest! {
        #[test]
        fn a_value_is_read_back_as_it_was_written(value in any_value()) {
            prop_assert_eq!(value.to_string().parse::<Value>(), Ok(value));
        }

        #[test]
        fn increasing_makes_it_greater_and_nothing_short_lies_between(value in any_value()) {
            prop_assert!(value < value.first_below());
            prop_assert!(value.first_below() < value.increased());
            prop_assert_eq!(value.first_below().depth(), value.depth() + 1);
        }

        #[test]
        fn the_order_agrees_with_numbers(left: u64, right: u64) {
            prop_assert_eq!(Value::from(left).cmp(&Value::from(right)), left.cmp(&right));
            if left < u64::MAX {
                prop_assert_eq!(Value::from(left).increased(), Value::from(left + 1));
            }
        }

        #[test]
        fn the_order_is_total(a in any_value(), b in any_value(), c in any_value()) {
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a.cmp(&b).is_eq(), a.as_str() == b.as_str());
            if a <= b && b <= c { prop_assert!(a <= c); }
        }

        #[test]
        fn any_text_is_refused_or_printed_without_leading_zeros(text in ".{0,12}") {
            if let Ok(value) = text.parse::<Value>() {
                prop_assert_eq!(value.as_str().parse::<Value>(), Ok(value.clone()));
            }
        }
    }
}
