//! The rights of builds at caches.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names::CacheName;

/// The rights of a build at its cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// It gets entries.
    Read,
    /// It puts entries as well. They are published when it succeeds.
    Write,
}

impl CacheMode {
    const ALL: [(Self, &'static str); 2] = [(Self::Read, "read"), (Self::Write, "write")];
}

impl fmt::Display for CacheMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// The error of a text that is no [`CacheMode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`read` or `write` is expected")]
pub struct CacheModeError;

impl FromStr for CacheMode {
    type Err = CacheModeError;

    fn from_str(text: &str) -> Result<Self, CacheModeError> {
        let found = Self::ALL.iter().find(|(_, word)| *word == text);
        found.map(|(mode, _)| *mode).ok_or(CacheModeError)
    }
}

/// The use of a cache by a build, in its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheUse {
    /// The cache.
    pub name: CacheName,
    /// The rights.
    pub mode: CacheMode,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_words() {
        for (mode, word) in CacheMode::ALL {
            assert_eq!(mode.to_string(), word);
            assert_eq!(word.parse(), Ok(mode));
            let json = serde_json::to_string(&mode).unwrap();
            assert_eq!(json, format!("\"{word}\""));
        }
        assert_eq!("Write".parse::<CacheMode>(), Err(CacheModeError));
    }
}
