//! The rules of web sessions and sign-in links: how many there are, and when they end. Pure: the
//! caller has the clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use config::task::Digest;
use config::tokens::{Scope, Token, TokenName};

/// The time after which an unused session ends.
const IDLE_MAX: Duration = Duration::from_hours(12);
/// The time after which every session ends.
const TOTAL_MAX: Duration = Duration::from_hours(7 * 24);
/// The time for which a sign-in link is valid.
pub(super) const LINK_MAX: Duration = Duration::from_mins(1);
/// The maximum number of sessions of one owner, and of all.
const SESSIONS_PER_OWNER_MAX: usize = 32;
const SESSIONS_MAX: usize = 1024;
/// The maximum number of unused sign-in links.
const LINKS_MAX: usize = 64;

/// The owner of a web session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) enum Identity {
    /// The bearer of a token.
    Token {
        /// The name of the token.
        name: TokenName,
        /// The hash of its secret. Another token of the same name is another owner.
        sha256: Digest,
    },
    /// A user of this host.
    Local {
        /// The user ID.
        user: u32,
        /// The user's name, or the ID of a user without a name.
        name: String,
    },
}

impl Identity {
    /// Returns the rights of the owner; `None` if the token was removed.
    pub(in crate::api) fn scope(&self, tokens: &[Token]) -> Option<Scope> {
        match self {
            Self::Token { name, sha256 } => {
                let is_this = |it: &&Token| it.name == *name && it.sha256 == *sha256;
                tokens.iter().find(is_this).map(|it| it.scope)
            }
            Self::Local { user: 0, .. } => Some(Scope::Admin),
            Self::Local { .. } => Some(Scope::Submit),
        }
    }

    /// Returns the name under which the owner submits builds.
    pub(in crate::api) fn submitter(&self) -> String {
        match self {
            Self::Token { name, .. } => format!("token:{name}"),
            Self::Local { name, .. } => name.clone(),
        }
    }
}

#[derive(Debug)]
struct Session {
    owner: Identity,
    opened: Instant,
    used: Instant,
}

impl Session {
    fn has_ended(&self, now: Instant) -> bool {
        let since = |instant| now.saturating_duration_since(instant);
        since(self.used) >= IDLE_MAX || since(self.opened) >= TOTAL_MAX
    }
}

#[derive(Debug)]
struct Link {
    owner: Identity,
    made: Instant,
}

/// The sessions and the sign-in links by the hashes of their secrets.
#[derive(Debug, Default)]
pub(super) struct Table {
    sessions: HashMap<Digest, Session>,
    links: HashMap<Digest, Link>,
}

impl Table {
    /// Opens a session. If there are too many, the one that was unused for the longest time ends:
    /// one of the same owner if that owner has many.
    pub(super) fn open(&mut self, secret: Digest, owner: Identity, now: Instant) {
        self.sessions.retain(|_, it| !it.has_ended(now));
        let of_owner = |it: &Session| it.owner == owner;
        if self.sessions.values().filter(|it| of_owner(it)).count() >= SESSIONS_PER_OWNER_MAX {
            self.end_oldest(of_owner);
        } else if self.sessions.len() >= SESSIONS_MAX {
            self.end_oldest(|_| true);
        }
        let session = Session {
            owner,
            opened: now,
            used: now,
        };
        self.sessions.insert(secret, session);
    }

    fn end_oldest(&mut self, among: impl Fn(&Session) -> bool) {
        let sessions = self.sessions.iter().filter(|(_, it)| among(it));
        let oldest = sessions.min_by_key(|(_, it)| it.used);
        if let Some(secret) = oldest.map(|(secret, _)| secret.clone()) {
            self.sessions.remove(&secret);
        }
    }

    /// Returns the owner of a session, which counts as used.
    pub(super) fn find(&mut self, secret: &Digest, now: Instant) -> Option<Identity> {
        if !self.is_open(secret, now) {
            self.sessions.remove(secret);
            return None;
        }
        let session = self.sessions.get_mut(secret)?;
        session.used = session.used.max(now);
        Some(session.owner.clone())
    }

    /// Returns true if a session is open.
    pub(super) fn is_open(&self, secret: &Digest, now: Instant) -> bool {
        let session = self.sessions.get(secret);
        session.is_some_and(|it| !it.has_ended(now))
    }

    /// Returns the number of open sessions of some owners.
    pub(super) fn count(&self, is_owner: impl Fn(&Identity) -> bool, now: Instant) -> usize {
        let open = self.sessions.values().filter(|it| !it.has_ended(now));
        open.filter(|it| is_owner(&it.owner)).count()
    }

    /// Ends a session.
    pub(super) fn close(&mut self, secret: &Digest) {
        self.sessions.remove(secret);
    }

    /// Adds a sign-in link. The oldest ones make place.
    pub(super) fn add_link(&mut self, secret: Digest, owner: Identity, now: Instant) {
        self.drop_old_links(now);
        if self.links.len() >= LINKS_MAX {
            let oldest = self.links.iter().min_by_key(|(_, it)| it.made);
            if let Some(secret) = oldest.map(|(secret, _)| secret.clone()) {
                self.links.remove(&secret);
            }
        }
        self.links.insert(secret, Link { owner, made: now });
    }

