//! The hashes of contents, and the files that have their names.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The BLAKE3 hash of a content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ContentHash([u8; 32]);

impl ContentHash {
    /// Returns the path of the content with this hash, below the directory of a cache.
    pub(crate) fn path_below(self, contents: &Path) -> PathBuf {
        let name = self.to_string();
        contents.join(&name[..2]).join(&name[2..])
    }

    /// Returns the hash of a content, if a directory and a name below it are those of its path.
    pub(crate) fn of_path(directory: &str, name: &str) -> Option<Self> {
        let is_path = directory.len() == 2 && name.len() == 62;
        is_path.then(|| format!("{directory}{name}").parse().ok())?
    }
}

impl From<blake3::Hash> for ContentHash {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.into())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from(self.0).to_hex())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The error of a text that is no [`ContentHash`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a BLAKE3 hash in 64 lower-case hexadecimal digits is expected")]
pub(crate) struct ContentHashError;

impl FromStr for ContentHash {
    type Err = ContentHashError;

    fn from_str(text: &str) -> Result<Self, ContentHashError> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| ContentHashError)?;
        let hash = Self::from(hash);
        // One spelling, so that two files never have the same content.
        (hash.to_string() == text)
            .then_some(hash)
            .ok_or(ContentHashError)
    }
}

/// Returns the hash and the size of a file. Blocks.
pub(crate) fn hash_file(file: &File) -> io::Result<(ContentHash, u64)> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok((hasher.finalize().into(), hasher.count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_has_one_spelling_and_one_path() {
        let hash = ContentHash::from(blake3::hash(b"abc"));
        let text = hash.to_string();
        assert_eq!(text.parse(), Ok(hash));
        assert_eq!(
            text.to_uppercase().parse::<ContentHash>(),
            Err(ContentHashError)
        );
        assert_eq!(text[1..].parse::<ContentHash>(), Err(ContentHashError));
        let path = hash.path_below(Path::new("/c"));
        assert_eq!(path, Path::new("/c").join(&text[..2]).join(&text[2..]));
        assert_eq!(ContentHash::of_path(&text[..2], &text[2..]), Some(hash));
        for (directory, name) in [
            (&text[..3], &text[3..]),
            ("..", &text[2..]),
            ("ab", ".tmpx"),
        ] {
            assert_eq!(ContentHash::of_path(directory, name), None);
        }
    }
}
