//! The cookie of a web session.

use axum::http::{HeaderMap, HeaderValue, header};

/// The name of the cookie.
const NAME: &str = "buildhost_session";

/// Returns the content of the cookie of a request. The first one counts.
pub fn of_request(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.filter_map(|it| it.to_str().ok());
    let mut pairs = pairs.flat_map(|it| it.split(';'));
    pairs.find_map(|it| it.trim().strip_prefix(NAME)?.strip_prefix('='))
}

/// Returns the header that gives a browser the cookie. No script can read it, and no request of
/// another site's page has it.
pub fn set(secret: &str, over_tls: bool) -> Option<HeaderValue> {
    let secure = if over_tls { "; Secure" } else { "" };
    let line = format!("{NAME}={secret}; HttpOnly; SameSite=Strict; Path=/{secure}");
    line.parse().ok()
}

/// Returns the header that takes the cookie away.
pub fn clear() -> HeaderValue {
    HeaderValue::from_static("buildhost_session=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        for (lines, expected) in [
            (&[][..], None),
            (&["a=b"], None),
            (&["buildhost_session=7"], Some("7")),
            (&["a=b; buildhost_session=7; c=d"], Some("7")),
            (&["a=b", "buildhost_session=7"], Some("7")),
            (&["buildhost_session2=8"], None),
            (&["buildhost_session=7; buildhost_session=8"], Some("7")),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, line.parse().unwrap());
            }
            assert_eq!(of_request(&headers), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_browser_keeps_the_cookie_from_scripts_and_other_sites() {
        assert_eq!(
            set("7", false).unwrap(),
            "buildhost_session=7; HttpOnly; SameSite=Strict; Path=/"
        );
        assert!(
            set("7", true)
                .unwrap()
                .to_str()
                .unwrap()
                .ends_with("; Secure")
        );
        assert!(clear().to_str().unwrap().starts_with(&format!("{NAME}=;")));
    }
}
