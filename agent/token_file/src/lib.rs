//! The file of a host's tokens, which the command line and the agent change under the same lock.
//!
//! It has the hashes of secrets only, is replaced as a whole, and is read again by the agent when it
//! changes.

use std::io;
use std::path::{Path, PathBuf};

use config::task::Digest;
use config::tokens::{self, CreatedToken, NewToken, Token, TokenError, TokenName, TokenSecret};
use jiff::Timestamp;

/// The beginning of every secret, by which leaked secrets are recognized.
const PREFIX: &str = "buildhost_";
/// The largest number of tokens.
const TOKENS_MAX: usize = 10_000;

/// The file of a host's tokens. All functions block.
#[derive(Debug, Clone)]
pub struct TokenFile {
    path: PathBuf,
}

/// The reason for which a token cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// There is no such token.
    #[error("there is no token {0}; `buildhost token list` shows all tokens")]
    Missing(TokenName),
    /// A token of this name exists.
    #[error("token {0} exists already")]
    Exists(TokenName),
    /// There are too many tokens.
    #[error("there are {TOKENS_MAX} tokens already, the maximum; remove some")]
    Full,
    /// The file has a fault.
    #[error("cannot use {}: {fault}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The fault.
        fault: TokenError,
    },
    /// A file cannot be read or written.
    #[error("cannot use {}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The failure.
        error: io::Error,
    },
}

/// The effect of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The file is changed.
    Change,
    /// The same errors are found, and nothing is written.
    DryRun,
}

impl TokenFile {
    /// Names the file, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Returns the tokens. A missing file has none.
    ///
    /// # Errors
    /// The file cannot be read or has a fault.
    pub fn read(&self) -> Result<Vec<Token>, TokenFileError> {
        match sys::trusted::read_text(&self.path) {
            Ok(text) => tokens::parse(&text).map_err(|fault| TokenFileError::Content {
                path: self.path.clone(),
                fault,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed(&self.path)(error)),
        }
    }

    /// Adds a token with a new secret.
    ///
    /// # Errors
    /// A token of this name exists, or the file cannot be changed.
    pub fn add(
        &self,
        new: NewToken,
        now: Timestamp,
        mode: Mode,
    ) -> Result<CreatedToken, TokenFileError> {
        let secret = draw_secret().map_err(failed(&self.path))?;
        let NewToken { name, scope } = new;
        let token = Token {
            name: name.clone(),
            scope,
            sha256: sys::file::digest_of(secret.as_str().as_bytes()),
            created: Some(whole_second(now)),
        };
        self.change(mode, |tokens| {
            if tokens.iter().any(|other| other.name == token.name) {
                return Err(TokenFileError::Exists(token.name));
            }
            if tokens.len() >= TOKENS_MAX {
                return Err(TokenFileError::Full);
            }
            tokens.push(token);
            Ok(())
        })?;
        Ok(CreatedToken {
            name,
            scope,
            secret,
        })
    }

    /// Removes a token.
    ///
    /// # Errors
    /// There is no such token, or the file cannot be changed.
    pub fn remove(&self, name: &TokenName, mode: Mode) -> Result<(), TokenFileError> {
        self.change(mode, |tokens| {
            let before = tokens.len();
            tokens.retain(|token| token.name != *name);
            if tokens.len() < before {
                Ok(())
            } else {
                Err(TokenFileError::Missing(name.clone()))
            }
        })
    }

    /// Changes the file atomically, under a lock on its directory.
    fn change(
        &self,
        mode: Mode,
        change: impl FnOnce(&mut Vec<Token>) -> Result<(), TokenFileError>,
    ) -> Result<(), TokenFileError> {
        if mode == Mode::DryRun {
            return change(&mut self.read()?);
        }
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(directory).map_err(failed(directory))?;
        let lock = sys::trusted::open(directory).map_err(failed(directory))?;
        lock.lock().map_err(failed(directory))?;
        let mut tokens = self.read()?;
        change(&mut tokens)?;
        let text = tokens::print(&tokens);
        sys::file::replace(&self.path, text.as_bytes()).map_err(failed(&self.path))
    }
}

/// Returns a time without its fraction of a second.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn draw_secret() -> io::Result<TokenSecret> {
    Ok(format!("{PREFIX}{}", Digest::from(sys::random::bytes()?)).into())
}

fn failed(path: &Path) -> impl Fn(io::Error) -> TokenFileError {
    let path = path.to_owned();
    move |error| TokenFileError::File {
        path: path.clone(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use config::tokens::Scope;

    use super::*;

    fn new(name: &str) -> NewToken {
        NewToken {
            name: name.parse().unwrap(),
            scope: Scope::Submit,
        }
    }

    #[test]
    fn a_token_is_added_once_and_removed_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = TokenFile::new(directory.path().join("new/tokens"));
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(file.read().unwrap(), []);
        file.add(new("a"), now, Mode::DryRun).unwrap();
        assert_eq!(file.read().unwrap(), []);
        let created = file.add(new("a"), now, Mode::Change).unwrap();
        let secret = created.secret.as_str();
        assert!(secret.starts_with("buildhost_") && secret.len() == 74);
        for mode in [Mode::DryRun, Mode::Change] {
            let again = file.add(new("a"), now, mode).unwrap_err();
            assert!(matches!(again, TokenFileError::Exists(_)));
        }
        let [token] = &file.read().unwrap()[..] else {
            panic!("one token")
        };
        assert_eq!(token.sha256, sys::file::digest_of(secret.as_bytes()));
        assert_eq!(token.created, Some(now));
        file.remove(&token.name, Mode::DryRun).unwrap();
        file.remove(&token.name, Mode::Change).unwrap();
        let again = file.remove(&token.name, Mode::Change).unwrap_err();
        assert!(matches!(again, TokenFileError::Missing(_)));
    }

    #[test]
    fn changes_at_the_same_time_are_all_kept() {
        let directory = tempfile::tempdir().unwrap();
        let file = TokenFile::new(directory.path().join("tokens"));
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (file, name) = (&file, format!("t{number}"));
                let add = move || file.add(new(&name), Timestamp::UNIX_EPOCH, Mode::Change);
                scope.spawn(move || add().unwrap());
            }
        });
        assert_eq!(file.read().unwrap().len(), 8);
    }

    #[test]
    fn a_file_with_a_fault_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        sys::file::replace(&path, b"nonsense\n").unwrap();
        let file = TokenFile::new(path.clone());
        let refused = file.add(new("a"), Timestamp::UNIX_EPOCH, Mode::Change);
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("tokens: line 1"), "{text}");
        assert_eq!(sys::trusted::read_text(&path).unwrap(), "nonsense\n");
    }
}
