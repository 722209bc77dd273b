//! Child processes that see only chosen files and directories of the host.
//!
//! A view is the root of a mount namespace: it holds what its creator adds, and nothing else. The
//! mounts of the host do not change, and those of the view end with the last process in it.
//!
//! A tool that reads data of others as root is started in a view by [`MountView::start`]. It has
//! no network unless its view keeps that of the host, sees no process but its own, keeps only the
//! capabilities that its caller names, and can neither gain others nor change its view.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, FileType, Mode, fstat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{chdir, pivot_root, umask};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set, set_no_new_privs};

use crate::command::{self, CommandError, Running};
use crate::syscall_filter;

pub use crate::syscall_filter::Ioctls;

/// The directories of programs and libraries.
const PROGRAM_DIRECTORIES: [&str; 8] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix", "/gnu",
];
/// The files by which programs find other hosts and verify them.
const NETWORK_FILES: [&str; 10] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/ssh",
];
/// The place at which a view is built before it becomes the root. It exists on every host, and
/// neither programs nor volumes lie below it.
const ROOT: &str = "/proc";
/// The directory with the processes of a tool.
const PROCESSES: &str = "/proc";
/// The attributes of all mounts of a view, except devices.
const HARMLESS: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
/// The attributes of those that cannot be written to.
const READ_ONLY: u64 = HARMLESS | libc::MOUNT_ATTR_RDONLY;

/// The files and directories that a child process sees.
#[derive(Debug, Default)]
pub struct MountView {
    host_paths: Vec<PathBuf>,
    devices: Vec<PathBuf>,
    mounts: Vec<ViewMount>,
    writable: Vec<PathBuf>,
    processes: Processes,
    host_network: bool,
}

/// The processes that a view shows in `/proc`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Processes {
    #[default]
    None,
    /// Those of the tool's own process namespace, which are mounted when it starts.
    OfTool,
    /// Those of the program's user.
    OfUser,
}

#[derive(Debug)]
struct ViewMount {
    /// A mount that is not attached yet.
    tree: OwnedFd,
    target: PathBuf,
    attributes: u64,
}

/// The rights of a tool that runs as root in a view.
#[derive(Debug, Clone, Copy)]
pub struct Rights {
    /// Its capabilities.
    pub capabilities: CapabilitySet,
    /// The control operations that it may use.
    pub ioctls: Ioctls,
}

impl MountView {
    /// Returns a view of the host's programs and libraries.
    pub fn of_programs() -> Self {
        let mut view = Self::default();
        view.add_host_paths(PROGRAM_DIRECTORIES);
        // Programs read from it when they get no input.
        view.add_device("/dev/null");
        view
    }

    /// Adds files and directories of the host, read-only, at their own paths. A path that is a
    /// link is a link in the view. Paths that do not exist are left out.
    pub fn add_host_paths<P: Into<PathBuf>>(&mut self, paths: impl IntoIterator<Item = P>) {
        self.host_paths.extend(paths.into_iter().map(Into::into));
    }

    /// Adds a device of the host.
    pub fn add_device(&mut self, path: impl Into<PathBuf>) {
        self.devices.push(path.into());
    }

    /// Adds a detached mount of a file or a directory, read-only, at an absolute path of the view.
    pub fn mount(&mut self, tree: OwnedFd, target: impl Into<PathBuf>) {
        self.mount_with(tree, target.into(), READ_ONLY);
    }

    /// Adds a detached mount as [`MountView::mount`] does, but writable.
    pub fn mount_writable(&mut self, tree: OwnedFd, target: impl Into<PathBuf>) {
        self.mount_with(tree, target.into(), HARMLESS);
    }

    fn mount_with(&mut self, tree: OwnedFd, target: PathBuf, attributes: u64) {
        self.mounts.push(ViewMount {
            tree,
            target,
            attributes,
        });
    }

    /// Makes a directory of the view writable: one on a mount that was added.
    pub fn make_writable(&mut self, path: impl Into<PathBuf>) {
        self.writable.push(path.into());
    }

    /// Adds `/proc` with the processes of the tool itself, for [`MountView::start`]. libc changes the
    /// modes of devices and pipes by it.
    pub fn add_processes(&mut self) {
        self.processes = Processes::OfTool;
    }

    /// Adds `/proc` with the processes of the program's own user, for [`MountView::run`]. The
    /// program opens its descriptors by it. A user that no other process has sees only its own.
    pub fn add_processes_of_user(&mut self) {
        self.processes = Processes::OfUser;
    }

    /// Leaves the host's network to the tool, with the files by which it finds and verifies other
    /// hosts, for [`MountView::start`].
    pub fn keep_network(&mut self) {
        self.host_network = true;
        self.add_host_paths(NETWORK_FILES);
    }

    /// Starts a program that sees only this view and has at most these rights.
    ///
    /// # Errors
    /// The view cannot be built, which needs root, or the program cannot be started.
    pub fn start(mut self, command: Command, rights: Rights) -> Result<Running, CommandError> {
        self.add_host_paths(program_directory(&command));
        let host_network = self.host_network;
        Running::start_with(command, |command| {
            if self.processes == Processes::OfTool {
                mount_processes(command);
            }
            syscall_filter::apply(command, rights.ioctls)?;
            self.run(|| {
                isolate(host_network)?;
                limit_capabilities(rights.capabilities)?;
                command.spawn()
            })
        })
    }

