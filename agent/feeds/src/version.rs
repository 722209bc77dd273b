//! The order of versions: Debian's, which opkg uses as well.

use std::cmp::Ordering;

/// Compares two versions as `dpkg --compare-versions` does.
pub fn compare(left: &str, right: &str) -> Ordering {
    let ((left_epoch, left), (right_epoch, right)) = (epoch(left), epoch(right));
    let ((left, left_revision), (right, right_revision)) = (revision(left), revision(right));
    compare_numbers(left_epoch, right_epoch)
        .then_with(|| compare_parts(left, right))
        .then_with(|| compare_parts(left_revision, right_revision))
}

fn epoch(version: &str) -> (&str, &str) {
    version.split_once(':').unwrap_or(("0", version))
}

fn revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// Compares alternating parts: text without digits, then a number.
fn compare_parts(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (left_letters, left_rest) = split(left, |c| !c.is_ascii_digit());
        let (right_letters, right_rest) = split(right, |c| !c.is_ascii_digit());
        let (left_number, left_end) = split(left_rest, |c| c.is_ascii_digit());
        let (right_number, right_end) = split(right_rest, |c| c.is_ascii_digit());
        let order = compare_text(left_letters, right_letters)
            .then_with(|| compare_numbers(left_number, right_number));
        if order.is_ne() {
            return order;
        }
        (left, right) = (left_end, right_end);
    }
    Ordering::Equal
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// Compares numbers of any length.
fn compare_numbers(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

/// Compares texts: `~` before the end, the end before letters, letters before the rest.
fn compare_text(left: &str, right: &str) -> Ordering {
    let rank = |c: Option<char>| match c {
        Some('~') => (0, 0),
        None => (1, 0),
        Some(c) if c.is_ascii_alphabetic() => (2, u32::from(c)),
        Some(c) => (3, u32::from(c)),
    };
    let (mut left, mut right) = (left.chars(), right.chars());
    loop {
        let (one, other) = (left.next(), right.next());
        let order = rank(one).cmp(&rank(other));
        if order.is_ne() || one.is_none() {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_is_that_of_dpkg() {
        let ordered = [
            "0~0",
            "1.0~rc1-r0",
            "1.0~rc1-r1",
            "1.0",
            "1.0-r0",
            "1.0-r0.1",
            "1.0-r0.2",
            "1.0-r0.10",
            "1.0a",
            "1.0+git1",
            "1.1",
            "1.10",
            "1.010.1",
            "2",
            "git",
            "1:0.1",
        ];
        for (place, left) in ordered.iter().enumerate() {
            for (other, right) in ordered.iter().enumerate() {
                assert_eq!(
                    compare(left, right),
                    place.cmp(&other),
                    "{left} and {right}"
                );
            }
        }
        assert_eq!(compare("1.0-0", "1.0"), Ordering::Equal);
        assert_eq!(compare("01.00", "1.0"), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn versions_have_a_total_order(versions in prop::array::uniform3("[0-9]{1,2}[0-9a-b.+~-]{0,6}")) {
            let [a, b, c] = &versions;
            prop_assert_eq!(compare(a, b), compare(b, a).reverse());
            prop_assert_eq!(compare(a, a), Ordering::Equal);
            if compare(a, b).is_le() && compare(b, c).is_le() {
                prop_assert!(compare(a, c).is_le());
            }
        }
    }
}
