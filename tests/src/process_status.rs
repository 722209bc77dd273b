//! The kernel's account of a process.

use rustix::process::Pid;

/// Returns the number of a line in `/proc/PID/status`, such as `VmRSS:` in KiB, or 0 if the process
/// has ended.
pub fn number(pid: Pid, line: &str) -> u64 {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let rest = text.lines().find_map(|it| it.strip_prefix(line));
    let word = rest.and_then(|rest| rest.split_whitespace().next());
    word.map_or(0, |word| word.parse().unwrap_or(0))
}