    /// Runs a function that starts a program, in a thread whose root is this view. The thread must
    /// leave no other threads behind.
    ///
    /// # Errors
    /// The view cannot be built, which needs root, or the function fails.
    pub fn run(self, start: impl FnOnce() -> io::Result<Child> + Send) -> io::Result<Child> {
        // The namespace and the root belong to the thread. Both end with its child.
        thread::scope(|scope| {
            let thread = scope.spawn(|| self.enter().and_then(|()| start()));
            let started = thread.join();
            started.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves this thread into a new mount namespace with this view as its root.
    fn enter(&self) -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        // With the namespace, the thread got a mask of its own. Other users pass through the view.
        umask(Mode::WGRP | Mode::WOTH);
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private)?;
        let root = Path::new(ROOT);
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", root, "tmpfs", flags, c"mode=0755,size=1m")?;
        for path in &self.host_paths {
            add_host_path(root, path)?;
        }
        for path in &self.devices {
            let tree = clone_mount(path)?;
            set_attributes(tree.as_fd(), libc::MOUNT_ATTR_NOSUID, 0)?;
            attach(tree.as_fd(), &below(root, path))?;
        }
        if self.processes != Processes::None {
            let directory = below(root, Path::new(PROCESSES));
            fs::create_dir(&directory)?;
            if self.processes == Processes::OfUser {
                let flags = flags | MountFlags::NOEXEC;
                mount("proc", &directory, "proc", flags, c"subset=pid,hidepid=2")?;
            }
        }
        for mount in &self.mounts {
            set_attributes(mount.tree.as_fd(), mount.attributes, 0)?;
            attach(mount.tree.as_fd(), &below(root, &mount.target))?;
        }
        for path in &self.writable {
            let path = below(root, path);
            let tree = clone_mount(&path)?;
            set_attributes(tree.as_fd(), HARMLESS, libc::MOUNT_ATTR_RDONLY)?;
            attach(tree.as_fd(), &path)?;
        }
        // Not the mounts below it, some of which are writable.
        let flags = MountFlags::BIND | MountFlags::RDONLY | flags;
        rustix::mount::mount_remount(root, flags, "")?;
        chdir(root)?;
        pivot_root(".", ".")?;
        // The old root lies over the new one, from which it is unmounted.
        unmount(".", UnmountFlags::DETACH)?;
        Ok(chdir("/")?)
    }
}

/// Gives this thread's children an IPC and a process namespace of their own, and a network unless
/// they keep the host's. The thread itself can start no more threads.
fn isolate(host_network: bool) -> io::Result<()> {
    let mut namespaces = CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWPID;
    namespaces.set(CloneFlags::CLONE_NEWNET, !host_network);
    Ok(unshare(namespaces)?)
}

/// Changes a command so that it begins by mounting its process namespace.
#[expect(unsafe_code, reason = "std has no other way to run code in the child")]
fn mount_processes(command: &mut Command) {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let run = move || Ok(mount(c"proc", c"/proc", c"proc", flags, c"subset=pid")?);
    // SAFETY: between fork and exec, the closure only makes a system call. It neither allocates
    // nor takes locks.
    unsafe { command.pre_exec(run) };
}

/// Limits the capabilities of the programs that this thread starts, which cannot gain others. Those
/// that it has already are left to it.
///
/// # Errors
/// The thread may not change them.
pub fn limit_capabilities(capabilities: CapabilitySet) -> io::Result<()> {
    for capability in CapabilitySet::all().difference(capabilities).iter() {
        match remove_capability_from_bounding_set(capability) {
            // An older kernel does not have it.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(set_no_new_privs(true)?)
}

/// Returns the directory of a program that is outside of the directories of all programs.
fn program_directory(command: &Command) -> Option<PathBuf> {
    let program = command::find(command.get_program())?;
    let mut known = PROGRAM_DIRECTORIES.iter();
    let is_known = known.any(|it| program.starts_with(it));
    program.parent().filter(|_| !is_known).map(Path::to_owned)
}

/// Adds a file or a directory of the host to the view below `root`, or the link that it is.
fn add_host_path(root: &Path, path: &Path) -> io::Result<()> {
    let target = below(root, path);
    if let Ok(link) = fs::read_link(path) {
        if target.symlink_metadata().is_ok() {
            return Ok(());
        }
        create_parent(&target)?;
        return symlink(link, target);
    }
    let tree = match clone_mount(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        tree => tree?,
    };
    set_attributes(tree.as_fd(), READ_ONLY, 0)?;
    attach(tree.as_fd(), &target)
}

/// Returns a detached mount of a file or a directory, and of all mounts below it.
///
/// # Errors
/// The path does not exist, or the caller is not root.
pub fn clone_mount(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(CWD, path, flags)?)
}

/// Returns a detached mount of an open file.
///
/// # Errors
/// The file has no name any more, or the caller is not root.
pub fn clone_mount_of(file: impl AsFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(file, "", flags)?)
}

/// Attaches a detached mount at a path, which is created if it does not exist.
fn attach(tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    if target.symlink_metadata().is_err() {
        create_parent(target)?;
        if FileType::from_raw_mode(fstat(tree)?.st_mode).is_dir() {
            fs::create_dir(target)?;
        } else {
            fs::File::create(target)?;
        }
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(tree, "", CWD, target, flags)?)
}

fn create_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Sets and then clears attributes of a detached mount and of the mounts below it.
#[expect(
    unsafe_code,
    reason = "no crate has this system call as a safe function"
)]
fn set_attributes(tree: BorrowedFd<'_>, set: u64, clear: u64) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: The kernel reads the path, which ends with a null byte, and the attributes, whose
    // size it is told. It keeps neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Returns the place of an absolute path in a view that is built below `root`.
fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}
