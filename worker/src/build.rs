//! Runs a build: fetches the task and its sources, runs the toolchain's `build`, and reports
//! the result.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use config::secrets::{DIRECTORY, VARIABLE};
use config::task::{
    self, Breakpoint, Outcome, PACKAGES, Package, RESERVED_ARTIFACTS, Source, Task, TaskResult,
};
use config::{cache, hashserv, printable};
use sys::file::{Hasher, fresh_directory};
use tftp::client::Destination;

use crate::cli::{PR_HOST, Settings};
use crate::fork::Rendezvous;
use crate::log::Log;
use crate::report::{self, Artifact};
use crate::shell::{self, Stop, Surroundings};
use crate::{WorkerError, driven, exec, handshake, preload, secrets};

/// The toolchain's program that builds.
const PROGRAM: &str = "build";
/// The program's working directory, below the directory of the build.
const WORK: &str = "work";
/// The file for the program's message, below the directory of the build.
const MESSAGE: &str = "message";
/// The variable with the path of that file.
const MESSAGE_VARIABLE: &str = "BUILDHOST_MESSAGE";
/// The size up to which the message is read, in bytes.
const MESSAGE_BYTES_MAX: u64 = 16 * 1024;

/// Runs one build, puts [`task::RESULT`], and returns the reported outcome.
///
/// # Errors
/// The result could not be reported.
pub fn run(settings: &Settings) -> Result<Outcome, WorkerError> {
    let mut log = settings.create_log()?;
    let mut hold = None;
    let (result, artifacts) = build(settings, &mut log, &mut hold).unwrap_or_else(|error| {
        let result = report::failure(&error);
        log.line(&result.message);
        (result, Vec::new())
    });
    let hold = hold.filter(|_| !result.status.is_good());
    if hold.is_some() {
        // The host may read the disk while the guest is suspended.
        rustix::fs::sync();
    }
    let reported = report::report(&settings.client, &artifacts, log, result, task::RESULT)?;
    if let Some(surroundings) = hold {
        shell::hold(settings, &surroundings);
    }
    Ok(reported)
}

/// Runs one build to its result, and sets `hold` if the task requires that a failed guest
/// is held.
fn build(
    settings: &Settings,
    log: &mut Log,
    hold: &mut Option<Surroundings>,
) -> Result<(TaskResult, Vec<Artifact>), WorkerError> {
    let preload = preload::of(settings);
    let mut port = handshake::wait_for_start(&settings.client, preload, log)?;
    let task = fetch_task(settings)?;
    let dirs = BuildDirs::below(&settings.work);
    let surroundings = dirs.surroundings(settings, &task);
    *hold = task.hold.then(|| surroundings.clone());
    if let Some(bytes_max) = task.log_bytes_max {
        log.set_limit(bytes_max);
    }
    if task.interactive == Some(Breakpoint::Attach) {
        shell::breakpoint(settings, &surroundings, Stop::Attached, log)?;
        return Ok((TaskResult::new(Outcome::Abort), Vec::new()));
    }
    log.set_mask(&secrets::receive(settings, &task.secrets, port.as_mut())?);
    log.line(&format!(
        "build {} on {} with the toolchain {}",
        task.build, task.machine, task.toolchain
    ));
    dirs.create()?;
    if task.commands {
        driven::run(settings, &surroundings, log)?;
        return collect(&dirs.out);
    }
    for source in &task.sources {
        let size = fetch_source(settings, source, &dirs.sources)?;
        log.line(&format!("fetched {}, {size} bytes", source.name));
    }
    let mut surroundings = surroundings;
    if task.script {
        surroundings.program = fetch_script(settings, &dirs.script)?;
    }
    if task.interactive == Some(Breakpoint::Start) {
        shell::breakpoint(settings, &surroundings, Stop::Start, log)?;
    }
    let mut rendezvous = Rendezvous::new(port, dirs.fork)?;
    let (mut result, artifacts) = run_program(&surroundings, &mut rendezvous, log)?;
    if result.status == Outcome::Error
        && let Some(message) = own_message(&dirs.message)
    {
        result.message = message;
    }
    if task
        .interactive
        .is_some_and(|breakpoint| breakpoint.stops_after(result.status))
    {
        shell::breakpoint(settings, &surroundings, Stop::Result(result.status), log)?;
    }
    Ok((result, artifacts))
}

