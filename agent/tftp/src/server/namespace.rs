//! What one guest may fetch and put: a map of names, not a directory tree.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use tftpd::ErrorCode;

use config::FileName;

use super::request::Refusal;
use super::staging;

/// Something that may be fetched.
#[derive(Debug, Clone)]
pub enum Offer {
    /// A few bytes, such as a manifest.
    Bytes(Arc<[u8]>),
    /// A file, open: it stays what it is when its name is given to another.
    File(Arc<File>),
    /// Something that is not there yet, perhaps.
    Deferred(DeferredFile),
}

impl Offer {
    /// Opens a file of a directory for offering. A link is followed when it stays
    /// in the directory.
    ///
    /// # Errors
    /// When there is none, it is not a regular file, or a link leads elsewhere.
    pub fn open(directory: &Path, name: &str) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = openat(CWD, directory, flags | OFlags::DIRECTORY, Mode::empty())?;
        // Without NONBLOCK the opening of a pipe would wait for its writer.
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = File::from(openat2(&directory, name, flags, Mode::empty(), resolve)?);
        if file.metadata()?.is_file() {
            Ok(Self::File(Arc::new(file)))
        } else {
            Err(io::Error::other("it is not a regular file"))
        }
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::Deferred(deferred) => Ok(deferred.text().map_or(0, |text| text.len() as u64)),
            Self::File(file) => Ok(file.metadata()?.len()),
        }
    }
}

/// A text that may be given later; clones are of the same one.
#[derive(Debug, Clone, Default)]
pub struct DeferredFile(Arc<OnceLock<Arc<[u8]>>>);

impl DeferredFile {
    fn text(&self) -> Option<Arc<[u8]>> {
        self.0.get().cloned()
    }

    /// Gives the text, once.
    pub fn provide(&self, text: &str) {
        self.0.get_or_init(|| text.as_bytes().into());
    }
}

impl From<DeferredFile> for Offer {
    fn from(deferred: DeferredFile) -> Self {
        Self::Deferred(deferred)
    }
}

impl From<String> for Offer {
    fn from(text: String) -> Self {
        Self::Bytes(text.into_bytes().into())
    }
}

/// Where something that is put goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) path: PathBuf,
    pub(super) size_max: u64,
}

#[derive(Debug)]
enum Place {
    One { name: String, to: Destination },
    Many { prefix: String, into: Destination },
}

/// What one guest may fetch and put.
#[derive(Debug)]
pub struct Namespace {
    offers: BTreeMap<String, Offer>,
    places: Vec<Place>,
    pub(super) bytes_max: u64,
    pub(super) files_max: usize,
}

impl Namespace {
    /// An empty namespace. What is put into all places together may have `bytes_max`
    /// bytes in `files_max` files; every place has a limit of its own besides.
    pub fn new(bytes_max: u64, files_max: usize) -> Self {
        Self {
            offers: BTreeMap::new(),
            places: Vec::new(),
            bytes_max,
            files_max,
        }
    }

    /// Offers something under a name.
    pub fn offer(&mut self, name: &str, offer: impl Into<Offer>) {
        self.offers.insert(name.to_owned(), offer.into());
    }

    /// Removes what a server that was killed has left half in the places of this namespace.
    pub(super) fn sweep(&self) -> io::Result<()> {
        for place in &self.places {
            match place {
                Place::One { to, .. } => to.path.parent().map_or(Ok(()), staging::sweep)?,
                Place::Many { into, .. } => staging::sweep(&into.path)?,
            }
        }
        Ok(())
    }

    /// Lets one file be put; it replaces `path` when it is complete.
    pub fn accept(&mut self, name: &str, path: PathBuf, size_max: u64) {
        self.places.push(Place::One {
            name: name.to_owned(),
            to: Destination { path, size_max },
        });
    }

    /// Lets files be put into a directory, as `prefix` and a [`FileName`].
    pub fn accept_below(&mut self, prefix: &str, directory: PathBuf, size_max: u64) {
        self.places.push(Place::Many {
            prefix: prefix.to_owned(),
            into: Destination {
                path: directory,
                size_max,
            },
        });
    }

