//! Kills and errors at chosen system calls of a program, injected by strace.
//!
//! A wrapper script of the program's name starts the program under strace, so that another program
//! or another host can start it, too. strace counts the calls of each process separately: a fault
//! at the third `rename` hits a process and its child at their third `rename`.
//!
//! strace writes the trace to a named pipe, because a confined program sees the wrapper on a
//! read-only mount, on which it can write to no file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::ioctl_fionread;
use tempfile::TempDir;

use crate::write_file;

/// The system calls that can change something on the disk, and those that read from it.
const CALLS: [&str; 34] = [
    "ioctl",
    "rename",
    "renameat",
    "renameat2",
    "symlink",
    "symlinkat",
    "link",
    "linkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "unlink",
    "unlinkat",
    "fsync",
    "openat",
    "write",
    "pwrite64",
    "copy_file_range",
    "fallocate",
    "truncate",
    "ftruncate",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "lchown",
    "fchown",
    "fchownat",
    "utimensat",
    "setxattr",
    "lsetxattr",
    "flock",
    "read",
    "pread64",
];
/// Substrings of such calls, as strace prints them, that change nothing lasting.
const HARMLESS: [&str; 10] = [
    "TCGETS",
    "BTRFS_IOC_FS_INFO",
    "BTRFS_IOC_GET_",
    "BTRFS_IOC_INO_LOOKUP",
    "BTRFS_IOC_SUBVOL_GETFLAGS",
    "BTRFS_IOC_TREE_SEARCH",
    "flock(",
    "read(",
    "pread64(",
    "write(2,",
];
/// The verb that a caller uses for queries. No fault is injected into it, so that the caller
/// proceeds to the call that changes something.
const QUERY_VERB: &str = "status";
/// The name of the pipe beside the wrapper.
const PIPE: &str = "trace";

/// A system call of a process at which a fault can be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultPoint {
    /// The index of the system call in [`CALLS`].
    call: usize,
    /// The number of the call among those with the same name, from 1.
    occurrence: usize,
}

impl std::fmt::Display for FaultPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", CALLS[self.call], self.occurrence)
    }
}

/// A program that runs under strace.
#[derive(Debug)]
pub struct TracedProgram {
    directory: TempDir,
    program: PathBuf,
    trace: Arc<Trace>,
}

/// The trace of a program.
#[derive(Debug)]
struct Trace {
    /// The pipe, which is open for writing, too, so that it never ends.
    pipe: File,
    text: Mutex<Vec<u8>>,
}

impl Trace {
    /// Creates a named pipe, and reads it in a thread as long as this process runs.
    fn create(path: &Path) -> Arc<Self> {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let pipe = File::options().read(true).write(true).open(path);
        let trace = Arc::new(Self {
            pipe: pipe.expect("a pipe"),
            text: Mutex::default(),
        });
        let reader = Arc::clone(&trace);
        thread::spawn(move || {
            loop {
                let mut ready = [PollFd::new(&reader.pipe, PollFlags::IN)];
                poll(&mut ready, None).expect("a readable pipe");
                reader.drain();
            }
        });
        trace
    }

    /// Reads everything that is in the pipe, and returns the whole trace.
    fn drain(&self) -> String {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0; 8192];
        while ioctl_fionread(&self.pipe).expect("a number of bytes") > 0 {
            let count = (&self.pipe).read(&mut buffer).expect("bytes");
            text.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    fn clear(&self) {
        self.drain();
        self.text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl TracedProgram {
    /// Creates a wrapper of a program that injects no faults yet.
    pub fn new(program: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let trace = Trace::create(&directory.path().join(PIPE));
        let traced = Self {
            directory,
            program: program.to_owned(),
            trace,
        };
        traced.write_wrapper("");
        traced
    }

    /// Returns the path of the wrapper, which has the name of the program.
    pub fn path(&self) -> PathBuf {
        let name = self.program.file_name().unwrap_or_default();
        self.directory.path().join(name)
    }

    /// Injects a fault, in strace's notation, at a point of each process from now on.
    pub fn inject(&self, point: FaultPoint, fault: &str) {
        let (call, occurrence) = (CALLS[point.call], point.occurrence);
        self.write_wrapper(&format!("--inject={call}:{fault}:when={occurrence}"));
    }

    fn write_wrapper(&self, injection: &str) {
        let program = self.program.display();
        let pipe = self.directory.path().join(PIPE);
        let calls = CALLS.map(|call| format!("?{call}")).join(",");
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *' {QUERY_VERB} '*) exec {program} \"$@\";; esac\n\
             exec strace -f -qq -A -o {} --trace={calls} {injection} {program} \"$@\"\n",
            pipe.display()
        );
        write_file(&self.path(), &script);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.path(), mode).expect("a script");
        self.trace.clear();
    }

    /// Returns true if the fault has hit a process since [`TracedProgram::inject`].
    pub fn was_hit(&self) -> bool {
        let trace = self.trace.drain();
        trace.contains("(INJECTED)") || trace.contains("killed by SIGKILL")
    }

    /// Returns the system calls of the last run, in the order of `CALLS`; with `only_changes`,
    /// those that change something.
    pub fn fault_points(&self, only_changes: bool) -> Vec<FaultPoint> {
        let text = self.trace.drain();
        let mut counts: BTreeMap<(&str, usize), usize> = BTreeMap::new();
        let mut points: BTreeMap<FaultPoint, bool> = BTreeMap::new();
        for line in text.lines() {
            let Some((process, trace)) = line.split_once(' ') else {
                continue;
            };
            let name = trace.trim_start().split('(').next().unwrap_or_default();
            if let Some(call) = CALLS.iter().position(|call| *call == name) {
                let count = counts.entry((process, call)).or_default();
                *count += 1;
                let occurrence = *count;
                let point = FaultPoint { call, occurrence };
                *points.entry(point).or_default() |= is_change(trace);
            }
        }
        let mut points: Vec<_> = points.into_iter().collect();
        points.retain(|(_, is_change)| *is_change || !only_changes);
        points.into_iter().map(|(point, _)| point).collect()
    }
}

/// Returns true if a call, as strace prints it, changes something.
fn is_change(trace: &str) -> bool {
    let only_opens =
        trace.contains("openat(") && !trace.contains("O_CREAT") && !trace.contains("O_TRUNC");
    !only_opens && !HARMLESS.iter().any(|it| trace.contains(it))
}
