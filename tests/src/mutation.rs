//! Mutated inputs for parsers: each follows from its number, the same in every run.

use crate::random::Xorshift;

/// The maximum size of an input, in bytes.
pub const INPUT_MAX: usize = 60 * 1024;

/// The start of the generator. Its number and this determine an input.
const SEED: u64 = 0x5eed_5eed_5eed_5eed;
/// The maximum number of mutations of an input.
const MUTATIONS_MAX: u64 = 4;
/// The maximum number of repetitions of a piece.
const REPETITIONS_MAX: u64 = 2000;

/// The integers at which the arithmetic of parsers goes wrong.
const BOUNDARIES: [u64; 17] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0xff_ffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    u64::MAX,
];

/// Returns the input with this number: one of the valid inputs after a few mutations.
///
/// # Panics
/// There is no valid input.
pub fn input(valid: &[Vec<u8>], number: u64) -> Vec<u8> {
    // A multiplication by an odd number keeps the states of all numbers apart.
    let state = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ SEED;
    let mut random = Xorshift::new(state.max(1));
    random.draw();
    let mut bytes = pick(&mut random, valid).clone();
    for _ in 0..=random.below(MUTATIONS_MAX) {
        mutate(&mut bytes, valid, &mut random);
        bytes.truncate(INPUT_MAX);
    }
    bytes
}

fn mutate(bytes: &mut Vec<u8>, valid: &[Vec<u8>], random: &mut Xorshift) {
    let at = random.index(bytes.len() + 1);
    // Long inputs take most of the time.
    if random.below(400) == 0 {
        return repeat(bytes, random);
    }
    match random.below(19) {
        0..=3 => flip_bit(bytes, at, random),
        4..=5 => bytes.truncate(at),
        6 => bytes.insert(at, random.draw().to_le_bytes()[0]),
        7 => drop(bytes.drain(piece(bytes, random))),
        8..=9 => {
            let copy = bytes[piece(bytes, random)].to_vec();
            insert(bytes, at, &copy);
        }
        10..=11 => {
            let other = pick(random, valid);
            insert(bytes, at, &other[piece(other, random)]);
        }
        12..=14 => write_boundary(bytes, at, random),
        15 => copy_word(bytes, at, random),
        _ => write_decimal(bytes, at, random),
    }
}

fn pick<'a, T>(random: &mut Xorshift, list: &'a [T]) -> &'a T {
    &list[random.index(list.len())]
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}

fn flip_bit(bytes: &mut [u8], at: usize, random: &mut Xorshift) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

/// Returns a range of the input; every second one consists of whole lines.
fn piece(bytes: &[u8], random: &mut Xorshift) -> std::ops::Range<usize> {
    let mut ends = [random.index(bytes.len() + 1), random.index(bytes.len() + 1)];
    ends.sort_unstable();
    if random.below(2) == 0 {
        let line_start = |at: usize| {
            let newline = bytes[..at].iter().rposition(|byte| *byte == b'\n');
            newline.map_or(0, |newline| newline + 1)
        };
        ends = ends.map(line_start);
    }
    ends[0]..ends[1]
}

/// Replaces 1, 2, 4 or 8 bytes by an integer at a boundary, in either byte order.
fn write_boundary(bytes: &mut [u8], at: usize, random: &mut Xorshift) {
    let width = 1 << random.below(4);
    let number = *pick(random, &BOUNDARIES);
    let word = if random.below(2) == 0 {
        number.to_le_bytes()[..width].to_vec()
    } else {
        number.to_be_bytes()[8 - width..].to_vec()
    };
    if let Some(place) = bytes.get_mut(at..at + width) {
        place.copy_from_slice(&word);
    }
}

/// Copies 1, 2, 4 or 8 bytes, which may be a length, to another place.
fn copy_word(bytes: &mut [u8], at: usize, random: &mut Xorshift) {
    let width = 1 << random.below(4);
    let from = random.index(bytes.len() + 1);
    if from.max(at) + width <= bytes.len() {
        bytes.copy_within(from..from + width, at);
    }
}

/// Replaces the next decimal number by one at a boundary.
fn write_decimal(bytes: &mut Vec<u8>, at: usize, random: &mut Xorshift) {
    let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit) else {
        return;
    };
    let start = at + start;
    let digits = bytes[start..].iter().take_while(|it| it.is_ascii_digit());
    let end = start + digits.count();
    let mut number = pick(random, &BOUNDARIES).to_string();
    if random.below(4) == 0 {
        number.insert(0, '-');
    }
    bytes.splice(start..end, number.into_bytes());
}

/// Repeats a piece many times, which shows costs that grow faster than the input.
fn repeat(bytes: &mut Vec<u8>, random: &mut Xorshift) {
    let piece = piece(bytes, random);
    let count = random.below(REPETITIONS_MAX);
    let room = INPUT_MAX.saturating_sub(bytes.len()) / piece.len().max(1);
    let count = room.min(usize::try_from(count).unwrap_or(room));
    let repeated = bytes[piece.clone()].repeat(count);
    insert(bytes, piece.end, &repeated);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn inputs_are_the_same_in_every_run_and_differ_by_their_numbers() {
        let valid = [b": 1\nname: value\ncount: 12\n".to_vec(), vec![0, 3, 0, 1]];
        let all = |_| (0..1000).map(|number| input(&valid, number));
        assert!(all(0).eq(all(1)));
        assert!(all(0).all(|it| it.len() <= INPUT_MAX));
        assert!(all(0).collect::<HashSet<_>>().len() > 500);
    }
}