    pub(super) fn find(&self, name: &str) -> Result<Offer, Refusal> {
        let missing = || Refusal::new(ErrorCode::FileNotFound, "there is no such file");
        match self.offers.get(name) {
            Some(Offer::Deferred(deferred)) => {
                deferred.text().map(Offer::Bytes).ok_or_else(missing)
            }
            Some(offer) => Ok(offer.clone()),
            None => Err(missing()),
        }
    }

    pub(super) fn place(&self, name: &str) -> Result<Destination, Refusal> {
        let denied = |reason: &str| Refusal::new(ErrorCode::AccessViolation, reason);
        for place in &self.places {
            match place {
                Place::One { name: wanted, to } if wanted == name => return Ok(to.clone()),
                Place::One { .. } => {}
                Place::Many { prefix, into } => {
                    let Some(rest) = name.strip_prefix(prefix.as_str()) else {
                        continue;
                    };
                    let file: FileName = rest
                        .parse()
                        .map_err(|_| denied("that cannot be the name of a file"))?;
                    return Ok(Destination {
                        path: into.path.join(file),
                        size_max: into.size_max,
                    });
                }
            }
        }
        Err(denied("nothing may be put under this name"))
    }
}

impl From<Arc<File>> for Offer {
    fn from(file: Arc<File>) -> Self {
        Self::File(file)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn namespace() -> Namespace {
        let mut namespace = Namespace::new(1000, 10);
        namespace.accept("log", "/builds/1/log".into(), 100);
        namespace.accept_below("artifacts/", "/builds/1/artifacts".into(), 500);
        namespace
    }

    #[test]
    fn a_name_leads_to_its_place_and_nowhere_else() {
        let place = namespace().place("artifacts/a_1.0.ipk").unwrap();
        assert_eq!(place.path, Path::new("/builds/1/artifacts/a_1.0.ipk"));
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
            "artifacts//x",
            "artifacts/a/b",
            "artifacts/%2e%2e",
            "artifacts\\x",
            "../artifacts/x",
            "task.manifest",
        ] {
            let refusal = namespace().place(name).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::AccessViolation, "{name}");
            assert!(!refusal.reason.contains('/'), "{}", refusal.reason);
        }
    }

    #[test]
    fn only_files_and_links_inside_their_directory_can_be_offered() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        File::create(path("tools-1.tar")).unwrap();
        fs::create_dir(path("deep")).unwrap();
        File::create(path("deep/x")).unwrap();
        symlink("tools-1.tar", path("tools.tar")).unwrap();
        symlink("deep/x", path("x")).unwrap();
        symlink("/etc/passwd", path("absolute")).unwrap();
        symlink("../../etc/passwd", path("relative")).unwrap();
        symlink("/proc/self/exe", path("magic")).unwrap();
        symlink("loop", path("loop")).unwrap();
        rustix::fs::mkfifoat(CWD, path("pipe"), Mode::RUSR).unwrap();
        let mut namespace = Namespace::new(0, 0);
        let mut refused = Vec::new();
        for entry in sys::file::entries(directory.path()).unwrap() {
            let name = entry.file_name().unwrap().to_str().unwrap();
            match Offer::open(directory.path(), name) {
                Ok(offer) => namespace.offer(&format!("t/{name}"), offer),
                Err(_) => refused.push(name.to_owned()),
            }
        }
        refused.sort();
        let expected = ["absolute", "deep", "loop", "magic", "pipe", "relative"];
        assert_eq!(refused, expected);
        for name in ["t/tools.tar", "t/tools-1.tar", "t/x"] {
            assert!(namespace.find(name).is_ok(), "{name}");
        }
        for name in ["t/deep/x", "t/../t/x", "tools.tar", "/t/x", "t/magic"] {
            assert!(namespace.find(name).is_err(), "{name}");
        }
    }
}
