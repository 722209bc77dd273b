//! The files that one guest may fetch and put: a table of names, not a directory tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use config::FileName;
use tftpd::ErrorCode;

use super::request::{Refusal, RefusalCause};
use super::staging::{self, Destination, Quota, Quotas, Share};

/// A file that the guest may fetch.
#[derive(Debug, Clone)]
pub enum Offer {
    /// A few bytes, such as a manifest.
    Bytes(Arc<[u8]>),
    /// An open file. It is served even if another file replaces it under its name.
    File(Arc<File>),
    /// A file whose content may be provided later.
    Deferred(DeferredFile),
}

impl Offer {
    pub(super) fn size(&self) -> io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::Deferred(file) => Ok(file.content().map_or(0, |bytes| bytes.len() as u64)),
            Self::File(file) => Ok(file.metadata()?.len()),
        }
    }
}

/// A file whose content may be provided later. Until then it does not exist for the guest. Clones
/// denote the same file.
#[derive(Debug, Clone, Default)]
pub struct DeferredFile(Arc<OnceLock<Arc<[u8]>>>);

impl DeferredFile {
    fn content(&self) -> Option<Arc<[u8]>> {
        self.0.get().cloned()
    }

    /// Provides the content. Later calls have no effect.
    pub fn provide(&self, text: &str) {
        self.0.get_or_init(|| text.as_bytes().into());
    }
}

impl From<DeferredFile> for Offer {
    fn from(file: DeferredFile) -> Self {
        Self::Deferred(file)
    }
}

impl From<String> for Offer {
    fn from(text: String) -> Self {
        Self::Bytes(text.into_bytes().into())
    }
}

impl From<Vec<u8>> for Offer {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<Arc<File>> for Offer {
    fn from(file: Arc<File>) -> Self {
        Self::File(file)
    }
}

/// A name, or a prefix of names, under which the guest may put files.
#[derive(Debug)]
enum Acceptance {
    File { name: String, to: Destination },
    Directory { prefix: String, into: Destination },
}

/// The files that one guest may fetch and put.
#[derive(Debug)]
pub struct Namespace {
    offers: BTreeMap<String, Offer>,
    acceptances: Vec<Acceptance>,
    reserved: BTreeSet<String>,
    bytes_max: u64,
    files_max: usize,
}

impl Namespace {
    /// Creates an empty namespace. The guest may put at most `files_max` artifacts with
    /// `bytes_max` bytes in total: the files of directories, and those of
    /// [`Namespace::accept_artifacts`]. Each file also has its own size limit. Artifacts leave
    /// the space of the other files free, so that a guest can always report.
    pub fn new(bytes_max: u64, files_max: usize) -> Self {
        Self {
            offers: BTreeMap::new(),
            acceptances: Vec::new(),
            reserved: BTreeSet::new(),
            bytes_max,
            files_max,
        }
    }

    /// Offers a file under a name.
    pub fn offer(&mut self, name: &str, offer: impl Into<Offer>) {
        self.offers.insert(name.to_owned(), offer.into());
    }

    /// Accepts one file, which replaces `path` when it is complete.
    pub fn accept(&mut self, name: &str, path: PathBuf, size_max: u64) {
        self.accept_file(name, path, size_max, Share::Reports);
    }

    /// Accepts one file that holds artifacts, and counts among them.
    pub fn accept_artifacts(&mut self, name: &str, path: PathBuf, size_max: u64) {
        self.accept_file(name, path, size_max, Share::Artifacts);
    }

    fn accept_file(&mut self, name: &str, path: PathBuf, size_max: u64, share: Share) {
        self.acceptances.push(Acceptance::File {
            name: name.to_owned(),
            to: Destination {
                path,
                size_max,
                share,
            },
        });
    }

    /// Refuses a name that would be accepted otherwise, because it is the host's.
    pub fn reserve(&mut self, name: &str) {
        self.reserved.insert(name.to_owned());
    }

    /// Accepts files into a directory. Their names are `prefix` and a [`FileName`].
    pub fn accept_below(&mut self, prefix: &str, directory: PathBuf, size_max: u64) {
        self.acceptances.push(Acceptance::Directory {
            prefix: prefix.to_owned(),
            into: Destination {
                path: directory,
                size_max,
                share: Share::Artifacts,
            },
        });
    }

    /// Returns the quotas of the files that the guest puts.
    pub(super) fn quotas(&self) -> Quotas {
        let reports = self.acceptances.iter().filter_map(|it| match it {
            Acceptance::File { to, .. } if to.share == Share::Reports => Some(to.size_max),
            Acceptance::File { .. } | Acceptance::Directory { .. } => None,
        });
        let sizes: Vec<u64> = reports.collect();
        // Each may be put again: until then its earlier content is there as well.
        let bytes_max = sizes
            .iter()
            .fold(0u64, |sum, size| sum.saturating_add(size.saturating_mul(2)));
        Quotas {
            artifacts: Quota::new(self.bytes_max, self.files_max),
            reports: Quota::new(bytes_max, 2 * sizes.len()),
        }
    }

