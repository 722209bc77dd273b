//! The address of a layer index, with the credentials that it may have.

use std::fmt;

use reqwest_tls::Url;

/// The part of an address at which the pages and the interface of an index begin.
const MARKER: &str = "/layerindex/";
/// The interface below it.
const API: &str = "/layerindex/api/";

/// A text that is not the address of a layer index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the address of a layer index; `https://HOST/layerindex/api/` is expected")]
pub struct AddressError(String);

/// The address of a layer index.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    url: Url,
    /// The address as it was given, if it was that of a page.
    page: Option<String>,
}

impl Address {
    /// Parses an address. That of a page of an index, as Toaster's manual has it, leads to the
    /// interface.
    ///
    /// # Errors
    /// The text is not an address of HTTP.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let fault = || AddressError(text.rsplit('@').next().unwrap_or(text).to_owned());
        let mut url = Url::parse(text.trim()).map_err(|_| fault())?;
        if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
            return Err(fault());
        }
        url.set_query(None);
        url.set_fragment(None);
        let path = url.path().to_owned();
        let is_interface = path.trim_end_matches('/').ends_with("/api");
        let page = match path.find(MARKER) {
            Some(at) if !is_interface => {
                url.set_path(&format!("{}{API}", &path[..at]));
                Some(path)
            }
            _ => {
                url.set_path(&format!("{}/", path.trim_end_matches('/')));
                None
            }
        };
        Ok(Self { url, page })
    }

    /// Returns the address without credentials.
    pub fn shown(&self) -> String {
        let mut url = self.url.clone();
        // Both fail only for addresses without a host.
        let _ = (url.set_username(""), url.set_password(None));
        url.to_string()
    }

    /// Returns a remark if the address was that of a page.
    pub fn note(&self) -> Option<String> {
        let page = self.page.as_ref()?;
        let shown = self.shown();
        Some(format!(
            "{page} is a page of the index; {shown} is used, its interface"
        ))
    }

    /// Returns the user name and the password.
    pub(super) fn credentials(&self) -> Option<(String, Option<String>)> {
        let decode = |text: &str| {
            let form = format!("x={}", text.replace('+', "%2B"));
            let mut pairs = reqwest_tls::Url::parse("http://x/").ok()?;
            pairs.set_query(Some(&form));
            pairs
                .query_pairs()
                .next()
                .map(|(_, value)| value.into_owned())
        };
        let user = decode(self.url.username()).filter(|user| !user.is_empty())?;
        Some((user, self.url.password().and_then(decode)))
    }
}

impl fmt::Debug for Address {
    /// Never shows the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.shown()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_page_leads_to_the_interface() {
        for (text, shown, is_page) in [
            (
                "https://layers.example.org/layerindex/api/",
                "https://layers.example.org/layerindex/api/",
                false,
            ),
            (
                "https://layers.example.org/layerindex/api",
                "https://layers.example.org/layerindex/api/",
                false,
            ),
            (
                "https://layers.example.org/layerindex/branch/master/layers/",
                "https://layers.example.org/layerindex/api/",
                true,
            ),
            (
                "http://h:8080/x/layerindex/recipe/?q=1",
                "http://h:8080/x/layerindex/api/",
                true,
            ),
            ("http://u:p%40w@h/own", "http://h/own/", false),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.shown(), shown);
            assert_eq!(address.note().is_some(), is_page, "{text}");
        }
        let address = Address::parse("http://u:p%40w+@h/own").unwrap();
        assert_eq!(
            address.credentials(),
            Some(("u".to_owned(), Some("p@w+".to_owned())))
        );
        assert!(!format!("{address:?}").contains("p%40w"));
        for text in ["", "layers.example.org", "file:///x", "ftp://h/", "http://"] {
            Address::parse(text).unwrap_err();
        }
    }
}
