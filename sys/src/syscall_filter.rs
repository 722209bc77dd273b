//! A filter of system calls for tools that keep `CAP_SYS_ADMIN`.
//!
//! The kernel demands this capability for attributes of the namespace `trusted`, and permits much
//! more with it: with a new mount or a new namespace, a program would leave its view. A filtered
//! program gets the error of a system call that does not exist.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// The control operations of files that a tool may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ioctls {
    /// To share content with another file.
    Clone,
    /// All, such as those that create subvolumes.
    All,
}

/// The system calls that lead out of a view, or change the host with `CAP_SYS_ADMIN`.
const FORBIDDEN: [i64; 31] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    SYS_OPEN_TREE_ATTR,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    // Its flags are in memory, which a filter cannot read. libc uses the older call then.
    libc::SYS_clone3,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_syslog,
    libc::SYS_fanotify_init,
    libc::SYS_userfaultfd,
    // Its requests are not filtered.
    libc::SYS_io_uring_setup,
];
/// Linux 6.15; not in the crate `libc` yet.
const SYS_OPEN_TREE_ATTR: i64 = 467;
/// The flags by which a new process gets namespaces of its own.
const NEW_NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// `FICLONE` and `FICLONERANGE` of `linux/fs.h`.
const CLONE_REQUESTS: [u64; 2] = [0x4004_9409, 0x4020_940d];
/// The bit in the numbers of the system calls of the x32 ABI, a second door to each of them.
const X32: i64 = 0x4000_0000;

/// Changes a command so that its program, and all programs that it starts, run with the filter.
/// What was prepared for the child before runs without it.
///
/// # Errors
/// This processor has no filter.
#[expect(unsafe_code, reason = "std has no other way to run code in the child")]
pub(crate) fn apply(command: &mut Command, ioctls: Ioctls) -> io::Result<()> {
    let program = compile(ioctls).map_err(io::Error::other)?;
    let apply = move || apply_filter(&program).map_err(|_| io::Error::last_os_error());
    // SAFETY: between fork and exec, the closure only makes system calls. It neither allocates
    // nor takes locks.
    unsafe { command.pre_exec(apply) };
    Ok(())
}

fn compile(ioctls: Ioctls) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<_, _> = FORBIDDEN.map(|call| (call, Vec::new())).into();
    rules.insert(libc::SYS_clone, new_namespaces()?);
    if ioctls == Ioctls::Clone {
        let other = CLONE_REQUESTS.map(|request| condition(1, SeccompCmpOp::Ne, request));
        let other = other.into_iter().collect::<Result<_, _>>()?;
        rules.insert(libc::SYS_ioctl, vec![SeccompRule::new(other)?]);
    }
    let x32: Vec<_> = rules
        .iter()
        .map(|(call, rule)| (call | X32, rule.clone()))
        .collect();
    rules.extend(x32);
    let refuse = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?.try_into()
}

/// Returns a rule for each kind of namespace that a new process can get.
fn new_namespaces() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    NEW_NAMESPACES
        .map(|flag| u64::from(flag.unsigned_abs()))
        .into_iter()
        .map(|flag| SeccompRule::new(vec![condition(0, SeccompCmpOp::MaskedEq(flag), flag)?]))
        .collect()
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{CommandError, prepare, run};

    fn filtered(script: &str) -> Result<Vec<u8>, CommandError> {
        let mut shell = prepare("sh");
        shell.args(["-ec", script]);
        apply(&mut shell, Ioctls::Clone).unwrap();
        run(shell, Duration::from_mins(1))
    }

    #[test]
    fn a_filtered_program_runs_and_gets_no_namespace() {
        assert_eq!(filtered("echo a | cat").unwrap(), b"a\n");
        let error = filtered("unshare --user true").unwrap_err().to_string();
        assert!(error.contains("Function not implemented"), "{error}");
    }
}
