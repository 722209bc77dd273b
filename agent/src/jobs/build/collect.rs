//! Makes a record of what a guest has put: its result, its files, and the
//! revisions of its packages. Done twice, it gives the same.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use config::builds::{Artifact, BuiltPackage};
use config::task::{self, Operation, Outcome, Package, TaskError, TaskResult};
use config::{BuildId, FileName, manifest};
use lz4_flex::frame::FrameDecoder;
use session::pr_service::{self, RevisionError};
use sys::blocking::blocking;

use super::files::{FILES_MAX, RESULT_BYTES_MAX, RESULTS};
use super::upload::{self, UploadError};
use crate::state::AgentState;
use crate::state::paths::ARTIFACTS;

/// The result of a build, with its packages and files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The outcome.
    pub outcome: Outcome,
    /// The reason for it, in one line.
    pub message: String,
    /// The packages with their revisions.
    pub packages: Vec<BuiltPackage>,
    /// All files.
    pub artifacts: Vec<Artifact>,
}

/// The reason for which the files of a guest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: std::io::Error,
    },
    /// The compressed result is damaged.
    #[error("the guest's result.manifest.lz4 cannot be unpacked: {0}")]
    Unpack(io::Error),
    /// The archive of its files is damaged, or has forbidden entries.
    #[error("the guest's upload.tar cannot be used")]
    Upload(#[from] UploadError),
    /// The result cannot be parsed.
    #[error("the guest's result.manifest cannot be used")]
    Result(#[from] TaskError),
    /// The result names a file that is not there.
    #[error("the guest's result names the file {0}, which it has not put")]
    Missing(FileName),
    /// A package has no revision.
    #[error(transparent)]
    Revision(#[from] RevisionError),
}

/// Reads the result of a build's guest, allocates the revisions of its packages, and writes them
/// beside the packages.
pub(super) async fn collect(agent: &AgentState, id: BuildId) -> Result<Collected, CollectError> {
    let directory = agent.paths.build(id);
    let limits = upload::Limits {
        bytes_max: agent.settings.builds.artifacts_bytes_max,
        files_max: FILES_MAX,
    };
    let result = {
        let directory = directory.clone();
        blocking(move || {
            let result = read(&directory, &limits)?;
            // Before revisions are allocated: a missing package gets none.
            check_packages(&result, &directory.join(ARTIFACTS))?;
            Ok::<_, CollectError>(result)
        })
        .await?
    };
    let good = result.status.is_good();
    let files = directory.join(ARTIFACTS);
    let mut packages = Vec::new();
    for package in result.packages.into_iter().filter(|_| good) {
        let revision = pr_service::revision(&agent.pr, &agent.settings.pr, &package).await?;
        packages.push(BuiltPackage { package, revision });
    }
    let artifacts = {
        let packages = packages.clone();
        blocking(move || finish(&files, &packages)).await?
    };
    Ok(Collected {
        outcome: result.status,
        message: result.message,
        packages,
        artifacts,
    })
}

/// Checks that the packages of a successful result exist.
fn check_packages(result: &TaskResult, files: &Path) -> Result<(), CollectError> {
    let is_missing = |package: &&Package| !files.join(package.file.as_str()).is_file();
    match result.packages.iter().find(is_missing) {
        Some(package) if result.status.is_good() => {
            Err(CollectError::Missing(package.file.clone()))
        }
        _ => Ok(()),
    }
}

/// Returns true if a guest has put its result.
pub(super) fn has_result(directory: &Path) -> bool {
    RESULTS.iter().any(|name| directory.join(name).exists())
}

/// Reads the result in the directory of a build, and converts the files of a build2 worker there.
/// Blocks.
///
/// # Errors
/// A file is missing, damaged or forbidden.
pub fn read(directory: &Path, limits: &upload::Limits) -> Result<TaskResult, CollectError> {
    let text = text(directory)?;
    let result = TaskResult::parse(&text)?;
    let log = directory.join(task::LOG);
    let steps = Operation::parse_list(&text)?;
    if !log.exists() && !steps.is_empty() {
        let text = Operation::log_of(&steps);
        sys::file::replace(&log, text.as_bytes()).map_err(fault(&log))?;
    }
    let archive = directory.join(task::UPLOAD);
    match sys::untrusted::open(directory, task::UPLOAD) {
        Ok(opened) => upload::unpack(opened, &directory.join(ARTIFACTS), limits)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(result),
        Err(error) => return Err(fault(&archive)(error)),
    }
    fs::remove_file(&archive).map_err(fault(&archive))?;
    Ok(result)
}

/// Returns true if the result of a build's guest is a success; `false` without a result.
pub(super) fn is_good(directory: &Path) -> bool {
    let text = text(directory).ok();
    let result = text.and_then(|text| TaskResult::parse(&text).ok());
    result.is_some_and(|result| result.status.is_good())
}

fn text(directory: &Path) -> Result<String, CollectError> {
    let path = directory.join(task::RESULT);
    if path.exists() {
        let text = sys::untrusted::read_text(directory, task::RESULT, RESULT_BYTES_MAX);
        return text.map_err(fault(&path));
    }
    let path = directory.join(task::RESULT_LZ4);
    let packed = sys::untrusted::open(directory, task::RESULT_LZ4);
    unpack(packed.map_err(fault(&path))?).map_err(CollectError::Unpack)
}

/// Decompresses a result up to the size limit.
fn unpack(packed: impl Read) -> io::Result<String> {
    let mut text = String::new();
    let mut plain = FrameDecoder::new(packed).take(RESULT_BYTES_MAX + 1);
    plain.read_to_string(&mut text)?;
    if text.len() as u64 > RESULT_BYTES_MAX {
        let message = format!("it holds more than {RESULT_BYTES_MAX} bytes");
        return Err(io::Error::other(message));
    }
    Ok(text)
}

fn fault(path: &Path) -> impl Fn(io::Error) -> CollectError + use<> {
    let path = path.to_owned();
    move |source| CollectError::File {
        path: path.clone(),
        source,
    }
}

/// Writes the list of packages and hashes all files.
fn finish(files: &Path, packages: &[BuiltPackage]) -> Result<Vec<Artifact>, CollectError> {
    // An agent before the names were reserved may have accepted such files from the guest.
    for name in task::RESERVED_ARTIFACTS {
        let path = files.join(name);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault(&path)(error)),
        }
    }
    if !packages.is_empty() {
        let list = packages
            .iter()
            .map(|built| built.package.manifest().with("revision", &built.revision));
        let text = manifest::print(&list.collect::<Vec<_>>());
        let path = files.join(task::PACKAGES);
        sys::file::replace(&path, text.as_bytes()).map_err(fault(&path))?;
    }
    let mut artifacts = Vec::new();
    for path in sys::file::entries(files).map_err(fault(files))? {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.parse().ok());
        let Some(name) = name else { continue };
        let file = sys::untrusted::open(files, &name).map_err(fault(&path))?;
        let bytes = file.metadata().map_err(fault(&path))?.len();
        let sha256 = sys::file::digest(file).map_err(fault(&path))?;
        artifacts.push(Artifact {
            name,
            bytes,
            sha256,
        });
    }
    Ok(artifacts)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::FrameEncoder;

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = FrameEncoder::new(Vec::new());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_compressed_result_is_limited_in_size() {
        let text = ": 1\nstatus: success\n";
        assert_eq!(unpack(&packed(text.as_bytes())[..]).unwrap(), text);
        let bomb = packed(&vec![b' '; 64 << 20]);
        assert!(bomb.len() < 1 << 20, "{}", bomb.len());
        let error = unpack(&bomb[..]).unwrap_err().to_string();
        assert_eq!(error, "it holds more than 16777216 bytes");
        for garbage in [&b"status: success"[..], &packed(text.as_bytes())[..20]] {
            unpack(garbage).unwrap_err();
        }
    }

    #[test]
    fn a_result_of_a_build2_worker_is_converted() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        fs::create_dir(path(ARTIFACTS)).unwrap();
        let text = ": 1\nstatus: error\nupdate-status: error\nupdate-log:\\\nno\n\\\n";
        sys::file::replace(&path(task::RESULT_LZ4), &packed(text.as_bytes())).unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(2);
        let hello = archive.append_data(&mut header, "upload/bindist/hello.deb", &b"hi"[..]);
        hello.unwrap();
        sys::file::replace(&path(task::UPLOAD), &archive.into_inner().unwrap()).unwrap();
        let limits = upload::Limits {
            bytes_max: 2,
            files_max: 1,
        };
        assert!(has_result(place.path()));
        for _ in 0..2 {
            let result = read(place.path(), &limits).unwrap();
            assert_eq!(result.status, Outcome::Error);
            assert_eq!(
                fs::read_to_string(path(task::LOG)).unwrap(),
                "update: error\nno\n"
            );
            let file = path(ARTIFACTS).join("hello.deb");
            assert_eq!(fs::read_to_string(file).unwrap(), "hi");
            assert!(!path(task::UPLOAD).exists());
        }
    }
}
