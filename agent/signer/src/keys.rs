//! The directory of a host's keys: the log of all keys, and the private key that signs.
//!
//! The log is the truth: a private key is in use if the log's newest entry says so, so that a
//! change takes effect when the log is replaced. Private keys belong to the signer's user, and
//! nobody else can read them.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::key::{KeyError, NewKey, PublicKey, SigningKey};
use crate::key_log::{KeyLog, LogError, RevokeError};

/// The log of the keys, in the directory.
pub const LOG: &str = "keys.json";
/// The extension of private keys.
const EXTENSION: &str = "pem";
/// The size limit of a private key's file, in bytes.
const KEY_BYTES_MAX: u64 = 4096;

/// The directory of a host's keys.
#[derive(Debug, Clone)]
pub struct KeyDirectory {
    path: PathBuf,
}

/// The key that signs, and the user to whom it belongs.
#[derive(Debug)]
pub struct ActiveKey {
    /// The public key.
    pub public: PublicKey,
    /// The user of the signer.
    pub user: u32,
    directory: File,
    path: PathBuf,
}

/// The reason for which the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// The directory has keys already.
    #[error("{0} has keys already; `buildhost-signer rotate` makes the next one")]
    Exists(PathBuf),
    /// The log cannot be used.
    #[error("cannot use {path}")]
    Log {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: LogError,
    },
    /// A private key cannot be used.
    #[error("cannot use {path}")]
    Key {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: KeyError,
    },
    /// A private key is not the one that the log names.
    #[error("{0} contains another key than the log says")]
    Other(PathBuf),
    /// A private key is readable by others than the signer's user.
    #[error(
        "{path} must belong to a user of the signer alone, with the mode 0400; it belongs to user {user} with the mode {mode:04o}"
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its owner.
        user: u32,
        /// Its mode.
        mode: u32,
    },
    /// A key cannot be revoked.
    #[error(transparent)]
    Revoke(#[from] RevokeError),
}

impl KeyDirectory {
    /// Returns the directory with this path, which need not exist.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Makes the directory and its first key, which belongs to `user`.
    ///
    /// # Errors
    /// The directory has keys already, or cannot be written.
    pub fn create(&self, user: u32, now: Timestamp) -> Result<PublicKey, KeysError> {
        fs::create_dir_all(&self.path).map_err(self.fault())?;
        // The signer's user passes through it.
        fs::set_permissions(&self.path, Permissions::from_mode(0o755)).map_err(self.fault())?;
        let _lock = self.lock()?;
        if self.path.join(LOG).exists() {
            return Err(KeysError::Exists(self.path.clone()));
        }
        let new = NewKey::generate().map_err(self.fault())?;
        self.write_key(&new, user)?;
        self.write_log(&KeyLog::new(&new.key, now).map_err(self.log_fault())?)?;
        Ok(*new.key.public())
    }

    /// Replaces the key that signs by a new one, and destroys it.
    ///
    /// # Errors
    /// The keys cannot be read or written.
    pub fn rotate(&self, now: Timestamp) -> Result<PublicKey, KeysError> {
        let _lock = self.lock()?;
        let (log, active) = (self.log()?, self.active()?);
        let old = active.open()?;
        let new = NewKey::generate().map_err(self.fault())?;
        self.write_key(&new, active.user)?;
        let log = log.add(&old, &new.key, now).map_err(self.log_fault())?;
        self.write_log(&log)?;
        self.destroy_others(new.key.public())?;
        Ok(*new.key.public())
    }

    /// Revokes an earlier key: nothing that it has signed is accepted any more.
    ///
    /// # Errors
    /// The log does not have the key, or it is the one that signs.
    pub fn revoke(&self, keyid: &str, reason: &str, now: Timestamp) -> Result<(), KeysError> {
        let _lock = self.lock()?;
        let log = self.log()?;
        log.check_revocation(keyid)?;
        let key = self.active()?.open()?;
        let log = log.revoke(&key, keyid, reason, now);
        self.write_log(&log.map_err(self.log_fault())?)
    }

    /// Reads the log.
    ///
    /// # Errors
    /// It cannot be read, or is not signed as it must be.
    pub fn log(&self) -> Result<KeyLog, KeysError> {
        let path = self.path.join(LOG);
        match sys::trusted::read_text(&path) {
            Ok(text) => KeyLog::parse(&text).map_err(self.log_fault()),
            Err(source) => Err(KeysError::File { path, source }),
        }
    }

