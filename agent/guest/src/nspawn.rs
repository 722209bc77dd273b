//! Guests of the kind nspawn, containers: systemd-nspawn in a process namespace of its own,
//! so that everything in a container ends with it.
//!
//! Root in a container is an unprivileged user of the host: its users are a range of
//! numbers that nothing else has, mapped where the snapshot is mounted. It gets no device,
//! no directory and no descriptor of the host. The host owns its network and sets it up, so
//! that the container can neither change it nor forge packets.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use config::machine::{INIT, is_systemd};
use rustix::fs::{Mode, OFlags};
use sys::command;
use tracing::debug;

use crate::cgroup;
use crate::error::GuestError;
use crate::network::Network;
use crate::process::Process;
use crate::run_dir::{self, StderrPipe};
use crate::spec::{BootMode, Spec};

/// The descriptor of the namespace with the container's end of the network.
const NETWORK: i32 = 3;
/// The descriptor of the console's input.
const CONSOLE_INPUT: i32 = 4;
/// The first number of the descriptors that nspawn only keeps open.
const KEEP_OPEN: i32 = 5;

/// The script that the guest's process runs first: it waits at the [`Gate`].
/// The container does not inherit the agent's umask.
const WAIT: &str = "umask 022 && read -r go && exec \"$@\" <&4 4<&-";

/// The script that runs before nspawn, in a mount namespace of its own: it hides the
/// directories in which nspawn would leave files, or from which it would show files of the
/// host. The volume is mounted with nosuid, but set-uid programs of the container work: they give
/// the rights of its own users.
const PRELUDE: &str = "root=$1 && shift && \
    mount --bind \"$root\" \"$root\" && \
    mount -o remount,bind,suid,nodev \"$root\" && \
    mkdir -p /run/systemd/nspawn && \
    mount -t tmpfs -o mode=755,size=1m none /run/systemd/nspawn && \
    mount -t cgroup2 none /sys/fs/cgroup && \
    exec \"$@\"";

/// The capabilities that root in a container lacks even over its own namespaces: no build
/// needs them, and they reach the largest attack surface of the kernel.
const DROPPED_CAPABILITIES: [&str; 10] = [
    "CAP_SYS_ADMIN",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_NICE",
    "CAP_SYS_TTY_CONFIG",
    "CAP_NET_RAW",
    "CAP_NET_BROADCAST",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
];

/// The input on which a started container waits until its process record is written.
/// Dropping it ends the container.
#[derive(Debug)]
pub(crate) struct Gate(ChildStdin);

impl Gate {
    /// Lets the container begin.
    pub(crate) fn open(mut self) -> io::Result<()> {
        self.0.write_all(b"go\n")
    }
}

/// Starts nspawn up to the gate, and writes the process record.
pub(crate) fn start(spec: Spec) -> Result<(Process, Gate), GuestError> {
    if spec.boot != BootMode::Cold {
        return Err(GuestError::Container);
    }
    let root = root(&spec)?;
    let network = Network::open(&spec.network)?;
    let inside = network.create_container_end(spec.port)?;
    let stdout = create_pipe(&spec.run_dir.join(run_dir::CONSOLE))?;
    let input = create_pipe(&spec.run_dir.join(run_dir::CONSOLE_INPUT))?;
    let stderr = StderrPipe::writer(&spec.run_dir).map_err(GuestError::run_dir(&spec.run_dir))?;
    let group = spec.group();
    let arguments = command_line(&spec, &root, &hidden_paths().map_err(GuestError::Spawn)?);
    let own = [(inside, NETWORK), (input.into(), CONSOLE_INPUT)];
    let kept = spec.keep_open.into_iter().zip(KEEP_OPEN..);
    let descriptors = own.into_iter().chain(kept);
    let descriptors = descriptors.map(|(parent_fd, child_fd)| FdMapping {
        parent_fd,
        child_fd,
    });
    let mut nspawn = command::prepare("sh");
    nspawn
        .args(arguments)
        // Otherwise nspawn searches the image for the cgroup version that it expects.
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .fd_mappings(descriptors.collect())
        .map_err(|error| GuestError::Spawn(io::Error::other(error)))?;
    // Not waited for as a child: `Process` takes its status by the descriptor.
    let mut child = network
        .enter(|| nspawn.spawn())
        .map_err(GuestError::Spawn)?;
    debug!(pid = child.id(), "started nspawn");
    let gate = child.stdin.take().map(Gate);
    let gate = gate.ok_or_else(|| GuestError::Spawn(io::Error::other("it has no input")))?;
    let process = Process::of_child(child.id(), spec.machine.kind)
        .map_err(GuestError::Pidfd)?
        .limit_and_record(&spec.machine, &group, &spec.run_dir, &root)?;
    Ok((process, gate))
}

