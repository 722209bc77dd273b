//! The version of the installed btrfs-progs. Old versions can lose data.

use std::fmt;
use std::time::Duration;

use sys::command;

/// The first version without known losses of data.
const VERSION_MIN: Version = Version(6, 2);
/// The time limit for `btrfs --version`.
const LIMIT: Duration = Duration::from_secs(10);

/// A version of btrfs-progs: major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// Returns true if the version is older than the first one that loses no data.
    pub fn is_outdated(self) -> bool {
        self < VERSION_MIN
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The warning that the installed btrfs-progs can lose data of a received stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "btrfs-progs {0} can lose data when they receive a compressed stream; install {VERSION_MIN} or later"
)]
pub struct Outdated(Version);

/// The file with the highest version of the stream format that the kernel writes, and without which
/// it knows version 1 only.
const KERNEL_STREAM_VERSION: &str = "/sys/fs/btrfs/features/send_stream_version";

/// Returns the highest version of the stream format, of 1 and 2, that both the kernel and the
/// installed btrfs-progs can write and receive.
pub fn stream_version() -> u32 {
    let kernel = sys::trusted::read_text(KERNEL_STREAM_VERSION);
    let kernel = kernel.ok().and_then(|it| it.trim().parse::<u32>().ok());
    let are_current = installed().is_some_and(|it| !it.is_outdated());
    if are_current && kernel.is_some_and(|it| it >= 2) {
        2
    } else {
        1
    }
}

/// Returns a warning if the installed btrfs-progs are too old.
pub fn outdated() -> Option<Outdated> {
    installed().filter(|it| it.is_outdated()).map(Outdated)
}

/// Returns the installed version; `None` if it cannot be determined.
pub fn installed() -> Option<Version> {
    let mut btrfs = command::prepare("btrfs");
    btrfs.arg("--version");
    let output = command::run(btrfs, LIMIT).ok()?;
    parse(&String::from_utf8_lossy(&output))
}

/// Parses the output of `btrfs --version`.
fn parse(output: &str) -> Option<Version> {
    output.split_whitespace().find_map(parse_word)
}

/// Parses `v6.2`, `v6.10.1` or `v6.2-rc1`.
fn parse_word(word: &str) -> Option<Version> {
    let mut numbers = word.strip_prefix('v')?.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    Some(Version(major, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_before_the_minimum_are_outdated() {
        let cases = [
            ("btrfs-progs v6.2\n", Some((6, 2)), false),
            ("btrfs-progs v6.1.3 \n", Some((6, 1)), true),
            ("btrfs-progs v5.16.2\n", Some((5, 16)), true),
            (
                "btrfs-progs v6.10.1\n-EXPERIMENTAL +ZSTD\n",
                Some((6, 10)),
                false,
            ),
            ("btrfs-progs v6.0-rc1\n", Some((6, 0)), true),
            ("something else entirely", None, false),
            ("", None, false),
        ];
        for (output, expected, outdated) in cases {
            let version = parse(output);
            assert_eq!(version.map(|it| (it.0, it.1)), expected, "{output}");
            assert_eq!(
                version.is_some_and(Version::is_outdated),
                outdated,
                "{output}"
            );
        }
    }
}