/// Returns the result of a driven guest that the host has stopped, and the artifacts that its
/// commands have left.
fn collect(out: &Path) -> Result<(TaskResult, Vec<Artifact>), WorkerError> {
    let (artifacts, faults) = artifacts(out)?;
    let mut result = TaskResult::new(Outcome::Success);
    if !faults.is_empty() {
        result.status = Outcome::Error;
        result.message = faults.join("\n");
    }
    Ok((result, artifacts))
}

/// Runs the toolchain's `build` and returns its result and artifacts.
fn run_program(
    surroundings: &Surroundings,
    rendezvous: &mut Rendezvous,
    log: &mut Log,
) -> Result<(TaskResult, Vec<Artifact>), WorkerError> {
    let Surroundings {
        program,
        work,
        environment,
        out,
        ..
    } = surroundings;
    let status = exec::run(program, work, environment, Some(rendezvous), log)?;
    let (artifacts, faults) = artifacts(out)?;
    let packages = if !status.success() {
        Err(exec::failure_message(PROGRAM, status, log))
    } else if faults.is_empty() {
        packages(out, &artifacts)
    } else {
        Err(faults.join("\n"))
    };
    let mut result = TaskResult::new(Outcome::Success);
    match packages {
        Ok(packages) => result.packages = packages,
        Err(message) => {
            result.status = Outcome::Error;
            result.message = message;
        }
    }
    Ok((result, artifacts))
}

/// Returns the message that the toolchain's `build` has written for people, without control
/// characters; `None` if it has written nothing.
fn own_message(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let is_shown = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    let text: String = String::from_utf8_lossy(&bytes)
        .chars()
        .filter(is_shown)
        .collect();
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The directories of one build.
struct BuildDirs {
    sources: PathBuf,
    out: PathBuf,
    work: PathBuf,
    /// The file with the identity of this copy of a forked guest.
    fork: PathBuf,
    /// The file for the program's message.
    message: PathBuf,
    /// The program of a task that brings its own.
    script: PathBuf,
}

impl BuildDirs {
    fn below(work: &Path) -> Self {
        Self {
            sources: work.join("sources"),
            out: work.join("out"),
            work: work.join(WORK),
            fork: work.join("fork"),
            message: work.join(MESSAGE),
            script: work.join(task::SCRIPT),
        }
    }

    /// Creates the directories empty.
    fn create(&self) -> Result<(), WorkerError> {
        for dir in [&self.sources, &self.out, &self.work] {
            fresh_directory(dir).map_err(WorkerError::disk(dir))?;
        }
        match fs::remove_file(&self.message) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(WorkerError::disk(&self.message)(error))
            }
            _ => Ok(()),
        }
    }

    /// Returns the surroundings of the toolchain's `build`.
    fn surroundings(&self, settings: &Settings, task: &Task) -> Surroundings {
        let mut environment = vec![
            ("BUILDHOST_SOURCES", self.sources.clone().into()),
            ("BUILDHOST_OUT", self.out.clone().into()),
            ("BUILDHOST_WORKER", settings.worker.clone().into()),
            ("BUILDHOST_FORK", self.fork.clone().into()),
            (MESSAGE_VARIABLE, self.message.clone().into()),
            ("BUILDHOST_BUILD", task.build.to_string().into()),
            ("BUILDHOST_MACHINE", task.machine.to_string().into()),
            ("BUILDHOST_TOOLCHAIN", task.toolchain.to_string().into()),
            (PR_HOST, settings.pr_host.to_string().into()),
        ];
        if let Some(mode) = task.cache {
            environment.push((cache::VARIABLE, settings.cache_address().into()));
            environment.push((cache::MODE_VARIABLE, mode.to_string().into()));
        }
        if task.hashserv {
            environment.push((hashserv::VARIABLE, settings.hashserv_address().into()));
        }
        if !task.secrets.is_empty() {
            environment.push((VARIABLE, DIRECTORY.into()));
        }
        Surroundings {
            title: format!("build {} on {}", task.build, task.machine),
            program: settings.toolchain.join(PROGRAM),
            sources: self.sources.clone(),
            out: self.out.clone(),
            work: self.work.clone(),
            environment,
        }
    }
}

