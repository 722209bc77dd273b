//! The messages of the API about tokens.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Scope, TokenName};

/// A token as the API lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenStatus {
    /// The name.
    pub name: TokenName,
    /// The permissions.
    pub scope: Scope,
    /// The time of its creation, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The time of its last use since the agent has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
}

/// A request for a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// The name.
    pub name: TokenName,
    /// The permissions.
    #[serde(default)]
    pub scope: Scope,
}

/// A token with its secret, which is shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedToken {
    /// The name.
    pub name: TokenName,
    /// The permissions.
    pub scope: Scope,
    /// The secret.
    pub secret: TokenSecret,
}

/// The secret of a token. It is overwritten in memory when it is dropped, and no log shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct TokenSecret(Zeroizing<String>);

impl TokenSecret {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for TokenSecret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<TokenSecret> for String {
    fn from(secret: TokenSecret) -> Self {
        secret.as_str().to_owned()
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_a_token_is_in_its_message_and_in_no_log() {
        let created = CreatedToken {
            name: "robot".parse().unwrap(),
            scope: Scope::Submit,
            secret: TokenSecret::from("buildhost_7".to_owned()),
        };
        let text = serde_json::to_string(&created).unwrap();
        assert_eq!(
            text,
            r#"{"name":"robot","scope":"submit","secret":"buildhost_7"}"#
        );
        assert!(!format!("{created:?}").contains("buildhost_7"));
    }

    #[test]
    fn a_request_for_a_token_is_checked() {
        let parse = |text: &str| serde_json::from_str::<NewToken>(text);
        assert_eq!(parse(r#"{"name": "a"}"#).unwrap().scope, Scope::Read);
        for text in [
            r#"{"name": "a b"}"#,
            r#"{"name": "a", "scope": "root"}"#,
            r#"{"name": "a", "x": 1}"#,
            "{}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
