//! The colors of logs: escape sequences become classes, and all other ones are removed.

use std::fmt::{self, Write};

/// The attributes of a text, as `SGR` sequences set them. Colors are those of the 16 basic ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Style {
    foreground: Option<u8>,
    background: Option<u8>,
    bold: bool,
    faint: bool,
    underlined: bool,
}

/// A line as HTML. The text that `mark` finds is marked.
pub(super) fn html(line: &str, mark: impl Fn(&str) -> Vec<(usize, usize)>) -> String {
    let mut html = String::with_capacity(line.len() + 16);
    for (style, text) in runs(line) {
        // Writing to a string does not fail.
        let _ = run(&mut html, style, &text, &mark(&text));
    }
    html
}

fn run(html: &mut String, style: Style, text: &str, marked: &[(usize, usize)]) -> fmt::Result {
    let is_styled = style != Style::default();
    if is_styled {
        html.write_str("<span class=\"")?;
        let flags = [
            (style.bold, "sb"),
            (style.faint, "sf"),
            (style.underlined, "su"),
        ];
        let mut classes: Vec<String> = Vec::new();
        classes.extend(style.foreground.map(|color| format!("f{color}")));
        classes.extend(style.background.map(|color| format!("g{color}")));
        classes.extend(
            flags
                .iter()
                .filter(|(set, _)| *set)
                .map(|(_, it)| (*it).to_owned()),
        );
        html.write_str(&classes.join(" "))?;
        html.write_str("\">")?;
    }
    let mut from = 0;
    for (begin, end) in marked {
        escape(html, &text[from..*begin]);
        html.write_str("<mark>")?;
        escape(html, &text[*begin..*end]);
        html.write_str("</mark>")?;
        from = *end;
    }
    escape(html, &text[from..]);
    if is_styled {
        html.write_str("</span>")?;
    }
    Ok(())
}

fn escape(html: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            _ => html.push(c),
        }
    }
}

/// Returns the parts of a line with equal styles, without control characters. Of a line that was
/// overwritten, as progress bars are, the last text counts.
fn runs(line: &str) -> Vec<(Style, String)> {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit_once('\r').map_or(line, |(_, last)| last);
    let mut all: Vec<(Style, String)> = Vec::new();
    let mut style = Style::default();
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => match rest.next() {
                Some('[') => control(&mut rest, &mut style),
                // A string, such as the title of a window: until BEL or ST.
                Some(']' | 'P' | '_' | '^' | 'X') => {
                    while let Some(c) = rest.next() {
                        if c == '\u{7}' || (c == '\u{1b}' && rest.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                // The choice of a character set has one more character.
                Some('(' | ')') => drop(rest.next()),
                _ => {}
            },
            '\u{9b}' => control(&mut rest, &mut style),
            '\t' => push(&mut all, style, c),
            _ if c.is_control() || is_invisible(c) => {}
            _ => push(&mut all, style, c),
        }
    }
    all
}

/// Returns true for the characters that change the direction of text, which can make a line look like
/// another one.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push(all: &mut Vec<(Style, String)>, style: Style, c: char) {
    match all.last_mut() {
        Some((last, text)) if *last == style => text.push(c),
        _ => all.push((style, c.into())),
    }
}

/// Reads a control sequence after its introducer, and applies it if it is `SGR`.
fn control(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, style: &mut Style) {
    let mut parameters = String::new();
    while let Some(c) = rest.next_if(|c| ('\u{20}'..='\u{3f}').contains(c)) {
        parameters.push(c);
    }
    // Anything but a final character ends a broken sequence, and is text.
    let last = rest.next_if(|c| ('\u{40}'..='\u{7e}').contains(c));
    if last == Some('m') {
        let numbers = parameters.split([';', ':']).map(|it| match it {
            "" => Some(0),
            number => number.parse().ok(),
        });
        if let Some(numbers) = numbers.collect::<Option<Vec<u16>>>() {
            apply(&numbers, style);
        }
    }
}