fn fetch_task(settings: &Settings) -> Result<Task, WorkerError> {
    let mut text = Vec::new();
    fetch(settings, task::TASK, &mut text)?;
    Ok(Task::parse(&String::from_utf8_lossy(&text))?)
}

/// Fetches the script of a task, which is run as a program, and returns its path.
fn fetch_script(settings: &Settings, path: &Path) -> Result<PathBuf, WorkerError> {
    let mut text = Vec::new();
    fetch(settings, task::SCRIPT, &mut text)?;
    let write = || {
        sys::file::replace(path, &text)?;
        // It has secrets.
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
    };
    write().map_err(WorkerError::disk(path))?;
    Ok(path.to_owned())
}

fn fetch(settings: &Settings, name: &str, to: &mut impl Destination) -> Result<u64, WorkerError> {
    settings
        .client
        .get(name, to)
        .map_err(|source| WorkerError::Fetch {
            name: name.to_owned(),
            source,
        })
}

/// Fetches a source, checks its hash, and returns its size.
fn fetch_source(settings: &Settings, source: &Source, into: &Path) -> Result<u64, WorkerError> {
    let path = into.join(&source.name);
    let mut file = HashedFile {
        file: File::create(&path).map_err(WorkerError::disk(path))?,
        hasher: Hasher::default(),
    };
    let name = format!("{}{}", task::SOURCES, source.name);
    let size = fetch(settings, &name, &mut file)?;
    let actual = file.hasher.finish();
    if actual == source.sha256 {
        Ok(size)
    } else {
        Err(WorkerError::Hash {
            name: source.name.clone(),
            expected: source.sha256.clone(),
            actual,
        })
    }
}

/// A file that is hashed while it is written.
struct HashedFile {
    file: File,
    hasher: Hasher,
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Destination for HashedFile {
    fn restart(&mut self) -> io::Result<()> {
        self.hasher = Hasher::default();
        self.file.restart()
    }
}

/// Returns the artifacts of a build, and the faults of other entries beside them.
fn artifacts(out: &Path) -> Result<(Vec<Artifact>, Vec<String>), WorkerError> {
    let (mut artifacts, mut faults) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(out).map_err(WorkerError::disk(out))? {
        let entry = entry.map_err(WorkerError::disk(out))?;
        let (path, name) = (entry.path(), entry.file_name());
        if name == PACKAGES {
            continue;
        }
        let name = name.to_string_lossy();
        if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let name = printable(&name);
            faults.push(format!("`{name}` among the artifacts is not a file"));
            continue;
        }
        if RESERVED_ARTIFACTS.contains(&&*name) {
            faults.push(format!(
                "`{name}` among the artifacts is reserved for the host"
            ));
            continue;
        }
        match name.parse() {
            Ok(name) => artifacts.push(Artifact { name, path }),
            Err(error) => faults.push(error.to_string()),
        }
    }
    artifacts.sort();
    faults.sort();
    Ok((artifacts, faults))
}

