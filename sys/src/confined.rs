//! Confined child processes, for programs that parse data of others.
//!
//! A confined program runs as a user that owns nothing, without capabilities and without a way to
//! gain any, in a network and an IPC namespace of its own, and with limits of memory, processor
//! time and file size. It inherits no descriptors except the files that it is given, and opens them
//! by [`path`]. It can still read the files that every user can read.
//!
//! Only root can start programs as another user and in other namespaces. For other callers, only
//! the limits apply.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, UnshareFlags, set_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
};

use crate::descriptors;

/// The first descriptor of the files; the lower ones are the standard streams.
const FIRST_FILE: i32 = 3;
/// The start of a range of user IDs that neither distributions, nor systemd, nor guests have.
const FIRST_USER: u32 = 2_100_000_000;
/// The maximum number of processes and threads.
const THREADS_MAX: u64 = 256;

/// The limits of a confined program. `u64::MAX` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The maximum size of its address space, in bytes.
    pub memory_bytes: u64,
    /// The maximum processor time, in seconds.
    pub cpu_seconds: u64,
    /// The maximum size of a file that it writes, in bytes.
    pub file_bytes: u64,
}

/// Returns the user ID, which is also the group ID, of the confined programs of this process. It
/// differs from that of other processes.
pub fn user() -> u32 {
    if rustix::process::geteuid().is_root() {
        FIRST_USER + std::process::id()
    } else {
        rustix::process::geteuid().as_raw()
    }
}

/// Returns the path by which a confined program opens the file with this index. The kernel checks
/// the permissions of [`user`] then.
pub fn path(index: u8) -> String {
    format!("/proc/self/fd/{}", FIRST_FILE + i32::from(index))
}

/// Changes a command so that its program has limits, keeps its user, cannot gain capabilities,
/// and inherits neither the environment nor descriptors beside the standard streams.
pub fn limit(command: &mut Command, limits: Limits) {
    confine_child(command, limits, None);
}

/// Changes a command so that its program will run confined.
///
/// # Errors
/// The files cannot be handed over.
pub fn confine(command: &mut Command, limits: Limits, files: Vec<File>) -> io::Result<()> {
    let user = rustix::process::geteuid().is_root().then(user);
    confine_child(command, limits, user);
    let files = (FIRST_FILE..).zip(files);
    let files = files.map(|(child_fd, file)| FdMapping {
        parent_fd: file.into(),
        child_fd,
    });
    // This runs after the other descriptors are marked, and clears the mark of these.
    command
        .fd_mappings(files.collect())
        .map_err(io::Error::other)?;
    Ok(())
}

#[expect(unsafe_code, reason = "std has no other way to run code in the child")]
fn confine_child(command: &mut Command, limits: Limits, user: Option<u32>) {
    let path = std::env::var_os("PATH");
    command.env_clear().env("LC_ALL", "C").current_dir("/");
    command.envs(path.map(|path| ("PATH", path)));
    let enter = move || {
        // They may have been inherited without the mark.
        descriptors::close_on_exec()?;
        set_limits(limits)?;
        if let Some(user) = user {
            drop_privileges(user)?;
        }
        set_no_new_privs(true)?;
        Ok(())
    };
    // SAFETY: between fork and exec, the closure only makes system calls. It neither allocates
    // nor takes locks.
    unsafe { command.pre_exec(enter) };
}

/// Turns this process, which must have one thread, into one of a user without privileges, for good:
/// in a network and an IPC namespace of its own, without capabilities and without a way to gain
/// any, and without core dumps. It keeps the files that it has opened.
///
/// # Errors
/// The process is not root's, or has several threads, of which each has a user of its own.
pub fn become_user(user: u32) -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has several threads"));
    }
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    drop_privileges(user)?;
    Ok(set_no_new_privs(true)?)
}

fn set_limits(limits: Limits) -> io::Result<()> {
    for (resource, limit) in [
        (Resource::As, limits.memory_bytes),
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Core, 0),
        (Resource::Nproc, THREADS_MAX),
    ] {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(resource, limit)?;
    }
    Ok(())
}