/// Creates a named pipe and opens it for both directions, so that it stays open without the
/// agent.
fn create_pipe(path: &Path) -> Result<File, GuestError> {
    let created = run_dir::create_pipe(path);
    let opened = created.and_then(|()| sys::trusted::open_read_write(path));
    opened.map_err(GuestError::run_dir(path))
}

/// Opens the output of a container's console, from now on.
pub(crate) fn console_output(run_dir: &Path) -> io::Result<File> {
    open_pipe(&run_dir.join(run_dir::CONSOLE), OFlags::RDONLY)
}

/// Opens the input of a container's console. A container of an older agent has none.
pub(crate) fn console_input(run_dir: &Path) -> io::Result<Option<File>> {
    let path = run_dir.join(run_dir::CONSOLE_INPUT);
    match open_pipe(&path, OFlags::WRONLY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// Opens a named pipe without waiting for a process at its other end, in blocking mode.
fn open_pipe(path: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pipe = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::io::ioctl_fionbio(&pipe, false)?;
    Ok(pipe.into())
}

/// Returns the root directory of the container.
fn root(spec: &Spec) -> Result<PathBuf, GuestError> {
    let root = spec.directory.join(&spec.machine.disk);
    let is_directory = fs::symlink_metadata(&root).and_then(|root| {
        if root.is_dir() {
            Ok(())
        } else {
            Err(io::Error::other("it is not a directory"))
        }
    });
    match is_directory {
        Ok(()) if starts_systemd(&root) => Err(GuestError::Systemd),
        Ok(()) => Ok(root),
        Err(source) => Err(GuestError::Open { path: root, source }),
    }
}

fn starts_systemd(root: &Path) -> bool {
    let init = sys::untrusted::resolve_in_root(root, INIT);
    init.is_ok_and(|init| is_systemd(&init))
}

/// Returns the directories of the host that a container would see.
fn hidden_paths() -> io::Result<Vec<PathBuf>> {
    let mut paths = sys::file::entries(Path::new("/sys"))?;
    paths.retain(|path| path.is_dir());
    paths.sort();
    // The host's tap driver, which a container could open and not use.
    paths.push("/dev/net".into());
    Ok(paths)
}

/// Returns the command line of `sh`, without the program. Starts nothing.
fn command_line(spec: &Spec, root: &Path, hidden: &[PathBuf]) -> Vec<OsString> {
    let network = format!("--net=/proc/self/fd/{NETWORK}");
    let namespaces = [
        "--fork",
        "--kill-child",
        "--pid",
        "--mount-proc",
        "--cgroup",
    ];
    let mut fixed = vec!["-c", WAIT, "sh", "unshare"];
    fixed.extend(namespaces);
    fixed.extend(["--", "nsenter", &network]);
    fixed.extend(["--", "sh", "-c", PRELUDE, "sh"]);
    let mut line: Vec<_> = fixed.into_iter().map(OsString::from).collect();
    line.push(root.into());
    let fixed = [
        "systemd-nspawn",
        "--quiet",
        // Neither a session of systemd, nor files of the host or beside the image.
        "--register=no",
        "--keep-unit",
        "--settings=no",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        // A terminal of its own for its output and input.
        "--console=interactive",
        "--private-users=pick",
        "--private-users-ownership=map",
    ];
    line.extend(fixed.into_iter().map(OsString::from));
    line.push(format!("--machine={}", spec.network).into());
    line.push(format!("--drop-capability={}", DROPPED_CAPABILITIES.join(",")).into());
    line.push(format!("--rlimit=NPROC={}", cgroup::PROCESSES_MAX).into());
    let hide = |path: &PathBuf| format!("--tmpfs={}:mode=555", path.display()).into();
    line.extend(hidden.iter().map(hide));
    line.extend(spec.machine.options.iter().map(OsString::from));
    line.push("--directory".into());
    line.push(root.into());
    line.push(INIT.into());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_recognized_through_the_links_of_the_root() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("usr/sbin")).unwrap();
        std::os::unix::fs::symlink("usr/sbin", root.join("sbin")).unwrap();
        assert!(!starts_systemd(root));
        fs::create_dir_all(root.join("usr/lib/systemd")).unwrap();
        File::create(root.join("usr/lib/systemd/systemd")).unwrap();
        let init = root.join("usr/sbin/init");
        std::os::unix::fs::symlink("/usr/lib/systemd/systemd", &init).unwrap();
        assert!(starts_systemd(root));
        fs::remove_file(&init).unwrap();
        File::create(init).unwrap();
        assert!(!starts_systemd(root));
    }

    #[test]
    fn a_container_gets_nothing_of_the_host() {
        let manifest = ": 1\nid: d\nsummary: d\ntype: nspawn\n";
        let spec = Spec::example(manifest);
        let root = spec.directory.join("root");
        let hidden = ["/sys/class".into(), "/dev/net".into()];
        let line = command_line(&spec, &root, &hidden);
        let line: Vec<_> = line.iter().map(|it| it.to_str().unwrap()).collect();
        insta::assert_snapshot!(line.join("\n"));
    }
}