    /// Returns the key that signs, without reading it.
    ///
    /// # Errors
    /// The log cannot be used, or the private key is missing or readable by others.
    pub fn active(&self) -> Result<ActiveKey, KeysError> {
        let log = self.log()?;
        let newest = log.newest().ok_or(LogError::Empty);
        let public = newest.map_err(self.log_fault())?.key;
        let path = self.path.join(name(&public));
        let fault = |source| KeysError::File {
            path: path.clone(),
            source,
        };
        let metadata = path.symlink_metadata().map_err(fault)?;
        let (user, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        if user == 0 || mode != 0o400 || !metadata.is_file() {
            return Err(KeysError::Permissions { path, user, mode });
        }
        let directory = sys::trusted::open(&self.path).map_err(fault)?;
        Ok(ActiveKey {
            public,
            user,
            directory,
            path,
        })
    }

    /// Locks the directory against other changes until the file is dropped.
    fn lock(&self) -> Result<File, KeysError> {
        let directory = sys::trusted::open(&self.path).map_err(self.fault())?;
        directory.lock().map_err(self.fault())?;
        Ok(directory)
    }

    fn write_key(&self, new: &NewKey, user: u32) -> Result<(), KeysError> {
        let path = self.path.join(name(new.key.public()));
        let write = || {
            sys::file::replace(&path, new.pem.as_bytes())?;
            chown(&path, Some(user), Some(user))?;
            fs::set_permissions(&path, Permissions::from_mode(0o400))?;
            sys::trusted::open(&path)?.sync_all()
        };
        write().map_err(|source| KeysError::File {
            path: path.clone(),
            source,
        })
    }

    fn write_log(&self, log: &KeyLog) -> Result<(), KeysError> {
        let path = self.path.join(LOG);
        let text = log.print().map_err(self.log_fault())?;
        let write = || {
            sys::file::replace(&path, text.as_bytes())?;
            // It is for everybody.
            fs::set_permissions(&path, Permissions::from_mode(0o644))
        };
        write().map_err(|source| KeysError::File {
            path: path.clone(),
            source,
        })
    }

    /// Deletes all private keys but one, also those that an interrupted change has left.
    fn destroy_others(&self, kept: &PublicKey) -> Result<(), KeysError> {
        let kept = self.path.join(name(kept));
        for path in sys::file::entries(&self.path).map_err(self.fault())? {
            if path.extension().is_some_and(|it| it == EXTENSION) && path != kept {
                fs::remove_file(&path).map_err(|source| KeysError::File { path, source })?;
            }
        }
        Ok(())
    }

    fn fault(&self) -> impl Fn(io::Error) -> KeysError {
        let path = self.path.clone();
        move |source| KeysError::File {
            path: path.clone(),
            source,
        }
    }

    fn log_fault(&self) -> impl Fn(LogError) -> KeysError {
        let path = self.path.join(LOG);
        move |source| KeysError::Log {
            path: path.clone(),
            source,
        }
    }
}

impl ActiveKey {
    /// Reads the private key. The kernel checks the permissions of the caller.
    ///
    /// # Errors
    /// It cannot be read, or is not the key of the log.
    pub fn open(&self) -> Result<SigningKey, KeysError> {
        let path = self.path.clone();
        let text = match self.read() {
            Ok(text) => text,
            Err(source) => return Err(KeysError::File { path, source }),
        };
        match SigningKey::from_pem(&text) {
            Ok(key) if *key.public() == self.public => Ok(key),
            Ok(_) => Err(KeysError::Other(path)),
            Err(source) => Err(KeysError::Key { path, source }),
        }
    }

    fn read(&self) -> io::Result<String> {
        let file = sys::untrusted::open_beneath(&self.directory, name(&self.public))?;
        io::read_to_string(io::Read::take(file, KEY_BYTES_MAX))
    }
}

/// Returns the name of the file of a private key.
fn name(key: &PublicKey) -> String {
    format!("{}.{EXTENSION}", key.id())
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: u32 = 1_899_999_999;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn private_keys(directory: &Path) -> Vec<PathBuf> {
        let mut paths = sys::file::entries(directory).unwrap();
        paths.retain(|path| path.extension().is_some_and(|it| it == EXTENSION));
        paths
    }

    #[test]
    #[ignore = "needs root: real btrfs, QEMU and network namespaces"]
    fn a_rotation_hands_over_to_a_new_key_and_destroys_the_old_one() {
        let directory = tempfile::tempdir().unwrap();
        let keys = KeyDirectory::new(&directory.path().join("keys"));
        let first = keys.create(USER, at(1)).unwrap();
        let active = keys.active().unwrap();
        assert_eq!((active.public, active.user), (first, USER));
        assert_eq!(active.open().unwrap().public(), &first);
        assert!(matches!(
            keys.create(USER, at(2)),
            Err(KeysError::Exists(_))
        ));
        // An interrupted rotation leaves a key that nothing uses.
        let stray = NewKey::generate().unwrap();
        keys.write_key(&stray, USER).unwrap();
        assert_eq!(keys.active().unwrap().public, first);

        let second = keys.rotate(at(3)).unwrap();
        assert_eq!(keys.active().unwrap().public, second);
        assert_eq!(private_keys(&keys.path).len(), 1);
        keys.revoke(&second.id(), "", at(4)).unwrap_err();
        keys.revoke(&first.id(), "lost", at(4)).unwrap();
        let log = keys.log().unwrap();
        assert_eq!(log.keys()[0].revoked.as_deref(), Some("lost"));
        keys.rotate(at(5)).unwrap();
    }

    #[test]
    #[ignore = "needs root: real btrfs, QEMU and network namespaces"]
    fn a_key_that_others_can_read_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let keys = KeyDirectory::new(directory.path());
        keys.create(USER, at(1)).unwrap();
        let path = private_keys(directory.path()).remove(0);
        let refused = || matches!(keys.active(), Err(KeysError::Permissions { .. }));
        assert!(!refused());
        fs::set_permissions(&path, Permissions::from_mode(0o440)).unwrap();
        assert!(refused());
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        chown(&path, Some(0), None).unwrap();
        assert!(refused());
        chown(&path, Some(USER), None).unwrap();
        let other = NewKey::generate().unwrap();
        sys::file::replace(&path, other.pem.as_bytes()).unwrap();
        chown(&path, Some(USER), Some(USER)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        let error = keys.active().unwrap().open().unwrap_err();
        assert!(matches!(error, KeysError::Other(_)), "{error}");
    }
}
