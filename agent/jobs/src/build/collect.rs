//! Makes a record of what a guest has put: its result, its files, and the
//! revisions of its packages. Done twice, it gives the same.
//!
//! Faults of the guest become part of its result. Only failures of the host are errors.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use config::builds::{Artifact, BuiltPackage};
use config::task::{self, Operation, Outcome, Package, TaskResult};
use config::{BuildId, manifest};
use lz4_flex::frame::FrameDecoder;
use session::pr_service::{self, RevisionError};
use sys::blocking::blocking;
use sys::error_report::chain;

use super::files::{FILES_MAX, RESULT_BYTES_MAX, RESULTS};
use super::upload;
use state::AgentState;
use state::paths::{ARTIFACTS, GIVEN_TASK};

/// The file in the directory of a build with the faults of its removed archive.
const UPLOAD_FAULTS: &str = "upload.faults";

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

/// A failure of the host while it collects the result of a guest.
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
    /// A package has no revision.
    #[error(transparent)]
    Revision(#[from] RevisionError),
}

/// The result of a guest as its host can use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The result that the guest has put; an error without a message if that cannot be read.
    pub result: TaskResult,
    /// The faults of what the guest has put, each as a sentence.
    pub faults: Vec<String>,
}

/// Reads the result of a build's guest, allocates the revisions of its packages, and writes them
/// beside the packages.
pub(super) async fn collect(agent: &AgentState, id: BuildId) -> Result<Collected, CollectError> {
    let directory = agent.paths.build(id);
    let limits = upload::Limits {
        bytes_max: agent.settings().builds.artifacts_bytes_max,
        files_max: FILES_MAX,
    };
    let files = directory.join(ARTIFACTS);
    let mut report = {
        let files = files.clone();
        blocking(move || {
            let mut report = read(&directory, &limits)?;
            // Before revisions are allocated: a missing package gets none.
            report.check_packages(&files);
            Ok::<_, CollectError>(report)
        })
        .await?
    };
    let mut packages = Vec::new();
    for package in report.packages() {
        let revision = match package.told_revision.clone() {
            Some(told) => Ok(told),
            None => pr_service::revision(&agent.bitbake.pr, &agent.settings().pr, &package).await,
        };
        match revision {
            Ok(revision) => packages.push(BuiltPackage { package, revision }),
            Err(error) if error.is_refusal() => {
                report.faults.push(sys::error_report::chain(&error));
                packages.clear();
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    let artifacts = {
        let packages = packages.clone();
        blocking(move || finish(&files, &packages)).await?
    };
    let (outcome, message) = report.verdict();
    Ok(Collected {
        outcome,
        message,
        packages,
        artifacts,
    })
}

/// Returns the artifacts of a guest that has ended without a result.
pub(super) async fn artifacts(agent: &AgentState, id: BuildId) -> Vec<Artifact> {
    let files = agent.paths.build(id).join(ARTIFACTS);
    blocking(move || finish(&files, &[]))
        .await
        .unwrap_or_default()
}

impl Report {
    /// Adds a fault for each package of a successful result whose file is missing.
    fn check_packages(&mut self, files: &Path) {
        if !self.result.status.is_good() {
            return;
        }
        let is_missing = |package: &&Package| !files.join(package.file.as_str()).is_file();
        let missing = self.result.packages.iter().filter(is_missing);
        let fault = |package: &Package| {
            let file = &package.file;
            format!("the guest's result names the file {file}, which the guest has not put")
        };
        self.faults.extend(missing.map(fault));
    }

    /// Returns the packages that get revisions: those of a success without faults.
    fn packages(&self) -> Vec<Package> {
        if self.result.status.is_good() && self.faults.is_empty() {
            self.result.packages.clone()
        } else {
            Vec::new()
        }
    }

    /// Returns the outcome and its message. Faults of the guest make it an error.
    fn verdict(self) -> (Outcome, String) {
        let status = self.result.status;
        let outcome = match status {
            _ if self.faults.is_empty() => status,
            Outcome::Success | Outcome::Warning | Outcome::Skip | Outcome::Abnormal => {
                Outcome::Error
            }
            Outcome::Error | Outcome::Abort | Outcome::Interrupt => status,
        };
        (outcome, with_faults(self.result.message, &self.faults))
    }
}

/// Appends faults to a message; of many, the first ones.
pub(super) fn with_faults(message: String, faults: &[String]) -> String {
    const SHOWN_MAX: usize = 5;
    let mut parts: Vec<_> = Some(message)
        .filter(|it| !it.is_empty())
        .into_iter()
        .collect();
    parts.extend(faults.iter().take(SHOWN_MAX).cloned());
    if faults.len() > SHOWN_MAX {
        parts.push(format!("and {} more faults", faults.len() - SHOWN_MAX));
    }
    parts.join("; ")
}

/// Returns true if a guest has put its result.
pub(super) fn has_result(directory: &Path) -> bool {
    RESULTS.iter().any(|name| directory.join(name).exists())
}

/// Reads the result in the directory of a build, and converts the files of a build2 worker there.
/// Blocks.
///
/// # Errors
/// A file cannot be read or written because of the host.
pub fn read(directory: &Path, limits: &upload::Limits) -> Result<Report, CollectError> {
    let mut report = match text(directory)? {
        Ok(text) => parse(directory, &text)?,
        Err(fault) => Report::unusable(fault),
    };
    report.faults.extend(unpack_upload(directory, limits)?);
    Ok(report)
}

impl Report {
    fn unusable(fault: String) -> Self {
        Self {
            result: TaskResult::new(Outcome::Error),
            faults: vec![fault],
        }
    }
}

/// Parses a result. The logs in that of a build2 worker become the log if it has put no other.
fn parse(directory: &Path, text: &str) -> Result<Report, CollectError> {
    let parsed = TaskResult::parse(text)
        .and_then(|result| Operation::parse_list(text).map(|steps| (result, steps)));
    let (result, steps) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let fault = format!(
                "the guest's result.manifest cannot be used: {}",
                chain(&error)
            );
            return Ok(Report::unusable(fault));
        }
    };
    let log = directory.join(task::LOG);
    if !log.exists() && !steps.is_empty() {
        let text = Operation::log_of(&steps);
        sys::file::replace(&log, text.as_bytes()).map_err(fault(&log))?;
    }
    Ok(Report {
        result,
        faults: Vec::new(),
    })
}

/// Unpacks the archive of artifacts, if there is one, and returns its faults. They are stored
/// before the archive is removed.
fn unpack_upload(directory: &Path, limits: &upload::Limits) -> Result<Vec<String>, CollectError> {
    let (archive, stored) = (directory.join(task::UPLOAD), directory.join(UPLOAD_FAULTS));
    let opened = match sys::untrusted::open(directory, task::UPLOAD) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match sys::trusted::read_text(&stored) {
                Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(fault(&stored)(error)),
            };
        }
        Err(error) => return Err(fault(&archive)(error)),
    };
    let artifacts = directory.join(ARTIFACTS);
    let faults = if directory.join(GIVEN_TASK).exists() {
        upload::instances::repack(opened, directory, &artifacts, limits)
    } else {
        upload::unpack(opened, &artifacts, limits)
    };
    let faults: Vec<_> = faults
        .map_err(fault(&archive))?
        .iter()
        .map(|error| {
            format!(
                "the guest's upload.tar cannot be used in full: {}",
                chain(error)
            )
        })
        .map(|fault| config::printable(&fault).to_string())
        .collect();
    if !faults.is_empty() {
        let text = faults.join("\n");
        sys::file::replace(&stored, text.as_bytes()).map_err(fault(&stored))?;
    }
    fs::remove_file(&archive).map_err(fault(&archive))?;
    Ok(faults)
}

