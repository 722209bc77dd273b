//! Child processes whose root is a user without rights on the host.
//!
//! They are for programs of others that expect to be root, such as those that install packages:
//! root of a user namespace can create files of any of its users, mount file systems and change
//! its root directory, but only inside of a [`MountView`]. It owns nothing else on the host, so it
//! reads what every user can read there. It sees only its own processes, which end with this
//! process. Its network is the host's.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Gid, Signal, Uid, set_parent_process_death_signal};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::command::{self, Running};
use crate::descriptors;
use crate::mount_view::MountView;

/// The number of users in a namespace.
const USERS: u32 = 1 << 16;
/// The start of the host's user IDs for namespaces: above those of confined programs, and below
/// the IDs that some programs read as negative.
const FIRST_USER: u32 = 2_110_000_000;
/// The number of ranges, of which each namespace has one.
const RANGES: u32 = 512;
/// The beginning of the names under which the ranges in use are reserved.
const RESERVED: &str = "buildhost-users-";
/// The number of last lines of output that are kept.
const LINES_MAX: usize = 12;
/// The number of bytes of a line that are kept.
const LINE_BYTES_MAX: usize = 1024;

/// A user namespace with a range of the host's user IDs.
#[derive(Debug)]
pub struct UserNamespace {
    descriptor: OwnedFd,
    range: UserRange,
}

/// A range of the host's user IDs that no other namespace has. The kernel releases it with this
/// process, however that ends.
#[derive(Debug)]
struct UserRange {
    first: u32,
    _reservation: UnixDatagram,
}

impl UserRange {
    /// Reserves a free range.
    fn reserve() -> io::Result<Self> {
        let start = std::process::id() % RANGES;
        for number in (start..RANGES).chain(0..start) {
            let name = SocketAddr::from_abstract_name(format!("{RESERVED}{number}"))?;
            match UnixDatagram::bind_addr(&name) {
                Ok(reservation) => {
                    return Ok(Self {
                        first: FIRST_USER + number * USERS,
                        _reservation: reservation,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!(
            "all {RANGES} ranges of users are in use by other programs that make images"
        )))
    }
}

/// The end of a program in a namespace.
#[derive(Debug)]
pub struct Ended {
    /// The exit status; `None` if the program exceeded its time limit and was killed.
    pub status: Option<ExitStatus>,
    /// The last lines of its output.
    pub last_lines: Vec<String>,
}

impl UserNamespace {
    /// Creates a namespace.
    ///
    /// # Errors
    /// The caller is not root, the kernel has no user namespaces, or all ranges are in use.
    pub fn create() -> io::Result<Self> {
        let range = UserRange::reserve()?;
        let root = range.first;
        let mut holder = command::prepare("cat");
        holder.stdin(Stdio::piped()).stdout(Stdio::null());
        enter_new_namespace(&mut holder);
        // The descriptor keeps the namespace when its first process has ended.
        let holder = Running::start(holder).map_err(io::Error::other)?;
        let process = format!("/proc/{}", holder.child.id());
        for map in ["uid_map", "gid_map"] {
            let map = crate::trusted::open_for_writing(format!("{process}/{map}"))?;
            io::Write::write_all(&mut &map, format!("0 {root} {USERS}").as_bytes())?;
        }
        let descriptor = crate::trusted::open(format!("{process}/ns/user"))?.into();
        Ok(Self { descriptor, range })
    }

    /// Returns the host's ID of the namespace's root, both as a user and as a group.
    pub fn root(&self) -> u32 {
        self.range.first
    }

    /// Runs a program as the namespace's root, which sees only this view, and returns its end.
    /// Passes on each line of its output and its messages.
    ///
    /// # Errors
    /// The view cannot be built, which needs root, or the program cannot be started.
    pub fn run(
        &self,
        mut view: MountView,
        mut command: Command,
        limit: Duration,
        on_line: impl FnMut(&str) + Send,
    ) -> io::Result<Ended> {
        view.add_processes();
        let namespace = self.descriptor.try_clone()?;
        let (output, writer) = io::pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        enter_namespace(&mut command, namespace);
        let mut lines = Lines::new(on_line);
        let mut status = None;
        view.run(|| {
            unshare(CloneFlags::CLONE_NEWPID)?;
            // The process ends with this thread, which therefore waits for it.
            let mut child = command.spawn()?;
            // The command keeps the other end of the pipe open.
            drop(command);
            status = wait(&mut child, output, limit, &mut lines)?;
            Ok(child)
        })?;
        Ok(Ended {
            status,
            last_lines: lines.last.into(),
        })
    }
}

/// Passes on the output of a process until its end. Kills it at the time limit.
fn wait(
    child: &mut Child,
    output: io::PipeReader,
    limit: Duration,
    lines: &mut Lines<impl FnMut(&str)>,
) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let mut output = File::from(OwnedFd::from(output));
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if !is_readable(&output, left)? {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        match output.read(&mut buffer)? {
            0 => break,
            count => lines.feed(&buffer[..count]),
        }
    }
    lines.end();
    child.wait().map(Some)
}

/// Waits until a pipe is readable or at its end. Returns false at the time limit.
fn is_readable(pipe: impl AsFd, limit: Duration) -> io::Result<bool> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&limit)) {
        Err(rustix::io::Errno::INTR) => Ok(true),
        polled => Ok(polled? > 0),
    }
}

/// Changes a command so that it starts as the first process of a new namespace.
#[expect(unsafe_code, reason = "std has no other way to run code in the child")]
fn enter_new_namespace(command: &mut Command) {
    let enter = || Ok(unshare(CloneFlags::CLONE_NEWUSER)?);
    // SAFETY: between fork and exec, the closure only makes a system call. It neither allocates
    // nor takes locks.
    unsafe { command.pre_exec(enter) };
}

