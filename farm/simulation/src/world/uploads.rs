//! The logs of builds that have ended, on their way from hosts through coordinators into the object store.

use std::collections::BTreeMap;

use config::task::Digest;
use farm_core::Lease;
use farm_core::archive::{Archive, ArchivedFile, Attempt as End, BuildFile, Upload};
use farm_core::operation::{Answer, Operation, Unknown};

use super::{Call, Caller, Event, HOSTS, World};
use crate::Bug;

/// The time between two looks for uploads.
const LOOK_MS: u64 = 500;
/// The time for which a coordinator has an upload alone.
const TAKEN_MS: u64 = 6_000;
/// The time after which a file that does not come is given up.
const SEND_MS: u64 = 3_000;

/// An attempt of one process of a coordinator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    coordinator: usize,
    process: u64,
    upload: Upload,
}

/// A file that a host sends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sent {
    /// It has arrived.
    Whole(Content),
    /// The connection was cut after a part of it.
    Cut(Content),
    /// The host does not have it any more.
    Gone,
}

/// The content of a log: whose it is, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    host: usize,
    lease: Lease,
    bytes: u64,
}

/// The length of each log.
const LENGTH: u64 = 100;

impl Content {
    fn archived(self) -> ArchivedFile {
        let mut hash = [0; 32];
        hash[0] = u8::try_from(self.host).unwrap_or(u8::MAX);
        hash[1..9].copy_from_slice(&self.lease.build.0.to_le_bytes());
        hash[9..17].copy_from_slice(&self.lease.epoch.0.to_le_bytes());
        ArchivedFile {
            bytes: self.bytes,
            sha256: Digest::from(hash),
            media_type: String::new(),
        }
    }
}

/// The object store.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    objects: BTreeMap<String, Content>,
    pub(super) down_until: u64,
}

impl World {
    pub(super) fn coordinator_uploads(&mut self, coordinator: usize, process: u64) {
        let it = &self.coordinators[coordinator];
        if !it.up || it.process != process {
            return;
        }
        if self.coordinator_sleeps(coordinator, &Event::Uploads(coordinator, process)) {
            return;
        }
        self.after(LOOK_MS, Event::Uploads(coordinator, process));
        let call = self.own_call(coordinator, Caller::Uploads);
        let (most, taken_ms) = (2, TAKEN_MS);
        self.ask(call, Operation::TakeUploads { most, taken_ms });
    }

    pub(super) fn uploads_answer(&mut self, call: Call, answer: Result<Answer, Unknown>) {
        let Ok(Answer::Uploads(uploads)) = answer else {
            return;
        };
        for upload in uploads {
            let attempt = Attempt {
                coordinator: call.coordinator,
                process: call.process,
                upload,
            };
            self.coordinators[call.coordinator].uploads.insert(upload);
            self.after(SEND_MS, Event::UploadOver(attempt));
            let host = usize::try_from(upload.host.0).unwrap_or(HOSTS);
            if let Some(delay) = self.transit_between(host, call.coordinator) {
                self.after(delay, Event::UploadOrder(attempt));
            }
        }
    }

    /// Returns the delay of a message between a host and a coordinator, or `None` if it is lost.
    fn transit_between(&mut self, host: usize, coordinator: usize) -> Option<u64> {
        let delay = self.transit()?;
        (host < HOSTS && !self.is_host_cut(host, coordinator)).then_some(delay)
    }

    /// Lets a host send a log that a coordinator wants.
    pub(super) fn upload_order(&mut self, attempt: Attempt) {
        let lease = attempt.upload.lease;
        let host = usize::try_from(attempt.upload.host.0).unwrap_or(HOSTS);
        let Some(it) = self.hosts.get(host) else {
            return;
        };
        if it.agent.is_none() || it.is_frozen || it.paused_until > self.now {
            return;
        }
        let content = |bytes| Content { host, lease, bytes };
        let sent = if !it.disk.has_log(lease) {
            Sent::Gone
        } else if !self.is_calm() && self.rng.u32(0..6) == 0 {
            self.statistics.faults += 1;
            Sent::Cut(content(self.rng.u64(0..LENGTH)))
        } else {
            Sent::Whole(content(LENGTH))
        };
        if let Some(delay) = self.transit_between(host, attempt.coordinator) {
            self.after(delay, Event::UploadContent(attempt, sent));
        }
    }

