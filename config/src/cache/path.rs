//! The paths of entries in a cache.

use std::fmt;
use std::str::FromStr;

use crate::names::is_control;
use crate::newtype::text_newtype;

/// The largest size of a path, in bytes.
const PATH_BYTES_MAX: usize = 1024;
/// The largest size of one of its parts, in bytes: that of a file's name.
const PART_BYTES_MAX: usize = 255;

/// A top directory of a cache. It decides what a build may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// Downloads, such as BitBake's `DL_DIR`: a name has one content for ever.
    Downloads,
    /// BitBake's shared state: a name has one content as long as it is kept.
    SharedState,
    /// The objects of compiler caches, which replace some of their entries.
    Objects,
}

impl Area {
    /// All areas with their directories.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Downloads, "downloads"),
        (Self::SharedState, "sstate-cache"),
        (Self::Objects, "objects"),
    ];

    /// Returns the name of the directory.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Downloads => "downloads",
            Self::SharedState => "sstate-cache",
            Self::Objects => "objects",
        }
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.directory())
    }
}

/// The error of a text that is no [`CachePath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CachePathError {
    /// It does not begin with an area.
    #[error("a path begins with `downloads/`, `sstate-cache/` or `objects/`")]
    Area,
    /// It is too long.
    #[error("a path has at most {PATH_BYTES_MAX} bytes, and each of its parts {PART_BYTES_MAX}")]
    Long,
    /// A part is empty or stands for a directory.
    #[error("no part of a path is empty, `.` or `..`")]
    Part,
    /// A character is not allowed.
    #[error("a path has no control characters, and is UTF-8")]
    Character,
}

text_newtype!(
    /// The path of an entry in a cache, such as `downloads/hello-1.0.tar.gz`. It is a name, and never
    /// a path of the host.
    CachePath,
    CachePathError
);

impl CachePath {
    /// Returns the area of the entry.
    pub fn area(&self) -> Area {
        // The parser accepts no other path.
        area(&self.0).map_or(Area::Objects, |(area, _)| area)
    }
}

/// Returns the area of a path, and the rest.
fn area(text: &str) -> Option<(Area, &str)> {
    let (directory, rest) = text.split_once('/')?;
    let found = Area::ALL.iter().find(|(_, known)| *known == directory);
    found.map(|(area, _)| (*area, rest))
}

impl FromStr for CachePath {
    type Err = CachePathError;

    fn from_str(text: &str) -> Result<Self, CachePathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(CachePathError::Long);
        }
        let (_, rest) = area(text).ok_or(CachePathError::Area)?;
        for part in rest.split('/') {
            match part {
                "" | "." | ".." => return Err(CachePathError::Part),
                part if part.len() > PART_BYTES_MAX => return Err(CachePathError::Long),
                _ => {}
            }
        }
        let is_forbidden = |c: char| is_control(c) || c == char::REPLACEMENT_CHARACTER;
        if rest.contains(is_forbidden) {
            return Err(CachePathError::Character);
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_names_of_bitbake_and_of_compiler_caches_are_paths() {
        for (text, area) in [
            ("downloads/hello-1.0.tar.gz", Area::Downloads),
            (
                "downloads/git2/git.example.org.hello.git.tar.gz",
                Area::Downloads,
            ),
            (
                "sstate-cache/universal/0a/1b/sstate:m4-native:x86_64-linux:1.4.19:r0:x86_64:11:0a1b_populate_sysroot.tar.zst.siginfo",
                Area::SharedState,
            ),
            ("objects/ccache/ab/cdef+~=1", Area::Objects),
            ("objects/ac/.hidden", Area::Objects),
        ] {
            let path: CachePath = text.parse().unwrap();
            assert_eq!((path.as_str(), path.area()), (text, area));
        }
    }

    #[test]
    fn other_texts_are_refused_with_a_reason() {
        let long_part = format!("objects/{}", "x".repeat(256));
        let long_path = format!("objects{}", "/x".repeat(600));
        for (text, expected) in [
            ("", CachePathError::Area),
            ("downloads", CachePathError::Area),
            ("/downloads/x", CachePathError::Area),
            ("Downloads/x", CachePathError::Area),
            ("../downloads/x", CachePathError::Area),
            ("blobs/x", CachePathError::Area),
            ("downloads/", CachePathError::Part),
            ("downloads//x", CachePathError::Part),
            ("downloads/x/", CachePathError::Part),
            ("downloads/../x", CachePathError::Part),
            ("downloads/x/..", CachePathError::Part),
            ("downloads/./x", CachePathError::Part),
            ("downloads/a\nb", CachePathError::Character),
            ("downloads/a\0b", CachePathError::Character),
            ("downloads/a\u{202e}b", CachePathError::Character),
            ("downloads/a\u{fffd}b", CachePathError::Character),
            (long_part.as_str(), CachePathError::Long),
            (long_path.as_str(), CachePathError::Long),
        ] {
            assert_eq!(text.parse::<CachePath>(), Err(expected), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_path_stays_below_its_area(text in "(downloads|objects|x)?[/.a:\u{0}-]{0,12}") {
            if let Ok(path) = text.parse::<CachePath>() {
                prop_assert_eq!(path.as_str(), &text);
                let below = std::path::Path::new(&text).components().skip(1);
                let mut depth = 0;
                for component in below {
                    prop_assert!(matches!(component, std::path::Component::Normal(_)));
                    depth += 1;
                }
                prop_assert!(depth > 0 && !text.contains('\0'));
                prop_assert!(text.starts_with(path.area().directory()));
            }
        }
    }
}