    /// Removes the incomplete files of a server that was killed.
    pub(super) fn sweep(&self) -> io::Result<()> {
        for acceptance in &self.acceptances {
            match acceptance {
                Acceptance::File { to, .. } => to.path.parent().map_or(Ok(()), staging::sweep)?,
                Acceptance::Directory { into, .. } => staging::sweep(&into.path)?,
            }
        }
        Ok(())
    }

    /// Returns the file to fetch under a name.
    pub(super) fn offered(&self, name: &str) -> Result<Offer, Refusal> {
        let missing = || Refusal::new(ErrorCode::FileNotFound, "there is no such file");
        match self.offers.get(name) {
            Some(Offer::Deferred(file)) => file.content().map(Offer::Bytes).ok_or_else(missing),
            Some(offer) => Ok(offer.clone()),
            None => Err(missing()),
        }
    }

    /// Returns the destination of a file that is put under a name.
    pub(super) fn destination(&self, name: &str) -> Result<Destination, Refusal> {
        let denied =
            |reason, cause| Err(Refusal::of_put(ErrorCode::AccessViolation, reason, cause));
        if self.reserved.contains(name) {
            let reason = "the name is reserved for a file of the host";
            return denied(reason, RefusalCause::ReservedName);
        }
        for acceptance in &self.acceptances {
            match acceptance {
                Acceptance::File { name: own, to } if own == name => return Ok(to.clone()),
                Acceptance::File { .. } => {}
                Acceptance::Directory { prefix, into } => {
                    let Some(rest) = name.strip_prefix(prefix.as_str()) else {
                        continue;
                    };
                    let Ok(file) = rest.parse::<FileName>() else {
                        let reason = "the name is not a valid file name";
                        return denied(reason, RefusalCause::InvalidName);
                    };
                    return Ok(Destination {
                        path: into.path.join(file),
                        ..into.clone()
                    });
                }
            }
        }
        let reason = "nothing may be put under this name";
        denied(reason, RefusalCause::UnknownName)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn namespace() -> Namespace {
        let mut namespace = Namespace::new(1000, 10);
        namespace.accept("log", "/builds/1/log".into(), 100);
        namespace.accept_artifacts("upload.tar", "/builds/1/upload.tar".into(), 1000);
        namespace.accept_below("artifacts/", "/builds/1/artifacts".into(), 500);
        namespace.reserve("artifacts/provenance.json");
        namespace
    }

    #[test]
    fn names_are_taken_as_they_are() {
        for name in ["a 1^2~3,4:5(6).rpm", "%2e%2e", "a\\..\\x", "-x", "\u{e4}"] {
            let destination = namespace()
                .destination(&format!("artifacts/{name}"))
                .unwrap();
            assert_eq!(
                destination.path,
                Path::new("/builds/1/artifacts").join(name)
            );
        }
    }

    #[test]
    fn artifacts_leave_the_space_of_reports_free() {
        let namespace = namespace();
        let quotas = namespace.quotas();
        let share = |name: &str| namespace.destination(name).unwrap().share;
        assert_eq!(share("artifacts/a"), Share::Artifacts);
        assert_eq!(share("upload.tar"), Share::Artifacts);
        assert_eq!(share("log"), Share::Reports);
        let limits = |share| quotas.of(share).lock().unwrap().limits();
        assert_eq!(limits(Share::Artifacts), (1000, 10));
        // The earlier content of a log that is put again is there until then.
        assert_eq!(limits(Share::Reports), (200, 2));
    }

    #[test]
    fn a_name_leads_to_its_destination_and_nowhere_else() {
        let destination = namespace().destination("artifacts/a_1.0.ipk").unwrap();
        assert_eq!(destination.path, Path::new("/builds/1/artifacts/a_1.0.ipk"));
        for name in [
            "",
            "logs",
            "/log",
            "./log",
            "artifacts",
            "artifacts/",
            "artifacts/../log",
            "artifacts/..",
            "artifacts/.x",
            "artifacts/provenance.json",
            "artifacts//x",
            "artifacts/a/b",
            "artifacts/a\nb",
            "artifacts/a\u{1b}[2J",
            "artifacts\\x",
            "../artifacts/x",
            "task.manifest",
        ] {
            let refusal = namespace().destination(name).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::AccessViolation, "{name}");
            assert!(!refusal.reason.contains('/'), "{}", refusal.reason);
        }
    }
}