/// Applies the parameters of `SGR`.
fn apply(numbers: &[u16], style: &mut Style) {
    let color = |number: u16| u8::try_from(number).ok();
    let mut rest = numbers.iter().copied();
    while let Some(number) = rest.next() {
        match number {
            0 => *style = Style::default(),
            1 => style.bold = true,
            2 => style.faint = true,
            4 => style.underlined = true,
            22 => (style.bold, style.faint) = (false, false),
            24 => style.underlined = false,
            30..=37 => style.foreground = color(number - 30),
            38 => style.foreground = extended(&mut rest),
            39 => style.foreground = None,
            40..=47 => style.background = color(number - 40),
            48 => style.background = extended(&mut rest),
            49 => style.background = None,
            90..=97 => style.foreground = color(number - 82),
            100..=107 => style.background = color(number - 92),
            _ => {}
        }
    }
}

/// Returns the basic color that is closest to one of 256, or of all.
fn extended(rest: &mut impl Iterator<Item = u16>) -> Option<u8> {
    let (red, green, blue) = match rest.next()? {
        2 => (rest.next()?, rest.next()?, rest.next()?),
        5 => match rest.next()? {
            basic @ 0..=15 => return u8::try_from(basic).ok(),
            cube @ 16..=231 => {
                let level = |it: u16| it % 6 * 51;
                let cube = cube - 16;
                (level(cube / 36), level(cube / 6), level(cube))
            }
            gray @ 232..=255 => {
                let level = (gray - 232) * 10 + 8;
                (level, level, level)
            }
            _ => return None,
        },
        _ => return None,
    };
    let strongest = red.max(green).max(blue);
    let bit = |value: u16, bit: u8| if value > strongest / 2 { bit } else { 0 };
    let bright = if strongest > 200 { 8 } else { 0 };
    let hue = bright | bit(red, 1) | bit(green, 2) | bit(blue, 4);
    Some(if strongest < 64 { 0 } else { hue })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(line: &str) -> String {
        html(line, |_| Vec::new())
    }

    #[test]
    fn colors_become_classes_and_other_sequences_disappear() {
        for (line, expected) in [
            ("a <b> & \"c\"", "a &lt;b&gt; &amp; &quot;c&quot;"),
            (
                "\u{1b}[31mred\u{1b}[0m plain",
                "<span class=\"f1\">red</span> plain",
            ),
            (
                "\u{1b}[1;4;92;41mx",
                "<span class=\"f10 g1 sb su\">x</span>",
            ),
            (
                "\u{1b}[01;31m\u{1b}[Kerror: \u{1b}[m\u{1b}[Kx",
                "<span class=\"f1 sb\">error: </span>x",
            ),
            (
                "\u{1b}[38;5;196mx\u{1b}[39my",
                "<span class=\"f9\">x</span>y",
            ),
            ("\u{1b}[38;2;10;10;200mx", "<span class=\"f4\">x</span>"),
            ("\u{1b}]0;title\u{7}x\u{1b}]8;;http://a\u{1b}\\y", "xy"),
            ("\u{1b}(Bx\u{1b}[2Jy\u{8}\u{0}", "xy"),
            (" 10 %\r 50 %\r100 %\r", "100 %"),
            ("\u{1b}[", ""),
            ("\u{1b}[3\u{e9}x", "\u{e9}x"),
            ("a\tb\u{202e}c", "a\tbc"),
        ] {
            assert_eq!(shown(line), expected, "{line:?}");
        }
    }

    #[test]
    fn found_texts_are_marked_within_their_style() {
        let marked = html("\u{1b}[31ma<b\u{1b}[0mb", |text| {
            text.match_indices('b')
                .map(|(at, it)| (at, at + it.len()))
                .collect()
        });
        assert_eq!(
            marked,
            "<span class=\"f1\">a&lt;<mark>b</mark></span><mark>b</mark>"
        );
    }

    proptest! {
        #[test]
        fn a_line_brings_no_markup_and_no_control_characters(
            line in "(\u{1b}|\\[|\\]|[0-9;:m<>\"&a\r\t]|\\PC|\\p{Cc}){0,40}"
        ) {
            let html = shown(&line);
            prop_assert!(!html.chars().any(|c| c.is_control() && c != '\t'), "{html:?}");
            let tags = html.matches('<').count();
            let own = html.matches("<span class=\"").count() + html.matches("</span>").count();
            prop_assert_eq!(tags, own);
        }

        #[test]
        fn plain_text_stays_as_it_is(line in "[ a-z0-9.,:/_-]{0,60}") {
            prop_assert_eq!(shown(&line), line);
        }
    }
}
