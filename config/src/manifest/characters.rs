//! The characters that manifests may contain.

use std::ops::RangeInclusive;

use super::lines::Lines;

/// The format characters of Unicode 12, in ascending order.
const FORMAT: [RangeInclusive<u32>; 20] = [
    0xAD..=0xAD,
    0x600..=0x605,
    0x61C..=0x61C,
    0x6DD..=0x6DD,
    0x70F..=0x70F,
    0x8E2..=0x8E2,
    0x180E..=0x180E,
    0x200B..=0x200F,
    0x202A..=0x202E,
    0x2060..=0x2064,
    0x2066..=0x206F,
    0xFEFF..=0xFEFF,
    0xFFF9..=0xFFFB,
    0x110BD..=0x110BD,
    0x110CD..=0x110CD,
    0x13430..=0x13438,
    0x1BCA0..=0x1BCA3,
    0x1D173..=0x1D17A,
    0xE0001..=0xE0001,
    0xE0020..=0xE007F,
];

/// The ranges that count as unassigned. All smaller gaps of Unicode count as assigned.
const UNASSIGNED: [RangeInclusive<u32>; 4] = [
    0x30000..=0xE0000,
    0xE0002..=0xE001F,
    0xE0080..=0xE00FF,
    0xE01F0..=0xEFFFF,
];

/// The first character of a text that manifests may not contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forbidden {
    /// The line, counted from 1.
    pub line: usize,
    /// The column, counted from 1 in characters.
    pub column: usize,
    /// The character.
    pub character: char,
    /// The kind of the character.
    pub kind: &'static str,
}

/// Returns the first forbidden character of a text.
pub(super) fn forbidden(text: &str) -> Option<Forbidden> {
    Lines::of(text).find_map(|line| {
        if line
            .text
            .bytes()
            .all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
        {
            return None;
        }
        let mut columns = line.text.chars().zip(1..);
        columns.find_map(|(character, column)| {
            Some(Forbidden {
                line: line.number,
                column,
                character,
                kind: forbidden_kind(character)?,
            })
        })
    })
}

/// Returns true if a value of one line, or a line of a value, may contain a character.
pub(super) fn is_allowed(character: char) -> bool {
    forbidden_kind(character).is_none()
}

/// Returns the kind of a character that is forbidden in a line.
fn forbidden_kind(character: char) -> Option<&'static str> {
    let code = u32::from(character);
    let is_in = |ranges: &[RangeInclusive<u32>]| ranges.iter().any(|range| range.contains(&code));
    match code {
        0x09 | 0x20..=0x7E => None,
        0x00..=0x1F | 0x7F..=0x9F => Some("control character"),
        _ if code & 0xFFFE == 0xFFFE => Some("noncharacter"),
        0xFDD0..=0xFDEF => Some("noncharacter"),
        0xE000..=0xF8FF | 0xF_0000..=0x10_FFFF => Some("private-use character"),
        _ if is_in(&FORMAT) => Some("format character"),
        _ if is_in(&UNASSIGNED) => Some("unassigned character"),
        _ => None,
    }
}
