//! The log of a host's keys: which key signed until when, and which are revoked; pure.
//!
//! Each entry is an envelope that names the hash of the entry before it. An entry that adds a key
//! is signed by that key and by the one before it; other entries by the newest key. So a key
//! vouches for all entries before it and after it: to trust one key is to trust the log.

use config::task::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dsse::{Envelope, EnvelopeError};
use crate::key::{KeyError, PublicKey, SigningKey};

/// The media type of an entry.
const TYPE: &str = "application/vnd.buildhost.key+json";

/// A log whose signatures are valid, each by an earlier key of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLog {
    entries: Vec<Envelope>,
    keys: Vec<KnownKey>,
    last: Digest,
}

/// A key in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// The key.
    pub key: PublicKey,
    /// The time at which it was added.
    pub from: Timestamp,
    /// The time at which the next key was added.
    pub until: Option<Timestamp>,
    /// The reason for its revocation.
    pub revoked: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// The hash of the payload of the entry before it.
    previous: Option<Digest>,
    at: Timestamp,
    #[serde(flatten)]
    change: Change,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Change {
    /// Adds a key, in PEM.
    Add { public_key: String },
    /// Revokes a key.
    Revoke { keyid: String, reason: String },
}

/// The reason for which a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The log or an entry cannot be parsed.
    #[error("the log of keys cannot be parsed")]
    Syntax(#[from] serde_json::Error),
    /// The log has no entry.
    #[error("the log of keys is empty")]
    Empty,
    /// An entry is not signed by the key that must sign it.
    #[error("entry {0} of the log of keys")]
    Signature(usize, #[source] EnvelopeError),
    /// An entry contains an unusable key.
    #[error("entry {0} of the log of keys")]
    Key(usize, #[source] KeyError),
    /// An entry does not follow the entry before it.
    #[error("entry {0} of the log of keys does not follow the one before it")]
    Order(usize),
    /// An entry revokes an unknown or the newest key.
    #[error("entry {0} of the log of keys revokes a key that it cannot revoke")]
    Revocation(usize),
}

/// The reason for which a key cannot be revoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    /// The log has no such key.
    #[error("the log has no key {0}")]
    Unknown(String),
    /// The newest key must be replaced first.
    #[error("the key {0} is in use; `buildhost-signer rotate` replaces it first")]
    InUse(String),
}

impl KeyLog {
    /// Returns a log with its first key.
    ///
    /// # Errors
    /// The entry cannot be written.
    pub fn new(key: &SigningKey, now: Timestamp) -> Result<Self, LogError> {
        let public_key = key.public().to_pem();
        let first = entry(None, now, Change::Add { public_key }, &[key])?;
        Self::replay(vec![first])
    }

    /// Parses a log and checks its signatures.
    ///
    /// # Errors
    /// The log cannot be parsed, or an entry is not signed as it must be.
    pub fn parse(text: &str) -> Result<Self, LogError> {
        Self::replay(serde_json::from_str(text)?)
    }

    /// Returns the text that [`KeyLog::parse`] parses.
    ///
    /// # Errors
    /// None in practice.
    pub fn print(&self) -> Result<String, LogError> {
        Ok(format!(
            "{}\n",
            serde_json::to_string_pretty(&self.entries)?
        ))
    }

    /// Returns the log with a new key, which the newest key signs.
    ///
    /// # Errors
    /// `newest` is not the newest key.
    pub fn add(
        &self,
        newest: &SigningKey,
        key: &SigningKey,
        now: Timestamp,
    ) -> Result<Self, LogError> {
        let public_key = key.public().to_pem();
        self.append(now, Change::Add { public_key }, &[newest, key])
    }

    /// Returns the log with a revocation, which the newest key signs.
    ///
    /// # Errors
    /// `newest` is not the newest key, or the revoked one is, or the log does not have it.
    pub fn revoke(
        &self,
        newest: &SigningKey,
        keyid: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<Self, LogError> {
        let (keyid, reason) = (keyid.to_owned(), reason.to_owned());
        self.append(now, Change::Revoke { keyid, reason }, &[newest])
    }

    /// Returns true if a key can be revoked.
    ///
    /// # Errors
    /// The reason why not.
    pub fn check_revocation(&self, keyid: &str) -> Result<(), RevokeError> {
        if !self.keys.iter().any(|known| known.key.id() == keyid) {
            return Err(RevokeError::Unknown(keyid.to_owned()));
        }
        if self.newest().is_some_and(|known| known.key.id() == keyid) {
            return Err(RevokeError::InUse(keyid.to_owned()));
        }
        Ok(())
    }

    /// Returns all keys, oldest first.
    pub fn keys(&self) -> &[KnownKey] {
        &self.keys
    }

    /// Returns the newest key, which signs.
    pub fn newest(&self) -> Option<&KnownKey> {
        self.keys.last()
    }

    fn append(
        &self,
        now: Timestamp,
        change: Change,
        keys: &[&SigningKey],
    ) -> Result<Self, LogError> {
        let mut entries = self.entries.clone();
        entries.push(entry(Some(self.last.clone()), now, change, keys)?);
        Self::replay(entries)
    }

    fn replay(entries: Vec<Envelope>) -> Result<Self, LogError> {
        let mut keys: Vec<KnownKey> = Vec::new();
        let mut last = None;
        for (number, envelope) in (1..).zip(&entries) {
            let unverified = envelope
                .unverified(TYPE)
                .map_err(|error| LogError::Signature(number, error))?;
            let Entry {
                previous,
                at,
                change,
            } = serde_json::from_slice(&unverified)?;
            if previous != last || keys.last().is_some_and(|known| at < known.from) {
                return Err(LogError::Order(number));
            }
            let verify = |key: &PublicKey| {
                let verified = envelope.verify(TYPE, key).map(drop);
                verified.map_err(|error| LogError::Signature(number, error))
            };
            if let Some(newest) = keys.last() {
                verify(&newest.key)?;
            }
            match change {
                Change::Add { public_key } => {
                    let key = PublicKey::from_pem(&public_key)
                        .map_err(|error| LogError::Key(number, error))?;
                    verify(&key)?;
                    add(&mut keys, key, at);
                }
                Change::Revoke { keyid, reason } => {
                    revoke(&mut keys, &keyid, reason).ok_or(LogError::Revocation(number))?;
                }
            }
            last = Some(sys::file::digest_of(&unverified));
        }
        let last = last.ok_or(LogError::Empty)?;
        Ok(Self {
            entries,
            keys,
            last,
        })
    }
}

fn entry(
    previous: Option<Digest>,
    at: Timestamp,
    change: Change,
    keys: &[&SigningKey],
) -> Result<Envelope, LogError> {
    let entry = Entry {
        previous,
        at,
        change,
    };
    Ok(Envelope::sign(TYPE, &serde_json::to_vec(&entry)?, keys))
}

fn add(keys: &mut Vec<KnownKey>, key: PublicKey, at: Timestamp) {
    if let Some(newest) = keys.last_mut() {
        newest.until = Some(at);
    }
    keys.push(KnownKey {
        key,
        from: at,
        until: None,
        revoked: None,
    });
}

/// Marks a key, which may not be the newest one.
fn revoke(keys: &mut [KnownKey], keyid: &str, reason: String) -> Option<()> {
    let (_, older) = keys.split_last_mut()?;
    let known = older.iter_mut().find(|known| known.key.id() == keyid)?;
    known.revoked = Some(reason);
    Some(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A log of the keys 1 to 3, of which the first is revoked.
    fn log() -> KeyLog {
        let log = KeyLog::new(&key(1), at(1)).unwrap();
        let log = log.add(&key(1), &key(2), at(2)).unwrap();
        let revoked = key(1).public().id();
        let log = log.revoke(&key(2), &revoked, "stolen", at(3)).unwrap();
        log.add(&key(2), &key(3), at(4)).unwrap()
    }

    #[test]
    fn a_log_says_until_when_each_key_signed_and_which_are_revoked() {
        let log = KeyLog::parse(&log().print().unwrap()).unwrap();
        let keys: Vec<_> = log
            .keys()
            .iter()
            .map(|it| (it.key, it.from, it.until, it.revoked.as_deref()))
            .collect();
        let public = |seed| *key(seed).public();
        assert_eq!(
            keys,
            [
                (public(1), at(1), Some(at(2)), Some("stolen")),
                (public(2), at(2), Some(at(4)), None),
                (public(3), at(4), None, None),
            ]
        );
        insta::assert_snapshot!(log.print().unwrap());
    }

    #[test]
    fn entries_cannot_be_removed_moved_or_taken_from_another_log() {
        let whole = log();
        let replay = |change: &dyn Fn(&mut Vec<Envelope>)| {
            let mut entries = whole.entries.clone();
            change(&mut entries);
            KeyLog::replay(entries)
        };
        replay(&|_| {}).unwrap();
        replay(&|entries| entries.truncate(0)).unwrap_err();
        for index in 0..3 {
            replay(&|entries| drop(entries.remove(index))).unwrap_err();
            replay(&|entries| entries.swap(index, index + 1)).unwrap_err();
        }
        let other = KeyLog::new(&key(9), at(1)).unwrap();
        replay(&|entries| entries[0] = other.entries[0].clone()).unwrap_err();
    }

    #[test]
    fn only_the_newest_key_changes_the_log() {
        let log = log();
        for older in [1, 2] {
            log.add(&key(older), &key(5), at(5)).unwrap_err();
            let keyid = key(2).public().id();
            log.revoke(&key(older), &keyid, "", at(5)).unwrap_err();
        }
        let keyid = key(3).public().id();
        log.revoke(&key(3), &keyid, "", at(5)).unwrap_err();
        let error = log.check_revocation(&keyid).unwrap_err();
        assert_eq!(error, RevokeError::InUse(keyid));
        let error = log.check_revocation("0").unwrap_err();
        assert_eq!(error, RevokeError::Unknown("0".into()));
        log.check_revocation(&key(2).public().id()).unwrap();
        log.add(&key(3), &key(5), at(3)).unwrap_err();
    }
}
