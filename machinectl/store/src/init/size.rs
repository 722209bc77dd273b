//! Amounts of space, as people write them.

use std::fmt;
use std::str::FromStr;

/// The largest number of digits behind the point.
const FRACTION_MAX: usize = 9;

/// An amount of space. `20G`, `20g` and `20GiB` are powers of 1024; `20GB` is one of 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub(super) u64);

impl Size {
    /// Returns the number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// The parser's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// The text has another form.
    #[error("expected a number and a unit, such as 20G, 1.5 GiB or 500MB")]
    Form,
    /// The number of bytes does not fit.
    #[error("the size is too large")]
    TooLarge,
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let is_number = |it: char| it.is_ascii_digit() || it == '.';
        let end = text.find(|it| !is_number(it)).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit_bytes(unit.trim_start()).ok_or(SizeError::Form)?;
        let (whole, fraction) = match number.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            None => (number, ""),
            Some(_) => return Err(SizeError::Form),
        };
        if fraction.len() > FRACTION_MAX || fraction.contains('.') || whole.is_empty() {
            return Err(SizeError::Form);
        }
        let digits: u128 = format!("{whole}{fraction}")
            .parse()
            .map_err(|_| SizeError::TooLarge)?;
        let divisor = (0..fraction.len()).fold(1, |divisor: u128, _| divisor * 10);
        let bytes = digits.checked_mul(unit).ok_or(SizeError::TooLarge)? / divisor;
        u64::try_from(bytes)
            .map(Self)
            .map_err(|_| SizeError::TooLarge)
    }
}

/// Returns the number of bytes of a unit, in the sense of the GNU tools.
fn unit_bytes(unit: &str) -> Option<u128> {
    let unit = unit.to_ascii_uppercase();
    if ["", "B"].contains(&unit.as_str()) {
        return Some(1);
    }
    let mut letters = unit.chars();
    let power = match letters.next()? {
        'K' => 1,
        'M' => 2,
        'G' => 3,
        'T' => 4,
        _ => return None,
    };
    let base: u128 = match letters.as_str() {
        "" | "IB" => 1024,
        "B" => 1000,
        _ => return None,
    };
    Some(base.pow(power))
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_parsed_as_people_write_them() {
        for (text, bytes) in [
            ("4G", 4 << 30),
            ("20g", 20 << 30),
            ("1.5G", 3 << 29),
            ("20GiB", 20 << 30),
            ("20 gib", 20 << 30),
            ("20 GB", 20_000_000_000),
            ("0.25tb", 250_000_000_000),
            ("512M", 512 << 20),
            ("1K", 1024),
            ("2T", 2 << 40),
            ("100B", 100),
            ("268435456", 256 << 20),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in [
            "",
            "G",
            "-4G",
            "4 G 5",
            "1,5G",
            "1.G",
            ".5G",
            "1.2.3G",
            "4é",
            "4GX",
            "4Gi",
            "4iB",
            "1.0000000001G",
        ] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::Form), "{text}");
        }
        for text in ["99999999999T", "99999999999999999999999999999999999999999"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::TooLarge), "{text}");
        }
    }

    proptest! {
        #[test]
        fn numbers_of_bytes_are_parsed_to_themselves(bytes: u64) {
            prop_assert_eq!(bytes.to_string().parse(), Ok(Size(bytes)));
        }

        #[test]
        fn arbitrary_text_does_not_panic(text in "[0-9.]{0,60}[kKmMgGtTiIbB ]{0,4}") {
            let _ = text.parse::<Size>();
        }
    }
}
