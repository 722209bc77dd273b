//! Does a build: fetches the task and its sources, runs the toolchain's `build`,
//! and tells the host what came out.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use config::task::{self, Breakpoint, Outcome, Package, Source, Task, TaskResult};
use sha2::{Digest as _, Sha256};

use crate::cli::{PR_HOST, Settings};
use crate::log::Log;
use crate::report::{self, Artifact};
use crate::{WorkerError, exec, handshake, shell};
use tftp::client::Destination;

/// The toolchain's program that builds.
const ENTRY: &str = "build";
/// Where it is run, below the directory of a build.
const WORK: &str = "work";
/// The list of packages that it leaves beside them.
const PACKAGES: &str = "packages.manifest";

/// Does one build and puts [`task::RESULT`]. Returns the outcome that the host was
/// told.
///
/// # Errors
/// The host does not know the result.
pub fn run(settings: &Settings) -> Result<Outcome, WorkerError> {
    let mut log = settings.create_log()?;
    let mut held = false;
    let (result, artifacts) = match try_run(settings, &mut log, &mut held) {
        Ok(outcome) => outcome,
        Err(error) => {
            let result = report::abnormal(&error);
            log.say(&result.message);
            (result, Vec::new())
        }
    };
    held &= !result.status.is_good();
    if held {
        // The host may look at the disk while we are suspended.
        rustix::fs::sync();
    }
    let told = report::report(&settings.client, &artifacts, log, result, task::RESULT)?;
    if held {
        shell::hold(settings, &settings.work.join(WORK));
    }
    Ok(told)
}

fn try_run(
    settings: &Settings,
    log: &mut Log,
    held: &mut bool,
) -> Result<(TaskResult, Vec<Artifact>), WorkerError> {
    handshake::for_the_task(log)?;
    let task = fetch_task(settings)?;
    *held = task.hold;
    if task.interactive == Some(Breakpoint::Attach) {
        shell::breakpoint(settings, &settings.work.join(WORK), log)?;
        return Ok((TaskResult::new(Outcome::Abort), Vec::new()));
    }
    log.say(&format!(
        "build {} on {} with the toolchain {}",
        task.build, task.machine, task.toolchain
    ));
    let dirs = BuildDirs::create(&settings.work)?;
    for source in &task.sources {
        let size = fetch_source(settings, source, &dirs.sources)?;
        log.say(&format!("fetched {}, {size} bytes", source.name));
    }
    if task.interactive == Some(Breakpoint::Start) {
        shell::breakpoint(settings, &dirs.work, log)?;
    }
    let program = settings.toolchain.join(ENTRY);
    let environment = dirs.environment(settings, &task);
    let status = exec::run(&program, &dirs.work, &environment, log)?;
    let (artifacts, faults) = artifacts(&dirs.out)?;
    let mut result = TaskResult::new(Outcome::Success);
    let packages = if status.success() && faults.is_empty() {
        packages(&dirs.out, &artifacts)
    } else if status.success() {
        Err(faults.join("\n"))
    } else {
        Err(exec::failed(ENTRY, status, log))
    };
    match packages {
        Ok(packages) => result.packages = packages,
        Err(message) => {
            result.status = Outcome::Error;
            result.message = message;
        }
    }
    let stops = |point: Breakpoint| point.stops(result.status);
    if task.interactive.is_some_and(stops) {
        shell::breakpoint(settings, &dirs.work, log)?;
    }
    Ok((result, artifacts))
}

/// The directories of one build.
struct BuildDirs {
    sources: PathBuf,
    out: PathBuf,
    work: PathBuf,
}

impl BuildDirs {
    fn create(below: &Path) -> Result<Self, WorkerError> {
        let dirs = Self {
            sources: below.join("sources"),
            out: below.join("out"),
            work: below.join(WORK),
        };
        for place in [&dirs.sources, &dirs.out, &dirs.work] {
            empty_directory(place)?;
        }
        Ok(dirs)
    }

    /// What the toolchain's `build` is told.
    fn environment(&self, settings: &Settings, task: &Task) -> Vec<(&'static str, OsString)> {
        vec![
            ("BUILDHOST_SOURCES", self.sources.clone().into()),
            ("BUILDHOST_OUT", self.out.clone().into()),
            ("BUILDHOST_WORKER", settings.worker.clone().into()),
            ("BUILDHOST_BUILD", task.build.to_string().into()),
            ("BUILDHOST_MACHINE", task.machine.to_string().into()),
            ("BUILDHOST_TOOLCHAIN", task.toolchain.to_string().into()),
            (PR_HOST, settings.pr_host.to_string().into()),
        ]
    }
}

