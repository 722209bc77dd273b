//! The files of builds on their way into the object store.

use farm_core::archive::{Archive, Upload};
use farm_core::operation::Answer;
use farm_core::{Epoch, HostId, Lease};

use super::Tables;

/// The least time ahead that no pause has: the clock of the store was set back.
const AHEAD_MS: u64 = 20 * 60_000;

/// The files of a build that wait for the object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadRecord {
    /// The claim under which the build has ended.
    pub epoch: Epoch,
    /// The host that has the files.
    pub host: HostId,
    /// The time at which the build ended.
    pub ended_at: u64,
    /// The number of attempts.
    pub attempts: u64,
    /// The time from which on the next one may begin.
    pub due: u64,
}

impl Tables {
    /// Adds the upload of a build that has just ended.
    pub(super) fn add_upload(&mut self, now: u64, host: HostId, lease: Lease) {
        let record = UploadRecord {
            epoch: lease.epoch,
            host,
            ended_at: now,
            attempts: 0,
            due: now,
        };
        self.uploads.insert(lease.build, record);
    }

    pub(super) fn take_uploads(&mut self, now: u64, most: u64, taken_ms: u64) -> Answer {
        let is_ahead = |it: &UploadRecord| it.due > now + AHEAD_MS;
        let due = self
            .uploads
            .iter()
            .filter(|(_, it)| it.due <= now || is_ahead(it));
        let due = due.map(|(build, it)| (is_ahead(it), it.due, *build));
        let mut due: Vec<_> = due.collect();
        due.sort();
        due.truncate(usize::try_from(most).unwrap_or(usize::MAX));
        let mut taken = Vec::new();
        for (_, _, build) in due {
            let Some(record) = self.uploads.get_mut(&build) else {
                continue;
            };
            record.attempts += 1;
            record.due = now + taken_ms;
            taken.push(Upload {
                lease: Lease {
                    build,
                    epoch: record.epoch,
                },
                host: record.host,
                attempt: record.attempts,
                ended_ms: record.ended_at,
            });
        }
        taken.sort();
        Answer::Uploads(taken)
    }

    pub(super) fn defer_upload(&mut self, now: u64, upload: Upload, ms: u64) -> Answer {
        let record = self.uploads.get_mut(&upload.lease.build);
        let record = record.filter(|it| it.epoch == upload.lease.epoch);
        match record.filter(|it| it.attempts == upload.attempt) {
            Some(record) => {
                record.due = now + ms;
                Answer::Done
            }
            None => Answer::Stale,
        }
    }

    pub(super) fn archive(&mut self, lease: Lease, archive: Option<Archive>) -> Answer {
        let waiting = self.uploads.get(&lease.build);
        if waiting.is_some_and(|it| it.epoch == lease.epoch) {
            self.uploads.remove(&lease.build);
            self.archives.insert(lease.build, (lease.epoch, archive));
            return Answer::Done;
        }
        match self.archives.get(&lease.build) {
            Some((epoch, _)) if *epoch == lease.epoch => Answer::Done,
            _ => Answer::NotFound,
        }
    }
}
