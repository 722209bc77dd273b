//! The last lines of a guest's console, short and printable, for messages; pure.

use std::fmt;

use config::printable;

/// The number of lines.
const LINES_MAX: usize = 5;
/// The number of bytes of all lines.
const BYTES_MAX: usize = 400;
/// The words with which Linux says why it panics.
const PANIC: &str = "Kernel panic - not syncing";

/// The last lines of a guest's console. Displayed as the end of a sentence; nothing if the console
/// showed nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConsoleTail(Vec<String>);

impl ConsoleTail {
    /// Returns the last lines of this output, which may contain anything. After a kernel panic,
    /// returns the line that says why and those behind it: the last ones are registers.
    pub fn of_output(output: &[u8]) -> Self {
        let text = without_escapes(&String::from_utf8_lossy(output));
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let lines: Vec<_> = lines.collect();
        if let Some(panic) = lines.iter().rposition(|line| line.contains(PANIC)) {
            return Self(within_limits(lines[panic..].iter().copied()));
        }
        let mut last = within_limits(lines.into_iter().rev());
        last.reverse();
        Self(last)
    }
}

/// Returns the first lines, as many as the limits allow. The first one is shown in any case.
fn within_limits<'l>(lines: impl Iterator<Item = &'l str>) -> Vec<String> {
    let mut left = BYTES_MAX;
    let mut shown = Vec::new();
    for line in lines.take(LINES_MAX) {
        let line = printable(line).to_string();
        if line.len() > left {
            if shown.is_empty() {
                shown.push(truncated(&line));
            }
            break;
        }
        left -= line.len();
        shown.push(line);
    }
    shown
}

impl fmt::Display for ConsoleTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, "; its console ends with: {}", self.0.join(" | "))
    }
}

/// Returns the start of a line that is longer than all lines may be.
fn truncated(line: &str) -> String {
    let mut text = String::new();
    for character in line.chars() {
        if text.len() + character.len_utf8() > BYTES_MAX - 3 {
            break;
        }
        text.push(character);
    }
    text + "…"
}

/// Removes the escape sequences by which programs color their output (ECMA-48, section 5.4), and
/// carriage returns.
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' if characters.next_if_eq(&'[').is_some() => {
                while characters.next_if(|c| matches!(c, ' '..='?')).is_some() {}
                characters.next_if(|c| matches!(c, '@'..='~'));
            }
            '\u{1b}' | '\r' => {}
            _ => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(output: &str) -> String {
        ConsoleTail::of_output(output.as_bytes()).to_string()
    }

    #[test]
    fn the_last_lines_are_shown_on_one_line() {
        let output = "one\n\n\u{1b}[0;1;31mtwo\u{1b}[0m\r\n3\n4\n5\n\u{7}six\n \n";
        assert_eq!(
            shown(output),
            "; its console ends with: two | 3 | 4 | 5 | \\u{7}six"
        );
        assert_eq!(shown(" \n\r\n"), "");
        assert_eq!(shown("\u{1b}["), "");
    }

    #[test]
    fn a_panic_is_shown_from_the_line_that_says_why() {
        let output = "one\n[ 1] Kernel panic - not syncing: no init\nCPU: 0\n".to_owned()
            + &"R10: 0\n".repeat(9);
        assert_eq!(
            shown(&output),
            "; its console ends with: [ 1] Kernel panic - not syncing: no init | CPU: 0 | R10: 0 | \
             R10: 0 | R10: 0"
        );
    }

    #[test]
    fn all_lines_together_are_short() {
        let long = "x".repeat(300);
        let output = format!("{long}\n{long}\nlast\n");
        assert_eq!(
            shown(&output),
            format!("; its console ends with: {long} | last")
        );
        let endless = "é".repeat(5000);
        let tail = shown(&endless);
        assert!(tail.len() < BYTES_MAX + 40 && tail.ends_with('…'), "{tail}");
    }
}
