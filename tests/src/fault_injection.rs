//! Death and failure at chosen system calls of a program, by strace.
//!
//! The program is called through a script of its name, so it may also be one that
//! another program, or another host, starts. strace counts the calls of each process
//! by itself: a process and its child are both disturbed at their third `rename`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::put;

/// The calls by which something changes on the disk.
const CALLS: [&str; 32] = [
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
];
/// How such a call looks when it changes nothing, or nothing that lasts.
const HARMLESS: [&str; 8] = [
    "TCGETS",
    "BTRFS_IOC_FS_INFO",
    "BTRFS_IOC_GET_",
    "BTRFS_IOC_INO_LOOKUP",
    "BTRFS_IOC_SUBVOL_GETFLAGS",
    "BTRFS_IOC_TREE_SEARCH",
    "flock(",
    "write(2,",
];
/// What only asks; it is never disturbed, so that it comes to what changes.
const QUESTION: &str = "status";

/// A moment at which a process can be disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    call: usize,
    when: usize,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", CALLS[self.call], self.when)
    }
}

/// A stand-in for a program, which disturbs it.
#[derive(Debug)]
pub struct Disturbed {
    directory: TempDir,
    program: PathBuf,
}

impl Disturbed {
    /// A stand-in that only listens so far.
    ///
    /// # Panics
    /// When it cannot be made.
    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    pub fn new(program: &Path) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let program = program.to_owned();
        let disturbed = Self { directory, program };
        disturbed.prepare("");
        disturbed
    }

    /// What to call instead of the program; it has its name.
    pub fn path(&self) -> PathBuf {
        let name = self.program.file_name().unwrap_or_default();
        self.directory.path().join(name)
    }

    /// From now on a process of the program sees `what`, a word of strace, there.
    pub fn disturb(&self, point: Point, what: &str) {
        let (call, when) = (CALLS[point.call], point.when);
        self.prepare(&format!("--inject={call}:{what}:when={when}"));
    }

    #[expect(clippy::expect_used, reason = "a test cannot go on without it")]
    fn prepare(&self, injection: &str) {
        let (program, log) = (self.program.display(), self.log());
        let calls = CALLS.map(|call| format!("?{call}")).join(",");
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *' {QUESTION} '*) exec {program} \"$@\";; esac\n\
             exec strace -f -qq -A -o {} --trace={calls} {injection} {program} \"$@\"\n",
            log.display()
        );
        put(&self.path(), &script);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.path(), mode).expect("a script");
        put(&log, "");
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Whether a process was disturbed since [`Disturbed::disturb`].
    pub fn has_been(&self) -> bool {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        log.contains("(INJECTED)") || log.contains("killed by SIGKILL")
    }

    /// The moments at which the processes of the last call can be disturbed, in the
    /// order of our list; those where something changes only, if so wished.
    pub fn points(&self, changing: bool) -> Vec<Point> {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let mut counts: BTreeMap<(&str, usize), usize> = BTreeMap::new();
        let mut points: BTreeMap<Point, bool> = BTreeMap::new();
        for line in log.lines() {
            let Some((process, said)) = line.split_once(' ') else {
                continue;
            };
            let name = said.trim_start().split('(').next().unwrap_or_default();
            if let Some(call) = CALLS.iter().position(|call| *call == name) {
                let when = counts.entry((process, call)).or_default();
                *when += 1;
                let point = Point { call, when: *when };
                *points.entry(point).or_default() |= changes(said);
            }
        }
        let wanted = points.into_iter().filter(|(_, it)| *it || !changing);
        wanted.map(|(point, _)| point).collect()
    }
}

/// Whether a call, as strace shows it, changes anything.
fn changes(said: &str) -> bool {
    let opens = said.contains("openat(") && !said.contains("O_CREAT") && !said.contains("O_TRUNC");
    !opens && !HARMLESS.iter().any(|it| said.contains(it))
}
