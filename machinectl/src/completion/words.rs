//! The global options in the words of an unfinished command line.

use std::ffi::OsString;

/// The options that decide where values come from.
const OPTIONS: [&str; 6] = [
    "--volume",
    "--toolchains",
    "--host",
    "--token-file",
    "--ca-file",
    "--socket",
];

/// Returns a command line with the options among the words that decide where values come from. The
/// last word is not complete.
pub(super) fn options(words: &[OsString]) -> Vec<OsString> {
    let mut found: Vec<OsString> = vec!["buildhost".into()];
    let complete = words.split_last().map_or(words, |(_, complete)| complete);
    let mut words = complete.iter();
    while let Some(word) = words.next() {
        let Some(text) = word.to_str() else {
            continue;
        };
        let is_joined = |option: &&str| {
            text.strip_prefix(*option)
                .is_some_and(|rest| rest.starts_with('='))
        };
        if OPTIONS.contains(&text) {
            if let Some(value) = words.next() {
                found.extend([word.clone(), value.clone()]);
            }
        } else if OPTIONS.iter().any(is_joined) {
            found.push(word.clone());
        }
    }
    found.push("builds".into());
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn options_with_their_values_are_found_anywhere() {
        for (line, expected) in [
            ("", "buildhost builds"),
            ("builds ", "buildhost builds"),
            ("--host lab builds ", "buildhost --host lab builds"),
            ("builds --socket=/s -n 3 x", "buildhost --socket=/s builds"),
            ("builds --host", "buildhost builds"),
            ("builds --host la", "buildhost builds"),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let found = options(&words);
            let found: Vec<_> = found.iter().map(|word| word.to_str().unwrap()).collect();
            assert_eq!(found.join(" "), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_line_has_options(line in "(--host|--volume|=|[a-z]| ){0,12}") {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            prop_assert!(options(&words).len() >= 2);
        }
    }
}
