//! Archives: the log and the artifacts of a build that has ended, in the object store of the farm.
//!
//! The result of a build and the wish to archive it are one transaction. A coordinator takes the upload,
//! asks the host for the files as for every transfer, puts each into the store under a name that no other
//! attempt has, and writes the archive last. So what an archive names is there and never changes, and an
//! attempt that is cut leaves objects that nobody reads.

use std::collections::BTreeMap;

use config::FileName;
use config::task::Digest;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::transfers::Wanted;
use crate::{HostId, Lease};

/// The folder of all archives. Those in it have the months of their builds as names.
pub const FOLDER: &str = "builds";
/// The time for which a coordinator has an upload alone, unless it extends that.
pub const TAKEN_MS: u64 = 120_000;
/// The first pause after an attempt that failed, and the most doublings of it.
const PAUSE_MS: u64 = 2_000;
const DOUBLINGS_MAX: u64 = 8;

/// An attempt to put the files of a build into the object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upload {
    /// The lease under which the build has ended.
    pub lease: Lease,
    /// The host that has the files.
    pub host: HostId,
    /// The number of the attempt, from 1 on.
    pub attempt: u64,
    /// The end of the build by the clock of the store, in milliseconds since 1970.
    pub ended_ms: u64,
}

impl Upload {
    /// Returns the pause after this attempt has failed.
    pub fn pause_ms(&self) -> u64 {
        PAUSE_MS << self.attempt.saturating_sub(1).min(DOUBLINGS_MAX)
    }

    /// Returns the folder of this attempt. No other one has it.
    pub fn folder(&self) -> String {
        let (month, build) = (month_of(self.ended_ms), self.lease.build);
        let (epoch, attempt) = (self.lease.epoch.0, self.attempt);
        format!("{FOLDER}/{month}/{build}-{epoch}-{attempt}")
    }
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// The store has confirmed all files.
    Stored(Archive),
    /// The host itself says that it does not have the build any more.
    Gone,
    /// Anything else has happened.
    Failed,
}

/// Returns the month of a time: `2026-11`.
fn month_of(ms: u64) -> String {
    let time = i64::try_from(ms).ok();
    let time = time.and_then(|it| Timestamp::from_millisecond(it).ok());
    let date = time.unwrap_or_default().to_zoned(TimeZone::UTC).date();
    format!("{:04}-{:02}", date.year(), date.month())
}

/// Returns the months of which archives are deleted: those that ended more than some whole months ago.
/// Folders with other names stay.
pub fn old_months(folders: Vec<String>, now_ms: u64, keep: u32) -> Vec<String> {
    let now = number_of(&month_of(now_ms)).unwrap_or_default();
    let is_old = |name: &String| number_of(name).is_some_and(|it| it + keep < now);
    folders.into_iter().filter(is_old).collect()
}

/// Returns the number of a month; `None` if the text names no month.
fn number_of(month: &str) -> Option<u32> {
    let (year, number) = month.split_once('-')?;
    let digits = |text: &str, length| {
        let is_number = text.len() == length && text.bytes().all(|it| it.is_ascii_digit());
        is_number.then(|| text.parse::<u32>().ok()).flatten()
    };
    let (year, number) = (digits(year, 4)?, digits(number, 2)?);
    (1..=12).contains(&number).then(|| year * 12 + number)
}

/// A file of a build that has ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum BuildFile {
    /// The log.
    Log,
    /// The list of artifacts, as the host has it.
    List,
    /// An artifact.
    Artifact(FileName),
}

impl BuildFile {
    /// Returns the order with which a host sends the file.
    pub fn wanted(&self, lease: Lease) -> Wanted {
        match self.clone() {
            Self::Log => Wanted::Log {
                lease,
                offset: 0,
                follow: false,
            },
            Self::List => Wanted::Artifacts { lease },
            Self::Artifact(name) => Wanted::Artifact { lease, name },
        }
    }

    /// Returns the file that a client wants.
    pub fn of(wanted: &Wanted) -> Option<Self> {
        match wanted {
            Wanted::Log { .. } => Some(Self::Log),
            Wanted::Artifacts { .. } => Some(Self::List),
            Wanted::Artifact { name, .. } => Some(Self::Artifact(name.clone())),
            Wanted::Provenance { .. } | Wanted::Image { .. } => None,
        }
    }

    /// Returns the name of the file in the folder of its archive.
    pub fn name(&self) -> String {
        match self {
            Self::Log => "log".to_owned(),
            Self::List => "artifacts.json".to_owned(),
            Self::Artifact(name) => format!("artifacts/{name}"),
        }
    }
}

/// A file in the object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedFile {
    /// The size.
    pub bytes: u64,
    /// The hash of the content.
    pub sha256: Digest,
    /// The type, as the host gave it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
}

/// The files of a build in the object store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// The folder.
    pub folder: String,
    /// The files by their names in it.
    pub files: BTreeMap<String, ArchivedFile>,
}

impl Archive {
    /// Returns a file with the name of its object.
    pub fn find(&self, file: &BuildFile) -> Option<(String, &ArchivedFile)> {
        let name = file.name();
        let found = self.files.get(&name)?;
        Some((format!("{}/{name}", self.folder), found))
    }
}

#[cfg(test)]
mod tests {
    use config::BuildId;

    use super::*;
    use crate::Epoch;

    fn upload(attempt: u64) -> Upload {
        Upload {
            lease: Lease {
                build: BuildId(42),
                epoch: Epoch(3),
            },
            host: HostId(1),
            attempt,
            // The last second of November 2026.
            ended_ms: 1_796_083_199_000,
        }
    }

    #[test]
    fn each_attempt_has_a_folder_in_the_month_of_its_build() {
        assert_eq!(upload(1).folder(), "builds/2026-11/42-3-1");
        assert_eq!(upload(2).folder(), "builds/2026-11/42-3-2");
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let pauses: Vec<_> = [1, 2, 3, 9, 10, 99]
            .map(|it| upload(it).pause_ms() / 1000)
            .into();
        assert_eq!(pauses, [2, 4, 8, 512, 512, 512]);
    }

    #[test]
    fn only_folders_of_old_months_are_old() {
        let old = |keep| {
            let names = [
                "2025-10", "2025-11", "2026-12", "2027-01", "2025-13", "backup", "2025-1",
            ];
            let names = names.map(str::to_owned).into();
            old_months(names, 1_796_083_200_000, keep)
        };
        assert_eq!(old(13), ["2025-10"]);
        assert_eq!(old(12), ["2025-10", "2025-11"]);
        assert!(old(14).is_empty());
    }

    #[test]
    fn a_file_is_found_by_what_a_client_wants() {
        let lease = upload(1).lease;
        let name: FileName = "log".parse().unwrap();
        let artifact = BuildFile::Artifact(name);
        for file in [BuildFile::Log, BuildFile::List, artifact.clone()] {
            assert_eq!(BuildFile::of(&file.wanted(lease)), Some(file));
        }
        let stored = ArchivedFile {
            bytes: 1,
            sha256: Digest::from([1; 32]),
            media_type: String::new(),
        };
        let archive = Archive {
            folder: "builds/2026-11/42-3-1".to_owned(),
            files: [("artifacts/log".to_owned(), stored.clone())].into(),
        };
        assert_eq!(archive.find(&BuildFile::Log), None);
        let found = archive.find(&artifact).unwrap();
        assert_eq!(
            found,
            ("builds/2026-11/42-3-1/artifacts/log".to_owned(), &stored)
        );
    }
}