    /// Passes a log on to the object store.
    pub(super) fn upload_content(&mut self, attempt: Attempt, sent: Sent) {
        if !self.is_under_way(attempt) {
            return;
        }
        let event = Event::UploadContent(attempt, sent);
        if self.coordinator_sleeps(attempt.coordinator, &event) {
            return;
        }
        let content = match sent {
            Sent::Gone => return self.upload_ends(attempt, End::Gone),
            Sent::Cut(content) if self.has(Bug::UploadTakesCut) => content,
            Sent::Cut(_) => return self.upload_ends(attempt, End::Failed),
            Sent::Whole(content) => content,
        };
        if let Some(delay) = self.transit() {
            self.after(delay, Event::UploadPut(attempt, content));
        }
        if self.has(Bug::ArchiveBeforePut) {
            self.upload_ends(attempt, End::Stored(archive(attempt.upload, content)));
        }
    }

    /// Stores an object. The coordinator may have died, and may not get the answer.
    pub(super) fn upload_put(&mut self, attempt: Attempt, content: Content) {
        if self.bucket.down_until > self.now {
            return;
        }
        let name = log_of(&attempt.upload.folder());
        self.say(|| format!("object store: {name} is there"));
        self.bucket.objects.insert(name, content);
        self.check_archives(attempt.upload.lease);
        if self.is_under_way(attempt) && self.transit().is_some() {
            self.upload_ends(attempt, End::Stored(archive(attempt.upload, content)));
        }
    }

    /// Gives an attempt up that has taken too long.
    pub(super) fn upload_over(&mut self, attempt: Attempt) {
        if self.is_under_way(attempt) {
            let is_lost = self.has(Bug::SilenceIsLoss);
            self.upload_ends(attempt, if is_lost { End::Gone } else { End::Failed });
        }
    }

    fn is_under_way(&self, attempt: Attempt) -> bool {
        let it = &self.coordinators[attempt.coordinator];
        it.up && it.process == attempt.process && it.uploads.contains(&attempt.upload)
    }

    fn upload_ends(&mut self, attempt: Attempt, end: End) {
        let it = &mut self.coordinators[attempt.coordinator];
        it.uploads.remove(&attempt.upload);
        self.say(|| format!("coordinator {}: {end:?}", attempt.coordinator));
        // An answer that gets lost costs nothing: the upload is due again.
        let call = self.own_call(attempt.coordinator, Caller::Uploads);
        self.ask(call, Operation::after(attempt.upload, end));
    }

    /// Checks the archive of a lease: what it names is there, and is what the host had.
    pub(super) fn check_archives(&mut self, lease: Lease) {
        let Some((_, archive)) = self.tables.archives.get(&lease.build) else {
            return;
        };
        let upload_host = self.tables.builds[&lease.build].host;
        let host = upload_host.and_then(|it| usize::try_from(it.0).ok());
        let Some(archive) = archive else {
            if host.is_some_and(|it| self.hosts[it].disk.has_log(lease)) {
                self.violate(format!("no log is lost that its host has: {lease}"));
            }
            return;
        };
        for (name, file) in &archive.files {
            let object = self
                .bucket
                .objects
                .get(&format!("{}/{name}", archive.folder));
            let truth = host.map(|host| Content {
                host,
                lease,
                bytes: LENGTH,
            });
            let is_right =
                object == truth.as_ref() && truth.map(Content::archived).as_ref() == Some(file);
            if !is_right {
                let message = format!("what an archive names is in the store: {lease}, {object:?}");
                return self.violate(message);
            }
        }
    }

    /// Returns true if the logs of all builds are in the object store, or lost with their hosts.
    pub(super) fn are_logs_archived(&self) -> bool {
        let mut uploads = self.tables.uploads.values();
        uploads.all(|it| {
            let host = usize::try_from(it.host.0).unwrap_or(HOSTS);
            self.hosts.get(host).is_none_or(|it| it.is_lost)
        })
    }
}

fn archive(upload: Upload, content: Content) -> Archive {
    Archive {
        folder: upload.folder(),
        files: [(BuildFile::Log.name(), content.archived())].into(),
    }
}

/// Returns the name of the log in a folder.
fn log_of(folder: &str) -> String {
    format!("{folder}/{}", BuildFile::Log.name())
}
