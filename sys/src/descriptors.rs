//! The descriptors that a process has inherited.

use std::io;

/// The first number after those of the standard streams.
const FIRST: libc::c_uint = 3;

/// Keeps the descriptors that the caller has inherited, except the standard streams, away from
/// all programs that it will start. A parent may have left them open by mistake.
///
/// Rust opens every other descriptor in this way already. Must be called before a descriptor is
/// prepared for a child process.
///
/// # Errors
/// The kernel is older than 5.11 or a filter of system calls refuses.
#[expect(
    unsafe_code,
    reason = "no crate has this system call as a safe function"
)]
pub fn close_on_exec() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: The call takes three numbers. It closes nothing in this process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::io::{FdFlags, fcntl_setfd};

    use super::*;
    use crate::command;

    #[test]
    fn a_program_gets_no_inherited_descriptor() {
        let stray = tempfile::tempfile().unwrap();
        fcntl_setfd(&stray, FdFlags::empty()).unwrap();
        let is_open = || {
            let mut list = command::prepare("ls");
            list.arg(format!("/proc/self/fd/{}", stray.as_raw_fd()));
            command::run(list, std::time::Duration::from_mins(1)).is_ok()
        };
        assert!(is_open());
        close_on_exec().unwrap();
        assert!(!is_open());
    }
}