/// Returns the packages that a build has listed. Each must be among the artifacts.
fn packages(out: &Path, artifacts: &[Artifact]) -> Result<Vec<Package>, String> {
    let text = match fs::read_to_string(out.join(PACKAGES)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("cannot read {PACKAGES}: {error}")),
    };
    let packages =
        Package::parse_list(&text).map_err(|error| format!("{PACKAGES} is invalid: {error}"))?;
    let is_artifact = |package: &Package| artifacts.iter().any(|a| a.name == package.file);
    match packages.iter().find(|package| !is_artifact(package)) {
        Some(package) => Err(format!(
            "{PACKAGES} names {}, which is not among the artifacts",
            package.file
        )),
        None => Ok(packages),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn out(files: &[(&str, &str)]) -> tempfile::TempDir {
        let out = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let mut file = File::create(out.path().join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
        out
    }

    #[test]
    fn a_build_is_told_its_cache_if_it_has_one() {
        let arguments = ["build", "--host", "192.0.2.1"].map(Into::into);
        let parsed = crate::cli::parse(arguments, "/tool/worker".into(), None).unwrap();
        let crate::cli::Command::Build(settings) = parsed else {
            panic!("no build");
        };
        let text = ": 1\nbuild: 7\nmachine: linux\ntoolchain: default\n";
        let told = |text: &str| {
            let task = Task::parse(text).unwrap();
            let dirs = BuildDirs::below(&settings.work);
            let environment = dirs.surroundings(&settings, &task).environment;
            let is_cache = |(name, _): &(&str, OsString)| name.starts_with("BUILDHOST_CACHE");
            environment.into_iter().filter(is_cache).collect::<Vec<_>>()
        };
        assert_eq!(told(text), []);
        let expected = [
            ("BUILDHOST_CACHE", "http://192.0.2.1:8080".into()),
            ("BUILDHOST_CACHE_MODE", "write".into()),
        ];
        assert_eq!(told(&format!("{text}cache: write\n")), expected);
        // The mode of a newer host.
        assert_eq!(told(&format!("{text}cache: append\n")), []);
    }

    #[test]
    fn a_build_is_told_the_hash_equivalence_service_if_it_has_one() {
        let arguments = ["build", "--host", "192.0.2.1"].map(Into::into);
        let parsed = crate::cli::parse(arguments, "/tool/worker".into(), None).unwrap();
        let crate::cli::Command::Build(settings) = parsed else {
            panic!("no build");
        };
        let told = |line: &str| {
            let text = format!(": 1\nbuild: 7\nmachine: linux\ntoolchain: default\n{line}");
            let task = Task::parse(&text).unwrap();
            let dirs = BuildDirs::below(&settings.work);
            let mut environment = dirs.surroundings(&settings, &task).environment.into_iter();
            environment.find(|(name, _)| *name == "BB_HASHSERVE")
        };
        assert_eq!(told(""), None);
        let address = ("BB_HASHSERVE", "192.0.2.1:8686".into());
        assert_eq!(told("hashserv: true\n"), Some(address));
    }

    #[test]
    fn only_files_with_valid_names_are_artifacts() {
        let out = out(&[
            ("b.ipk", ""),
            ("a.ipk", ""),
            ("provenance.json", ""),
            ("foo-1.0^2024 (x86_64).rpm", ""),
            (".hidden", ""),
            ("with\nline", ""),
        ]);
        fs::create_dir(out.path().join("directory")).unwrap();
        let (artifacts, faults) = artifacts(out.path()).unwrap();
        let names: Vec<_> = artifacts.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, ["a.ipk", "b.ipk", "foo-1.0^2024 (x86_64).rpm"]);
        assert_eq!(faults.len(), 4, "{faults:?}");
    }

    #[test]
    fn a_message_of_the_program_has_lines_but_no_control_characters() {
        let out = out(&[("message", "one\x1b[31m\r\n\ttwo\n\n"), ("empty", " \n")]);
        let message = |name: &str| own_message(&out.path().join(name));
        assert_eq!(message("message").unwrap(), "one[31m\n\ttwo");
        assert_eq!((message("empty"), message("missing")), (None, None));
    }

    #[test]
    fn every_listed_package_must_be_an_artifact() {
        let text = ": 1\npackage: p\nversion: 1\nrecipe-revision: r0\narchitecture: all\nchecksum: c\nfile: p.ipk\n";
        let complete = out(&[(PACKAGES, text), ("p.ipk", "")]);
        let (files, _) = artifacts(complete.path()).unwrap();
        assert_eq!(packages(complete.path(), &files).unwrap().len(), 1);
        assert_eq!(
            packages(complete.path(), &[]).unwrap_err(),
            "packages.manifest names p.ipk, which is not among the artifacts"
        );
        let invalid = out(&[(PACKAGES, ": 1\npackage: p\n")]);
        assert_eq!(
            packages(invalid.path(), &[]).unwrap_err(),
            "packages.manifest is invalid: the value `file` is missing"
        );
        assert_eq!(packages(out(&[]).path(), &[]), Ok(Vec::new()));
    }
}
