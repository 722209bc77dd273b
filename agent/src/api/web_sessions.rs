//! The web sessions of browsers: a cookie with a random identifier stands for a token, or for the
//! user to whom a sign-in link was given. Nothing of them is stored; they end with the agent.

mod table;

use std::io;
use std::time::{Duration, Instant};

use config::task::Digest;
use parking_lot::Mutex;
use sys::file::digest_of;
use tokio::sync::Notify;

pub(super) use table::Identity;
use table::{LINK_MAX, Table};
pub(super) use web_server::{cookie, origin};

/// The time for which a sign-in link is valid.
pub(super) const LINK_DURATION: Duration = LINK_MAX;

/// A secret that a browser gets; only its hash is kept here.
#[derive(Debug)]
pub(super) struct Secret(String);

impl Secret {
    fn draw() -> io::Result<Self> {
        Ok(Self(Digest::from(sys::random::bytes()?).to_string()))
    }

    fn hash(&self) -> Digest {
        digest_of(self.0.as_bytes())
    }

    /// Returns the text of the secret.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a web session: the hash of its cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SessionKey(Digest);

impl SessionKey {
    /// Returns the name of the session with this cookie.
    pub(super) fn of(cookie: &str) -> Self {
        Self(hash(cookie))
    }
}

/// The open web sessions and the sign-in links.
#[derive(Debug, Default)]
pub(super) struct WebSessions {
    table: Mutex<Table>,
    looks: Notify,
}

impl WebSessions {
    /// Opens a session and returns the content of its cookie.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn open(&self, identity: Identity) -> io::Result<Secret> {
        let secret = Secret::draw()?;
        self.table
            .lock()
            .open(secret.hash(), identity, Instant::now());
        Ok(secret)
    }

    /// Returns the owner of the session with this cookie, which counts as used.
    pub(super) fn find(&self, cookie: &str) -> Option<Identity> {
        self.table.lock().find(&hash(cookie), Instant::now())
    }

    /// Returns the number of open sessions of some owners.
    pub(super) fn count(&self, is_owner: impl Fn(&Identity) -> bool) -> usize {
        self.table.lock().count(is_owner, Instant::now())
    }

    /// Ends a session.
    pub(super) fn close(&self, cookie: &str) {
        self.table.lock().close(&hash(cookie));
        self.look_again();
    }

    /// Lets long connections look at once whether their callers still have their rights.
    pub(super) fn look_again(&self) {
        self.looks.notify_waiters();
    }

    /// Returns true if a session is open, which does not count as used.
    pub(super) fn is_open(&self, session: &SessionKey) -> bool {
        self.table.lock().is_open(&session.0, Instant::now())
    }

    /// Waits until a long connection should look whether its caller still has its rights.
    pub(super) async fn looks(&self) {
        self.looks.notified().await;
    }

    /// Creates a sign-in link and returns its code.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn add_link(&self, identity: Identity) -> io::Result<Secret> {
        let secret = Secret::draw()?;
        let now = Instant::now();
        self.table.lock().add_link(secret.hash(), identity, now);
        Ok(secret)
    }

    /// Returns the user to whom a valid sign-in link was given.
    pub(super) fn owner_of_link(&self, code: &str) -> Option<Identity> {
        self.table.lock().owner_of_link(&hash(code), Instant::now())
    }

    /// Uses a sign-in link up and returns the user to whom it was given.
    pub(super) fn take_link(&self, code: &str) -> Option<Identity> {
        self.table.lock().take_link(&hash(code), Instant::now())
    }
}

/// Returns the hash by which a secret is found: the time of a comparison tells nothing about it.
fn hash(secret: &str) -> Digest {
    digest_of(secret.as_bytes())
}
