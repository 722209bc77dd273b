//! The variables of a job, as its script has them; pure.

use std::collections::BTreeMap;

use super::job::Job;

/// The variables of a job by their names, with references to other ones replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variables(BTreeMap<String, Value>);

/// The value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A text.
    Text(String),
    /// The content of a file, and the path of the file, which is the variable's text.
    File {
        /// The path.
        path: String,
        /// The content.
        content: String,
    },
}

impl Value {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::File { path, .. } => path,
        }
    }
}

impl Variables {
    /// Returns the variables of a job whose directories are below `root`. Of those with the same name
    /// the last one counts; one whose name a shell cannot have is left out.
    pub(super) fn of(job: &Job, root: &str) -> Self {
        let own = [
            ("CI_PROJECT_DIR", format!("{root}/project")),
            ("CI_BUILDS_DIR", root.to_owned()),
            ("CI_SERVER", "yes".to_owned()),
        ];
        let own = own.map(|(key, text)| (key.to_owned(), (Value::Text(text), true)));
        let given = job.variables.iter().filter(|it| is_name(&it.key));
        let given = given.map(|it| {
            let content = it.value.reveal().to_owned();
            let path = format!("{root}/variables/{}", it.key);
            let value = if it.file {
                Value::File { path, content }
            } else {
                Value::Text(content)
            };
            (it.key.clone(), (value, it.raw))
        });
        // The place of the project is decided here.
        let given: BTreeMap<_, _> = given.chain(own).collect();
        let texts: BTreeMap<_, _> = given
            .iter()
            .map(|(key, (value, _))| (key.as_str(), value.text()))
            .collect();
        let resolved = |(value, raw): &(Value, bool)| match value {
            Value::Text(text) if !raw => Value::Text(expanded(text, &texts)),
            Value::File { path, content } if !raw => Value::File {
                path: path.clone(),
                content: expanded(content, &texts),
            },
            value => value.clone(),
        };
        Self(
            given
                .iter()
                .map(|(key, it)| (key.clone(), resolved(it)))
                .collect(),
        )
    }

    /// Returns the text of a variable.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(Value::text)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Returns a text with the variables replaced in it.
    pub(super) fn expand(&self, text: &str) -> String {
        let texts = self.0.iter();
        expanded(
            text,
            &texts
                .map(|(key, value)| (key.as_str(), value.text()))
                .collect(),
        )
    }
}

/// Returns true for the name of a variable that a shell can have.
fn is_name(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && key.chars().all(is_of_name)
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Replaces `$NAME` and `${NAME}` once by the values of variables, unknown ones by nothing, and `$$`
/// by `$`. All else stays.
fn expanded(text: &str, values: &BTreeMap<&str, &str>) -> String {
    let mut found = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        found.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            found.push('$');
            rest = after;
        } else if let Some((name, after)) = reference(rest) {
            found.push_str(values.get(name).copied().unwrap_or_default());
            rest = after;
        } else {
            found.push('$');
        }
    }
    found + rest
}

/// Returns the name of a reference, behind its `$`, and the text after it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (inner, is_braced) = match text.strip_prefix('{') {
        Some(inner) => (inner, true),
        None => (text, false),
    };
    let end = inner.find(|c| !is_of_name(c)).unwrap_or(inner.len());
    let (name, after) = inner.split_at(end);
    let after = if is_braced {
        after.strip_prefix('}')?
    } else {
        after
    };
    (!name.is_empty()).then_some((name, after))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::job::tests::job;
    use super::*;

    #[test]
    fn references_are_replaced_once_and_never_in_raw_variables() {
        let job = job(&json!({"variables": [
            {"key": "A", "value": "old"},
            {"key": "A", "value": "a"},
            {"key": "B", "value": "$A-${A}-$UNKNOWN-$$A-$-${A"},
            {"key": "C", "value": "$B"},
            {"key": "RAW", "value": "$A", "raw": true},
            {"key": "F", "value": "text $A", "file": true},
            {"key": "G", "value": "cat $F"},
            {"key": "not-a-name; rm", "value": "x"},
            {"key": "CI_PROJECT_DIR", "value": "/etc"},
        ]}));
        let variables = Variables::of(&job, "/r");
        let get = |key| variables.get(key).unwrap();
        assert_eq!(get("A"), "a");
        assert_eq!(get("B"), "a-a--$A-$-${A");
        assert_eq!(get("C"), "$A-${A}-$UNKNOWN-$$A-$-${A");
        assert_eq!(get("RAW"), "$A");
        assert_eq!(get("G"), "cat /r/variables/F");
        assert_eq!(get("CI_PROJECT_DIR"), "/r/project");
        assert_eq!(variables.get("not-a-name; rm"), None);
        let file = variables.iter().find(|(key, _)| *key == "F").unwrap().1;
        assert!(matches!(file, Value::File { content, .. } if content == "text a"));
        assert_eq!(variables.expand("x/$A/*.log"), "x/a/*.log");
    }

    proptest! {
        #[test]
        fn a_text_without_references_stays(text in "[^$]{0,40}") {
            prop_assert_eq!(expanded(&text, &BTreeMap::new()), text);
        }

        #[test]
        fn no_text_makes_the_expansion_panic(text in "[${}aä_\\-]{0,40}") {
            expanded(&text, &BTreeMap::from([("a", "$a")]));
        }
    }
}
