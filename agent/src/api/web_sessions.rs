//! The web sessions of browsers: a cookie with a random identifier stands for a token, or for the
//! user to whom a sign-in link was given. Nothing of them is stored; they end with the agent.

pub(super) mod cookie;
pub(super) mod origin;
mod table;

use std::io;
use std::time::{Duration, Instant};

use config::task::Digest;
use parking_lot::Mutex;
use rustix::rand::{GetRandomFlags, getrandom};
use sys::file::digest_of;

pub(super) use table::Identity;
use table::{LINK_MAX, Table};

/// The time for which a sign-in link is valid.
pub(super) const LINK_DURATION: Duration = LINK_MAX;

/// A secret that a browser gets; only its hash is kept here.
#[derive(Debug)]
pub(super) struct Secret(String);

impl Secret {
    fn draw() -> io::Result<Self> {
        let mut bytes = [0; 32];
        let count = getrandom(&mut bytes[..], GetRandomFlags::empty())?;
        if count < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self(Digest::from(bytes).to_string()))
    }

    fn hash(&self) -> Digest {
        digest_of(self.0.as_bytes())
    }

    /// Returns the text of the secret.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The open web sessions and the sign-in links.
#[derive(Debug, Default)]
pub(super) struct WebSessions(Mutex<Table>);

impl WebSessions {
    /// Opens a session and returns the content of its cookie.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn open(&self, identity: Identity) -> io::Result<Secret> {
        let secret = Secret::draw()?;
        self.0.lock().open(secret.hash(), identity, Instant::now());
        Ok(secret)
    }

    /// Returns the owner of the session with this cookie, which counts as used.
    pub(super) fn find(&self, cookie: &str) -> Option<Identity> {
        self.0.lock().find(&hash(cookie), Instant::now())
    }

    /// Ends a session.
    pub(super) fn close(&self, cookie: &str) {
        self.0.lock().close(&hash(cookie));
    }

    /// Creates a sign-in link and returns its code.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn add_link(&self, identity: Identity) -> io::Result<Secret> {
        let secret = Secret::draw()?;
        let now = Instant::now();
        self.0.lock().add_link(secret.hash(), identity, now);
        Ok(secret)
    }

    /// Returns the user to whom a valid sign-in link was given.
    pub(super) fn owner_of_link(&self, code: &str) -> Option<Identity> {
        self.0.lock().owner_of_link(&hash(code), Instant::now())
    }

    /// Uses a sign-in link up and returns the user to whom it was given.
    pub(super) fn take_link(&self, code: &str) -> Option<Identity> {
        self.0.lock().take_link(&hash(code), Instant::now())
    }
}

/// Returns the hash by which a secret is found: the time of a comparison tells nothing about it.
fn hash(secret: &str) -> Digest {
    digest_of(secret.as_bytes())
}