/// Changes a command so that it starts as the root of a namespace, with the processes of its own
/// process namespace in `/proc`. It ends with the thread that starts it.
#[expect(unsafe_code, reason = "std has no other way to run code in the child")]
fn enter_namespace(command: &mut Command, namespace: OwnedFd) {
    let enter = move || {
        descriptors::close_on_exec()?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(c"proc", c"/proc", c"proc", flags, c"")?;
        setns(&namespace, CloneFlags::CLONE_NEWUSER)?;
        let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
        unshare(flags)?;
        set_thread_groups(&[])?;
        set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
        // A change of the user clears it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        Ok(())
    };
    // SAFETY: between fork and exec, the closure only makes system calls. It neither allocates
    // nor takes locks.
    unsafe { command.pre_exec(enter) };
}

/// The lines of an output that arrives in pieces.
struct Lines<F> {
    on_line: F,
    line: Vec<u8>,
    last: VecDeque<String>,
}

impl<F: FnMut(&str)> Lines<F> {
    fn new(on_line: F) -> Self {
        Self {
            on_line,
            line: Vec::new(),
            last: VecDeque::new(),
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            // Programs redraw a line of progress with carriage returns.
            if byte == b'\n' || byte == b'\r' {
                self.end();
            } else if self.line.len() < LINE_BYTES_MAX {
                self.line.push(byte);
            }
        }
    }

    /// Ends the current line, unless it is empty.
    fn end(&mut self) {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        if line.is_empty() {
            return;
        }
        (self.on_line)(&line);
        if self.last.len() == LINES_MAX {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, chown};
    use std::path::Path;

    use super::*;
    use crate::mount_view::clone_mount;

    const LIMIT: Duration = Duration::from_mins(1);

    fn run(script: &str, directory: &Path, limit: Duration) -> Ended {
        let namespace = UserNamespace::create().unwrap();
        chown(directory, Some(namespace.root()), Some(namespace.root())).unwrap();
        let mut view = MountView::of_programs();
        view.add_host_paths(["/etc/shadow"]);
        view.mount_writable(clone_mount(directory).unwrap(), "/target");
        let mut shell = command::prepare("sh");
        shell.args(["-c", script]);
        namespace.run(view, shell, limit, |_| {}).unwrap()
    }

    #[test]
    fn two_namespaces_have_different_users() {
        let ranges: Vec<_> = (0..3).map(|_| UserRange::reserve().unwrap()).collect();
        let first: std::collections::BTreeSet<_> = ranges.iter().map(|it| it.first).collect();
        assert_eq!(first.len(), 3);
        let last = FIRST_USER + (RANGES - 1) * USERS;
        let mut all = first.iter();
        let is_range =
            |it: &u32| (FIRST_USER..=last).contains(it) && (it - FIRST_USER).is_multiple_of(USERS);
        assert!(all.all(is_range));
    }

    #[test]
    fn lines_are_passed_on_and_the_last_ones_kept() {
        let mut passed = Vec::new();
        let mut lines = Lines::new(|line: &str| passed.push(line.to_owned()));
        lines.feed(b"one\ntw");
        lines.feed(b"o\r\n\n");
        for number in 0..LINES_MAX {
            lines.feed(format!("line {number}\n").as_bytes());
        }
        lines.feed(b"end");
        lines.end();
        assert_eq!(lines.last.len(), LINES_MAX);
        assert_eq!(lines.last.back().unwrap(), "end");
        assert_eq!(passed[..2], ["one", "two"]);
    }

    #[test]
    #[ignore = "needs root: real btrfs, QEMU and network namespaces"]
    fn root_of_a_namespace_installs_files_of_all_its_users() {
        let directory = tempfile::tempdir().unwrap();
        let script = "cd /target && mkdir new && touch new/file && chown 33:33 new/file && \
            mount -t tmpfs none new && unshare --pid --fork mount -t proc none /proc && id -u";
        let ended = run(script, directory.path(), LIMIT);
        assert!(ended.status.unwrap().success(), "{ended:?}");
        assert_eq!(ended.last_lines[0], "0");
        let owner = |name: &str| directory.path().join(name).metadata().unwrap().uid();
        assert_eq!(owner("new/file") - owner("new"), 33);
        assert!(owner("new") >= FIRST_USER);
    }

    #[test]
    #[ignore = "needs root: real btrfs, QEMU and network namespaces"]
    fn root_of_a_namespace_has_no_rights_on_the_host() {
        let directory = tempfile::tempdir().unwrap();
        for script in [
            "mknod /target/disk b 8 0",
            "mount -o remount,rw /usr",
            "touch /usr/planted",
            "kill -0 2",
            "cat /etc/shadow",
            "echo 1 >/proc/sys/kernel/sysrq",
            "ip link add dummy-planted type dummy",
        ] {
            let ended = run(script, directory.path(), LIMIT);
            assert!(!ended.status.unwrap().success(), "{script}: {ended:?}");
            let reason = ended.last_lines.join("; ");
            println!("installation of packages -> host | {script} | {reason}");
        }
    }

    #[test]
    #[ignore = "needs root: real btrfs, QEMU and network namespaces"]
    fn a_program_that_exceeds_its_limit_ends_with_all_its_processes() {
        let directory = tempfile::tempdir().unwrap();
        let script = "setsid sleep 1000 & echo begun; sleep 1000";
        let ended = run(script, directory.path(), Duration::from_secs(1));
        assert!(ended.status.is_none());
        assert_eq!(ended.last_lines, ["begun"]);
    }
}
