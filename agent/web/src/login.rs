//! The page on which a browser signs in.

use askama::Template;

use crate::frame::Frame;

/// The page on which a browser signs in.
#[derive(Debug, Template)]
#[template(path = "login.html")]
pub struct Login {
    /// The parts that all pages share.
    pub frame: Frame,
    /// The refusal of the last attempt.
    pub refusal: Option<String>,
    /// The sign-in link that led here, and the user to whom it was given.
    pub link: Option<LoginLink>,
    /// The path of the page to show then.
    pub next: String,
}

/// A sign-in link that is still valid.
#[derive(Debug)]
pub struct LoginLink {
    /// The code of the link.
    pub code: String,
    /// The user to whom the link was given.
    pub user: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(refusal: Option<&str>, link: Option<LoginLink>) -> String {
        let login = Login {
            frame: Frame::plain("Sign in"),
            refusal: refusal.map(str::to_owned),
            link,
            next: "/builds?target=\"><script>".to_owned(),
        };
        login.render().unwrap()
    }

    #[test]
    fn a_link_signs_in_with_one_button_and_everyone_else_has_a_token() {
        let with_token = page(Some("the token <b>x</b> is unknown"), None);
        assert!(with_token.contains("type=\"password\""));
        assert!(!with_token.contains("<script>") && !with_token.contains("<b>x"));
        let link = LoginLink {
            code: "c0de".to_owned(),
            user: "root".to_owned(),
        };
        let with_link = page(None, Some(link));
        assert!(with_link.contains("value=\"c0de\"") && with_link.contains("as root"));
        assert!(!with_link.contains("type=\"password\""));
    }
}
