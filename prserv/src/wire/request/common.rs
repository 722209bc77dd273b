//! The most frequent request in the form in which BitBake's clients send it, parsed without a tree
//! of JSON values. All other forms are left to the general parser.

use std::borrow::Cow;

use serde::Deserialize;

use crate::policy::History;
use crate::tuple::Tuple;

/// The beginning of the form. Python's `json.dumps` separates names and values by `": "`.
const BEGINNING: &str = "{\"get-pr\": {\"";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetPr<'t> {
    #[serde(borrow, rename = "get-pr")]
    arguments: Arguments<'t>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments<'t> {
    #[serde(borrow)]
    version: Cow<'t, str>,
    #[serde(borrow)]
    pkgarch: Cow<'t, str>,
    #[serde(borrow)]
    checksum: Cow<'t, str>,
    #[serde(default)]
    history: bool,
}

/// Parses a message of this form. `None` means that the general parser has to decide.
pub(super) fn parse(text: &str) -> Option<(Tuple, History)> {
    if !text.starts_with(BEGINNING) {
        return None;
    }
    let GetPr { arguments } = serde_json::from_str(text).ok()?;
    let texts = [&arguments.version, &arguments.pkgarch, &arguments.checksum];
    if texts.iter().any(|text| text.contains('\0')) {
        return None;
    }
    let tuple = Tuple::new(arguments.version, arguments.pkgarch, arguments.checksum);
    let history = if arguments.history {
        History::Keep
    } else {
        History::Ignore
    };
    Some((tuple, history))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::request::Request;

    fn message(members: &str) -> String {
        format!("{{\"get-pr\": {{{members}}}}}")
    }

    #[test]
    fn the_messages_of_bitbakes_clients_have_this_form() {
        let tuple = r#""version": "v", "pkgarch": "all", "checksum": "c""#;
        for (members, history) in [
            (tuple.to_owned(), History::Ignore),
            (format!("{tuple}, \"history\": false"), History::Ignore),
            (format!("{tuple}, \"history\": true"), History::Keep),
        ] {
            let expected = (Tuple::new("v", "all", "c"), history);
            assert_eq!(parse(&message(&members)), Some(expected), "{members}");
        }
    }

    #[test]
    fn other_forms_are_left_to_the_general_parser() {
        let tuple = r#""version": "v", "pkgarch": "all", "checksum": "c""#;
        for text in [
            message(&format!("{tuple}, \"history\": null")),
            message(&format!("{tuple}, \"other\": 1")),
            message(&format!("{tuple}, \"version\": \"w\"")),
            message(r#""version": 1, "pkgarch": "all", "checksum": "c""#),
            message(r#""version": "v\u0000", "pkgarch": "all", "checksum": "c""#),
            message(r#""version": "v""#),
            format!("{{\"get-pr\": {{{tuple}}}, \"ping\": null}}"),
            r#"{"get-pr": ["v", "all", "c", true]}"#.to_owned(),
            r#"{"ping": {}}"#.to_owned(),
            format!("{}x", message(tuple)),
        ] {
            assert_eq!(parse(&text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn both_parsers_agree(
            members in proptest::collection::vec(
                (
                    prop_oneof!["version", "pkgarch", "checksum", "history", "x"],
                    prop_oneof![
                        "\"[a-z\u{e9}]{0,3}(\\\\u0000|\\\\u00e9|\\\\n)?\"", "true", "false", "null", "1",
                    ],
                ),
                0..6,
            ),
        ) {
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
            let text = message(&members.join(", "));
            if let Some((tuple, history)) = parse(&text) {
                let request = Request::GetPr(tuple, history);
                prop_assert_eq!(Request::parse(serde_json::from_str(&text).unwrap()), Ok(request));
            }
        }
    }
}