/// Makes a directory that holds nothing.
fn empty_directory(path: &Path) -> Result<(), WorkerError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(WorkerError::disk(path)(error));
        }
        _ => {}
    }
    fs::create_dir_all(path).map_err(WorkerError::disk(path))
}

fn fetch_task(settings: &Settings) -> Result<Task, WorkerError> {
    let mut text = Vec::new();
    fetch(settings, task::TASK, &mut text)?;
    Ok(Task::parse(&String::from_utf8_lossy(&text))?)
}

fn fetch(settings: &Settings, name: &str, to: &mut impl Destination) -> Result<u64, WorkerError> {
    let fetched = settings.client.get(name, to);
    fetched.map_err(|source| WorkerError::Fetch {
        name: name.to_owned(),
        source,
    })
}

fn fetch_source(settings: &Settings, source: &Source, into: &Path) -> Result<u64, WorkerError> {
    let path = into.join(&source.name);
    let mut file = Hashing {
        file: File::create(&path).map_err(WorkerError::disk(path))?,
        hash: Sha256::new(),
    };
    let name = format!("{}{}", task::SOURCES, source.name);
    let size = fetch(settings, &name, &mut file)?;
    let found = hexadecimal(&file.hash.finalize());
    if found == source.sha256.as_str() {
        Ok(size)
    } else {
        Err(WorkerError::Hash {
            name: source.name.clone(),
            expected: source.sha256.clone(),
            found,
        })
    }
}

/// A file whose hash is known when it is written.
struct Hashing {
    file: File,
    hash: Sha256,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Destination for Hashing {
    fn restart(&mut self) -> io::Result<()> {
        self.hash = Sha256::new();
        self.file.restart()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    let digits = |byte: &u8| [digit(byte >> 4), digit(byte & 15)];
    bytes.iter().flat_map(digits).collect()
}

/// The files that a build left, and what is wrong with the others.
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
            faults.push(format!("`{name}` among the artifacts is not a file"));
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

/// The packages that a build says it made; each must be among the artifacts.
fn packages(out: &Path, artifacts: &[Artifact]) -> Result<Vec<Package>, String> {
    let text = match fs::read_to_string(out.join(PACKAGES)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{PACKAGES} cannot be read: {error}")),
    };
    let packages =
        Package::parse_list(&text).map_err(|error| format!("{PACKAGES} is wrong: {error}"))?;
    let missing = |package: &&Package| !artifacts.iter().any(|a| a.name == package.file);
    match packages.iter().find(missing) {
        Some(package) => Err(format!(
            "{PACKAGES} names {}, which is not among the artifacts",
            package.file
        )),
        None => Ok(packages),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_digits() {
        assert_eq!(hexadecimal(&[0, 0x1f, 0xff]), "001fff");
    }

    fn out(files: &[(&str, &str)]) -> tempfile::TempDir {
        let out = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let mut file = File::create(out.path().join(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
        out
    }

    #[test]
    fn what_a_build_leaves_is_looked_at_closely() {
        let out = out(&[("b.ipk", ""), ("a.ipk", ""), ("with blank", "")]);
        fs::create_dir(out.path().join("directory")).unwrap();
        let (artifacts, faults) = artifacts(out.path()).unwrap();
        let names: Vec<_> = artifacts.iter().map(|a| a.name.as_str()).collect();
        assert_eq!(names, ["a.ipk", "b.ipk"]);
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn a_package_must_be_there() {
        let text = ": 1\npackage: p\nversion: 1\nrecipe-revision: r0\narchitecture: all\nchecksum: c\nfile: p.ipk\n";
        let there = out(&[(PACKAGES, text), ("p.ipk", "")]);
        let (files, _) = artifacts(there.path()).unwrap();
        assert_eq!(packages(there.path(), &files).unwrap().len(), 1);
        assert_eq!(
            packages(there.path(), &[]).unwrap_err(),
            "packages.manifest names p.ipk, which is not among the artifacts"
        );
        let wrong = out(&[(PACKAGES, ": 1\npackage: p\n")]);
        assert_eq!(
            packages(wrong.path(), &[]).unwrap_err(),
            "packages.manifest is wrong: the value `file` is missing"
        );
        assert_eq!(packages(out(&[]).path(), &[]), Ok(Vec::new()));
    }
}
