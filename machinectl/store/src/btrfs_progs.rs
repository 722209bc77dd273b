//! Which btrfs-progs are installed: older ones can lose data.

use std::fmt;
use std::time::Duration;

use sys::command;

/// The first ones that are known to lose nothing.
const FIRST_GOOD: Version = Version(6, 2);
/// More than printing a version takes.
const LIMIT: Duration = Duration::from_secs(10);

/// A version of btrfs-progs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The installed btrfs-progs can lose data when they receive a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "btrfs-progs {0} can lose data when they receive a compressed stream; install {FIRST_GOOD} or later"
)]
pub struct Outdated(Version);

/// Whether the installed btrfs-progs are too old; no when they cannot be asked.
pub fn outdated() -> Option<Outdated> {
    let mut call = command::prepare("btrfs");
    call.arg("--version");
    let text = command::run(call, LIMIT).ok()?;
    judge(&String::from_utf8_lossy(&text))
}

fn judge(text: &str) -> Option<Outdated> {
    let version = text.split_whitespace().find_map(version)?;
    (version < FIRST_GOOD).then_some(Outdated(version))
}

/// Reads `v6.2`, `v6.10.1` or `v6.2-rc1`.
fn version(word: &str) -> Option<Version> {
    let mut numbers = word.strip_prefix('v')?.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    Some(Version(major, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_first_good_one_is_told() {
        let cases = [
            ("btrfs-progs v6.2\n", None),
            ("btrfs-progs v6.1.3 \n", Some(Version(6, 1))),
            ("btrfs-progs v5.16.2\n", Some(Version(5, 16))),
            ("btrfs-progs v6.10.1\n-EXPERIMENTAL +ZSTD\n", None),
            ("btrfs-progs v6.0-rc1\n", Some(Version(6, 0))),
            ("something else entirely", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(judge(text), expected.map(Outdated), "{text}");
        }
    }
}
