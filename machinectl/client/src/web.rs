//! The web page.

use config::web::SignInLink;

use crate::{Client, Result};

impl Client {
    /// Returns a link that signs a browser in once, with the rights of the caller.
    pub fn sign_in_link(&self) -> Result<SignInLink> {
        self.post("sign-in-links", &())
    }
}
