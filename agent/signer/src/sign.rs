//! The signature of a build's provenance. The signer reads the record and hashes the files
//! itself, and signs nothing else: no caller hands it a statement.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use config::BuildId;
use config::builds::{Artifact, Build};
use config::task::{self, Digest};
use records::RecordsError;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::dsse::Envelope;
use crate::keys::{ActiveKey, KeyDirectory, KeysError};
use crate::statement::{self, Builder};

/// A build whose provenance is to be signed.
#[derive(Debug, Clone)]
pub struct Job {
    /// The build.
    pub build: BuildId,
    /// The name of the host.
    pub host: String,
    /// The database of the records.
    pub records: PathBuf,
    /// The directory of the build.
    pub directory: PathBuf,
    /// The directory of the keys.
    pub keys: PathBuf,
}

/// The reason for which provenance is not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The record cannot be read.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// There is no such build.
    #[error("there is no build {0}")]
    Missing(BuildId),
    /// The build has no provenance.
    #[error("build {0} has no provenance: it has not succeeded, or has no artifacts")]
    NoSubject(BuildId),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// A file has changed since it was recorded.
    #[error("{name} has the hash {found}, and the record says {recorded}; nothing was signed")]
    Changed {
        /// The artifact.
        name: String,
        /// Its hash.
        found: Digest,
        /// The hash in the record.
        recorded: Digest,
    },
    /// The process cannot become the signer's user.
    #[error("cannot become the user {user}, to whom the key belongs")]
    User {
        /// The user.
        user: u32,
        /// The failure.
        source: io::Error,
    },
    /// The statement cannot be written.
    #[error("cannot write the statement")]
    Statement(#[from] serde_json::Error),
}

/// The record and the open files of a build.
#[derive(Debug)]
struct Opened {
    build: Build,
    artifacts: Vec<(Artifact, OpenFile)>,
    log: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    file: File,
}

/// Signs the provenance of a build. Opens its record and its files as the caller, and then turns
/// this process, which must have one thread, into one of the user to whom the key belongs.
///
/// # Errors
/// The record, a file or the key cannot be read, a file is not as recorded, or the build has no
/// provenance.
pub fn sign(job: &Job) -> Result<Envelope, SignError> {
    let key = KeyDirectory::new(&job.keys).active()?;
    let opened = Opened::open(job)?;
    become_user(key.user)?;
    opened.sign(&job.host, &key)
}

fn become_user(user: u32) -> Result<(), SignError> {
    sys::confined::become_user(user).map_err(|source| SignError::User { user, source })
}

impl Opened {
    fn open(job: &Job) -> Result<Self, SignError> {
        let build = records::read_concluded(&job.records, job.build)?
            .ok_or(SignError::Missing(job.build))?;
        if !statement::has_subject(&build) {
            return Err(SignError::NoSubject(job.build));
        }
        allow_many_files().map_err(|source| SignError::File {
            path: job.directory.clone(),
            source,
        })?;
        let open = |artifact: &Artifact| {
            let name = format!("{}{}", task::ARTIFACTS, artifact.name);
            Ok((artifact.clone(), OpenFile::open(&job.directory, &name)?))
        };
        let artifacts = build
            .artifacts
            .iter()
            .map(open)
            .collect::<Result<_, SignError>>()?;
        let log = match OpenFile::open(&job.directory, task::LOG) {
            Err(SignError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened?),
        };
        Ok(Self {
            build,
            artifacts,
            log,
        })
    }

    fn sign(self, host: &str, key: &ActiveKey) -> Result<Envelope, SignError> {
        for (artifact, file) in self.artifacts {
            let found = file.digest()?;
            if found != artifact.sha256 {
                return Err(SignError::Changed {
                    name: artifact.name.to_string(),
                    found,
                    recorded: artifact.sha256,
                });
            }
        }
        let log = self.log.map(OpenFile::digest).transpose()?;
        let statement = statement::statement(&self.build, host, log.as_ref(), Builder::Signed);
        let statement = statement.ok_or(SignError::NoSubject(self.build.id))?;
        let payload = serde_json::to_vec(&statement)?;
        Ok(Envelope::sign(statement::TYPE, &payload, &[&key.open()?]))
    }
}

impl OpenFile {
    fn open(directory: &Path, name: &str) -> Result<Self, SignError> {
        let path = directory.join(name);
        match sys::untrusted::open(directory, name) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(SignError::File { path, source }),
        }
    }

    fn digest(self) -> Result<Digest, SignError> {
        let Self { path, file } = self;
        sys::file::digest(file).map_err(|source| SignError::File { path, source })
    }
}

/// Raises the limit of open files to the largest one that is permitted: a build may have
/// thousands of artifacts.
fn allow_many_files() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, limit)?)
}