    /// Returns the user to whom a valid sign-in link was given.
    pub(super) fn owner_of_link(&mut self, secret: &Digest, now: Instant) -> Option<Identity> {
        self.drop_old_links(now);
        self.links.get(secret).map(|it| it.owner.clone())
    }

    /// Uses a sign-in link up.
    pub(super) fn take_link(&mut self, secret: &Digest, now: Instant) -> Option<Identity> {
        self.drop_old_links(now);
        self.links.remove(secret).map(|it| it.owner)
    }

    fn drop_old_links(&mut self, now: Instant) {
        let is_valid = |it: &Link| now.saturating_duration_since(it.made) < LINK_MAX;
        self.links.retain(|_, it| is_valid(it));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(number: u8) -> Digest {
        Digest::from([number; 32])
    }

    fn numbered(number: usize) -> Digest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Digest::from(bytes)
    }

    fn user(user: u32) -> Identity {
        let name = format!("user{user}");
        Identity::Local { user, name }
    }

    #[test]
    fn sessions_end_when_they_are_unused_and_after_their_total_time() {
        let start = Instant::now();
        let hours = |hours| start + Duration::from_hours(hours);
        for (used, asked, is_open) in [
            (&[][..], 11, true),
            (&[], 12, false),
            (&[11], 22, true),
            (&[11], 23, false),
            (
                &[
                    11, 22, 33, 44, 55, 66, 77, 88, 99, 110, 121, 132, 143, 154, 165,
                ],
                167,
                true,
            ),
            (
                &[
                    11, 22, 33, 44, 55, 66, 77, 88, 99, 110, 121, 132, 143, 154, 165,
                ],
                168,
                false,
            ),
        ] {
            let mut table = Table::default();
            table.open(secret(1), user(0), start);
            for hour in used {
                assert_eq!(table.find(&secret(1), hours(*hour)), Some(user(0)));
            }
            assert_eq!(table.is_open(&secret(1), hours(asked)), is_open);
            let found = table.find(&secret(1), hours(asked));
            assert_eq!(found.is_some(), is_open, "{used:?} {asked}");
            assert_eq!(table.sessions.is_empty(), !is_open);
        }
    }

    #[test]
    fn a_closed_session_and_an_unknown_one_have_no_owner() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.open(secret(1), user(0), now);
        assert_eq!(table.find(&secret(2), now), None);
        table.close(&secret(1));
        assert_eq!(table.find(&secret(1), now), None);
    }

    #[test]
    fn an_owner_with_many_sessions_ends_own_ones_only() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.open(secret(255), user(1), now);
        for number in 0..SESSIONS_PER_OWNER_MAX + 3 {
            let later = now + Duration::from_secs(number as u64 + 1);
            table.open(numbered(number), user(0), later);
        }
        assert_eq!(table.sessions.len(), SESSIONS_PER_OWNER_MAX + 1);
        assert!(table.is_open(&secret(255), now));
        assert!(!table.is_open(&numbered(2), now));
        assert!(table.is_open(&numbered(3), now));
    }

    #[test]
    fn the_number_of_sessions_and_links_is_bounded() {
        let (mut table, now) = (Table::default(), Instant::now());
        for number in 0..SESSIONS_MAX + 100 {
            let owner = user(u32::try_from(number).unwrap() / 8);
            table.open(numbered(number), owner.clone(), now);
            table.add_link(numbered(number), owner, now);
        }
        assert_eq!(table.sessions.len(), SESSIONS_MAX);
        assert_eq!(table.links.len(), LINKS_MAX);
    }

    #[test]
    fn a_link_is_valid_once_and_for_a_minute() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.add_link(secret(1), user(0), now);
        table.add_link(secret(2), user(1), now);
        let before = now + LINK_MAX.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(table.owner_of_link(&secret(1), before), Some(user(0)));
        assert_eq!(table.take_link(&secret(1), before), Some(user(0)));
        assert_eq!(table.take_link(&secret(1), before), None);
        assert_eq!(table.take_link(&secret(2), now + LINK_MAX), None);
    }

    #[test]
    fn the_rights_of_an_owner_follow_the_tokens() {
        let token = |name: &str, scope, number| Token {
            name: name.parse().unwrap(),
            scope,
            sha256: secret(number),
            created: None,
        };
        let owner = |number| Identity::Token {
            name: "robot".parse().unwrap(),
            sha256: secret(number),
        };
        let tokens = [
            token("other", Scope::Admin, 2),
            token("robot", Scope::Read, 1),
        ];
        for (owner, tokens, scope) in [
            (owner(1), &tokens[..], Some(Scope::Read)),
            (
                owner(1),
                &[token("robot", Scope::Admin, 1)],
                Some(Scope::Admin),
            ),
            // Removed, and added again with another secret.
            (owner(1), &tokens[..1], None),
            (owner(2), &tokens[..], None),
            (user(0), &[], Some(Scope::Admin)),
            (user(1000), &[], Some(Scope::Submit)),
        ] {
            assert_eq!(owner.scope(tokens), scope, "{owner:?}");
        }
        assert_eq!(owner(1).submitter(), "token:robot");
        assert_eq!(user(3).submitter(), "user3");
    }
}