/// Moves this process, which has one thread, into new namespaces and to another user.
#[expect(
    unsafe_code,
    reason = "rustix cannot know that no thread uses the old state"
)]
fn drop_privileges(user: u32) -> io::Result<()> {
    // SAFETY: descriptors are not unshared, so none can be used after it is closed.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWIPC) }?;
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::os::unix::fs::{PermissionsExt, fchown};
    use std::time::Duration;

    use super::*;
    use crate::command::{CommandError, prepare, run};

    const LIMIT: Duration = Duration::from_mins(1);
    const LIMITS: Limits = Limits {
        memory_bytes: 64 << 20,
        cpu_seconds: 2,
        file_bytes: 4096,
    };

    fn confined(script: &str, limits: Limits, files: Vec<File>) -> Result<String, CommandError> {
        let mut shell = prepare("sh");
        shell.args(["-c", script]);
        confine(&mut shell, limits, files).unwrap();
        run(shell, LIMIT).map(|output| String::from_utf8(output).unwrap())
    }

    #[test]
    fn a_confined_program_has_only_its_files() {
        let open = File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
        let mut input = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut input, b"content").unwrap();
        let mut output = tempfile::tempfile().unwrap();
        for file in [&input, &output] {
            fchown(file, Some(user()), None).unwrap();
        }
        let files = vec![input.try_clone().unwrap(), output.try_clone().unwrap()];
        let script = format!("cat {} > {}; ls /proc/$$/fd", path(0), path(1));
        let found = confined(&script, LIMITS, files).unwrap();
        assert_eq!(
            found.split_whitespace().collect::<Vec<_>>(),
            ["0", "1", "2", "3", "4"]
        );
        let mut text = String::new();
        output.rewind().unwrap();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
    }

    #[test]
    fn a_confined_program_cannot_exceed_its_limits() {
        let output = tempfile::tempfile().unwrap();
        fchown(&output, Some(user()), None).unwrap();
        let script = format!("exec head -c 8192 /dev/zero > {}", path(0));
        confined(&script, LIMITS, vec![output.try_clone().unwrap()]).unwrap_err();
        assert_eq!(output.metadata().unwrap().len(), LIMITS.file_bytes);
        confined("while :; do :; done", LIMITS, Vec::new()).unwrap_err();
        let script = "exec tail /dev/zero >/dev/null";
        confined(script, LIMITS, Vec::new()).unwrap_err();
    }

    #[test]
    #[ignore = "needs root: real btrfs, QEMU and network namespaces"]
    fn a_confined_program_reaches_nothing_of_the_host() {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("secret");
        crate::file::replace(&secret, b"secret").unwrap();
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        let file = File::open(&secret).unwrap();
        let id = confined("id -u; id -g; id -G", LIMITS, Vec::new()).unwrap();
        let expected = user().to_string();
        assert!(id.split_whitespace().all(|id| id == expected), "{id}");
        let status = confined(
            "grep -E '^(Cap|NoNewPrivs)' /proc/self/status",
            LIMITS,
            Vec::new(),
        );
        let status = status.unwrap();
        for line in status.lines().filter(|line| !line.starts_with("CapBnd")) {
            let value = line.split_whitespace().last().unwrap();
            let expected = if line.starts_with("No") {
                "1"
            } else {
                "0000000000000000"
            };
            assert_eq!(value, expected, "{status}");
        }
        let interfaces = confined("grep -c : /proc/net/dev", LIMITS, Vec::new()).unwrap();
        assert_eq!(interfaces.trim(), "1", "only an unused loopback device");
        for script in [
            format!("cat {}", secret.display()),
            format!("cat {}", path(0)),
            "echo x > /etc/planted".to_owned(),
            "kill -0 1".to_owned(),
            "cat /etc/shadow".to_owned(),
        ] {
            let error = confined(&script, LIMITS, vec![file.try_clone().unwrap()]).unwrap_err();
            println!("confined program -> host | {script} | {error}");
        }
    }
}
