//! The second kind of guest, a container: systemd-nspawn in a namespace of processes
//! of its own, so that everything in it ends with it.
//!
//! Root in a container is nobody on the host: its users are a range of numbers that
//! nothing else has, mapped where the snapshot is mounted. It gets no device, no
//! directory and no descriptor of the host. Its network is set up for it, and the
//! host owns it: it can neither change it nor forge packets.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use sys::command;
use tokio::net::unix::pipe;
use tracing::debug;

use crate::cgroup;
use crate::error::GuestError;
use crate::guest::{BootMode, Spec};
use crate::network::Network;
use crate::process::Handle;
use crate::run_dir as run;

/// The descriptor of the namespace with the container's end of the network.
const NETWORK: i32 = 3;
/// The descriptor of what is typed on its console.
const KEYBOARD: i32 = 4;
/// What is only kept open follows from here on.
const KEEP: i32 = 5;

/// What the process of a guest does first: nothing, before we say so.
const WAIT: &str = "read -r go && exec \"$@\" <&4 4<&-";

/// What is done before nspawn, in mounts of our own: places in which nspawn leaves
/// nothing, and from which it shows nothing of the host.
const PRELUDE: &str = "mkdir -p /run/systemd/nspawn && \
    mount -t tmpfs -o mode=755,size=1m none /run/systemd/nspawn && \
    mount -t cgroup2 none /sys/fs/cgroup && \
    exec \"$@\"";

/// What root in a container may not even do to its own namespaces: no build needs it,
/// and it is where the kernel has most to defend.
const DROPPED: [&str; 10] = [
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

/// The first program of a container, as of a virtual machine.
const INIT: &str = "/sbin/init";

/// Holds a container that is ready until its record is written. Dropped, it ends it.
#[derive(Debug)]
pub(crate) struct Gate(ChildStdin);

impl Gate {
    /// Lets the container begin.
    pub(crate) fn open(mut self) -> io::Result<()> {
        self.0.write_all(b"go\n")
    }
}

/// Starts nspawn up to the gate, and writes the record.
pub(crate) fn start(spec: Spec) -> Result<(Handle, Gate), GuestError> {
    if spec.boot != BootMode::Cold {
        return Err(GuestError::Container);
    }
    let root = root(&spec)?;
    let network = Network::open(&spec.network)?;
    let inside = network.inside()?;
    let stdout = pipe(&spec.run.join(run::CONSOLE))?;
    let keyboard = pipe(&spec.run.join(run::KEYBOARD))?;
    let stderr = run::StderrPipe::writer(&spec.run).map_err(GuestError::run(&spec.run))?;
    let line = line(&spec, &root, &hidden().map_err(GuestError::Start)?);
    let kept = spec.keep.into_iter().zip(KEEP..);
    let own = [(inside, NETWORK), (keyboard.into(), KEYBOARD)];
    let descriptors = own.into_iter().chain(kept);
    let descriptors = descriptors.map(|(parent_fd, child_fd)| FdMapping {
        parent_fd,
        child_fd,
    });
    let mut nspawn = command::prepare("sh");
    nspawn
        .args(line)
        // Otherwise it looks into the image for the kind of groups that it expects.
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .fd_mappings(descriptors.collect())
        .map_err(|error| GuestError::Start(io::Error::other(error)))?;
    // Not waited for as a child: whoever watches it takes its status.
    let mut child = network
        .enter(|| nspawn.spawn())
        .map_err(GuestError::Start)?;
    debug!(pid = child.id(), "the guest's process was started");
    let gate = child.stdin.take().map(Gate);
    let gate = gate.ok_or_else(|| GuestError::Start(io::Error::other("it has no input")))?;
    let handle = Handle::of(child.id(), spec.machine.kind).map_err(GuestError::Watch)?;
    let handle = handle.settle(&spec.machine, &spec.network, &spec.run)?;
    Ok((handle, gate))
}

/// A pipe with a name, open for both directions: it stays so when the agent is gone.
fn pipe(path: &Path) -> Result<File, GuestError> {
    let made = run::pipe(path);
    let opened = made.and_then(|()| File::options().read(true).write(true).open(path));
    opened.map_err(GuestError::run(path))
}

/// The console of a container, from now on.
pub(crate) fn console(run: &Path) -> io::Result<pipe::Receiver> {
    pipe::OpenOptions::new().open_receiver(run.join(run::CONSOLE))
}

/// Its keyboard; one that an older agent started has none.
pub(crate) fn keyboard(run: &Path) -> io::Result<Option<pipe::Sender>> {
    match pipe::OpenOptions::new().open_sender(run.join(run::KEYBOARD)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// The root directory of the container. What lies in it belongs to numbers that mean
/// real users outside: nobody but root may come near it there.
fn root(spec: &Spec) -> Result<PathBuf, GuestError> {
    let root = spec.directory.join(&spec.machine.disk);
    let look = || -> io::Result<()> {
        if !fs::symlink_metadata(&root)?.is_dir() {
            return Err(io::Error::other("it is not a directory"));
        }
        fs::set_permissions(&spec.directory, Permissions::from_mode(0o700))
    };
    match look() {
        Ok(()) => Ok(root),
        Err(source) => Err(GuestError::Open { path: root, source }),
    }
}

/// What of the host's `/sys` a container would see.
fn hidden() -> io::Result<Vec<PathBuf>> {
    let is_directory = |path: &PathBuf| path.is_dir();
    let mut all: Vec<_> = sys::file::entries(Path::new("/sys"))?;
    all.retain(is_directory);
    all.sort();
    // The host's tap driver, which it could open and not use.
    all.push("/dev/net".into());
    Ok(all)
}

/// The command line of `sh`, without the program. Starts nothing.
fn line(spec: &Spec, root: &Path, hidden: &[PathBuf]) -> Vec<OsString> {
    let network = format!("--net=/proc/self/fd/{NETWORK}");
    let own = [
        "--fork",
        "--kill-child",
        "--pid",
        "--mount-proc",
        "--cgroup",
    ];
    let mut words = vec!["-c", WAIT, "sh", "unshare"];
    words.extend(own);
    words.extend(["--", "nsenter", &network]);
    words.extend(["--", "sh", "-c", PRELUDE, "sh", "systemd-nspawn"]);
    words.extend([
        "--quiet",
        // Neither a session of systemd's, nor files of the host or beside the image.
        "--register=no",
        "--keep-unit",
        "--settings=no",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        // What it prints and reads goes through a terminal of its own.
        "--console=interactive",
        "--private-users=pick",
        "--private-users-ownership=map",
    ]);
    let mut line: Vec<_> = words.into_iter().map(OsString::from).collect();
    line.push(format!("--machine={}", spec.network).into());
    line.push(format!("--drop-capability={}", DROPPED.join(",")).into());
    line.push(format!("--rlimit=NPROC={}", cgroup::PROCESSES_MAX).into());
    let over = |path: &PathBuf| format!("--tmpfs={}:mode=555", path.display()).into();
    line.extend(hidden.iter().map(over));
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
    fn a_container() {
        let manifest = ": 1\nid: d\nsummary: d\ntype: nspawn\n";
        let spec = Spec::example(manifest);
        let root = spec.directory.join("root");
        let line = line(&spec, &root, &["/sys/class".into(), "/dev/net".into()]);
        let words: Vec<_> = line.iter().map(|word| word.to_str().unwrap()).collect();
        insta::assert_snapshot!(words.join("\n"));
    }
}
