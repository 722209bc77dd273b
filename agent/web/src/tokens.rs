//! The page of the tokens.

use askama::Template;
use config::tokens::{CreatedToken, Scope, TokenStatus};
use jiff::Timestamp;

use crate::frame::Frame;
use crate::words::Ago;

/// The page of the tokens.
#[derive(Debug, Template)]
#[template(path = "tokens.html")]
pub struct TokensPage {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The tokens in the order of their file.
    pub tokens: Vec<TokenStatus>,
    /// The token that was created just now, with its secret.
    pub created: Option<CreatedToken>,
    /// The present.
    pub now: Timestamp,
}

impl TokensPage {
    fn ago(&self, at: &Timestamp) -> Ago {
        Ago::new(*at, self.now)
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn scopes(&self) -> [(Scope, &'static str); 3] {
        [
            (Scope::Read, "read: see everything"),
            (Scope::Submit, "submit: also start and cancel builds"),
            (Scope::Admin, "admin: everything"),
        ]
    }

    /// Returns true for the token with which the viewer has signed in.
    fn is_own(&self, token: &TokenStatus) -> bool {
        let viewer = self.frame.viewer.name.as_deref();
        viewer.and_then(|it| it.strip_prefix("token:")) == Some(token.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_in_a_field_that_can_be_copied_and_only_once() {
        let page = |created| {
            let page = TokensPage {
                frame: Frame::plain("Tokens"),
                tokens: vec![TokenStatus {
                    name: "robot".parse().unwrap(),
                    scope: Scope::Read,
                    created: None,
                    last_used: None,
                }],
                created,
                now: Timestamp::UNIX_EPOCH,
            };
            page.render().unwrap()
        };
        let created = CreatedToken {
            name: "robot".parse().unwrap(),
            scope: Scope::Read,
            secret: "buildhost_7".to_owned().into(),
        };
        assert!(page(Some(created)).contains("readonly value=\"buildhost_7\""));
        assert!(!page(None).contains("readonly"));
    }
}