/// Returns true if the result of a build's guest is a success; `false` without a result.
pub(super) fn is_good(directory: &Path) -> bool {
    let text = text(directory).ok().and_then(Result::ok);
    let result = text.and_then(|text| TaskResult::parse(&text).ok());
    result.is_some_and(|result| result.status.is_good())
}

/// Returns the text of the result, or the guest's fault in it.
pub(super) fn text(directory: &Path) -> Result<Result<String, String>, CollectError> {
    for name in RESULTS {
        let path = directory.join(name);
        if !path.exists() {
            continue;
        }
        let read = match name {
            task::RESULT => sys::untrusted::read_text(directory, name, RESULT_BYTES_MAX),
            _ => sys::untrusted::open(directory, name).and_then(unpack),
        };
        return match read {
            Ok(text) => Ok(Ok(text)),
            Err(error) if error.raw_os_error().is_some() => Err(fault(&path)(error)),
            Err(error) => Ok(Err(format!("the guest's {name} cannot be read: {error}"))),
        };
    }
    Ok(Err("the guest has put no result".to_owned()))
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
        let list = packages.iter().map(|built| {
            let package = Package {
                told_revision: None,
                ..built.package.clone()
            };
            package.manifest().with("revision", &built.revision)
        });
        let text = manifest::print_local(&list.collect::<Vec<_>>());
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
            let report = read(place.path(), &limits).unwrap();
            assert_eq!(report.result.status, Outcome::Error);
            assert_eq!(report.faults, Vec::<String>::new());
            assert_eq!(
                fs::read_to_string(path(task::LOG)).unwrap(),
                "update: error\nno\n"
            );
            let file = path(ARTIFACTS).join("hello.deb");
            assert_eq!(fs::read_to_string(file).unwrap(), "hi");
            assert!(!path(task::UPLOAD).exists());
        }
    }

    /// A build's directory with these files.
    fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join(ARTIFACTS)).unwrap();
        for (name, content) in files {
            sys::file::replace(&place.path().join(name), content).unwrap();
        }
        place
    }

    const LIMITS: upload::Limits = upload::Limits {
        bytes_max: 10_000,
        files_max: 10,
    };

    #[test]
    fn a_result_that_cannot_be_read_is_the_guests_fault_and_said_once() {
        let package = ": 1\nstatus: success\n:\npackage: p\nversion: 1\nfile: .x\n";
        let table: [(&[u8], &str); 4] = [
            (
                b"no manifest",
                "the guest's result.manifest cannot be used: line 1",
            ),
            (b"\xff\xff", "the guest's result.manifest cannot be read: "),
            (
                package.as_bytes(),
                "the guest's result.manifest cannot be used: ",
            ),
            (
                b": 1\nstatus: splendid\n",
                "the guest's result.manifest cannot be used: ",
            ),
        ];
        for (text, expected) in table {
            let place = directory(&[(task::RESULT, text)]);
            let (outcome, message) = read(place.path(), &LIMITS).unwrap().verdict();
            assert_eq!(outcome, Outcome::Error, "{message}");
            let detail = message.strip_prefix(expected);
            let detail = detail.unwrap_or_else(|| panic!("{message}"));
            assert_eq!(message.matches(detail).count(), 1, "{message}");
        }
    }

    #[test]
    fn the_archive_of_a_controllers_task_becomes_an_archive_for_each_instance() {
        let mut archive = tar::Builder::new(Vec::new());
        for name in [
            "upload/bindist/debian/a.deb",
            "upload/bindist/archive/a.deb",
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_size(2);
            archive.append_data(&mut header, name, &b"hi"[..]).unwrap();
        }
        let archive = archive.into_inner().unwrap();
        let result = b": 1\nstatus: success\n";
        let files = [
            (GIVEN_TASK, &b""[..]),
            (task::RESULT, result),
            (task::UPLOAD, &archive),
        ];
        let place = directory(&files);
        for _ in 0..2 {
            let report = read(place.path(), &LIMITS).unwrap();
            assert_eq!(report.verdict(), (Outcome::Success, String::new()));
            let kept = finish(&place.path().join(ARTIFACTS), &[]).unwrap();
            let mut kept: Vec<_> = kept.iter().map(|file| file.name.as_str()).collect();
            kept.sort_unstable();
            assert_eq!(kept, ["bindist-archive.tar", "bindist-debian.tar"]);
            assert_eq!(upload::instances::uploads(place.path()).unwrap().len(), 2);
        }
    }

    #[test]
    fn forbidden_entries_of_an_archive_make_a_success_an_error_each_time() {
        let mut archive = tar::Builder::new(Vec::new());
        for name in ["upload/good.deb", "upload/bad\tname"] {
            let mut header = tar::Header::new_ustar();
            header.set_size(2);
            archive.append_data(&mut header, name, &b"hi"[..]).unwrap();
        }
        let archive = archive.into_inner().unwrap();
        let result = b": 1\nstatus: success\n";
        let place = directory(&[(task::RESULT, result), (task::UPLOAD, &archive)]);
        let once = read(place.path(), &LIMITS).unwrap();
        assert_eq!(read(place.path(), &LIMITS).unwrap(), once);
        let (outcome, message) = once.verdict();
        assert_eq!(outcome, Outcome::Error);
        assert!(message.contains("upload.tar"), "{message}");
        let kept = finish(&place.path().join(ARTIFACTS), &[]).unwrap();
        let kept: Vec<_> = kept.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(kept, ["good.deb"]);
    }

    #[test]
    fn a_missing_package_makes_a_success_an_error() {
        let text = ": 1\nstatus: success\n:\npackage: p\nversion: 1\nrecipe-revision: r0\n\
                    architecture: all\nchecksum: c\nfile: p.ipk\n";
        let place = directory(&[(task::RESULT, text.as_bytes())]);
        let mut report = read(place.path(), &LIMITS).unwrap();
        report.check_packages(&place.path().join(ARTIFACTS));
        assert_eq!(report.packages(), []);
        let (outcome, message) = report.verdict();
        assert_eq!(outcome, Outcome::Error);
        assert!(
            message.contains("p.ipk, which the guest has not put"),
            "{message}"
        );
    }
}
