//! What a guest takes of the host: told by its control group or, without one, by the
//! kernel's account of its process.

use std::fs;
use std::path::Path;

use config::builds::Usage;
use config::machine::Kind;

/// What the guest has taken so far; nothing is told that is not known for sure.
pub(crate) fn usage(kind: Kind, pid: u32, group: Option<&Path>) -> Usage {
    match (group, kind) {
        (Some(group), _) => of_group(group),
        (None, Kind::Kvm) => of_process(Path::new("/proc").join(pid.to_string()).as_path()),
        // What runs in a container are other processes than the one that we hold.
        (None, Kind::Nspawn) => Usage::default(),
    }
}

fn of_group(group: &Path) -> Usage {
    let read = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
    Usage {
        cpu_milliseconds: value(&read("cpu.stat"), "usage_usec").map(|it| it / 1000),
        memory_bytes_max: read("memory.peak").trim().parse().ok(),
    }
}

fn of_process(directory: &Path) -> Usage {
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_default();
    let ticks = cpu_ticks(&read("stat"));
    let per_second = rustix::param::clock_ticks_per_second();
    Usage {
        cpu_milliseconds: ticks.and_then(|ticks| (ticks * 1000).checked_div(per_second)),
        memory_bytes_max: value(&read("status"), "VmHWM:").map(|kib| kib * 1024),
    }
}

/// The number after a word at the beginning of a line.
fn value(text: &str, word: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| {
        let found = words.next() == Some(word);
        found.then(|| words.next()?.parse().ok()).flatten()
    })
}

/// The time in user and system mode of `/proc/PID/stat`. The name in it, in
/// parentheses, may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_tells_its_time_and_its_peak_as_far_as_the_kernel_counts_them() {
        let group = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            sys::file::replace(&group.path().join(name), text.as_bytes()).unwrap();
        };
        let usage = || usage(Kind::Nspawn, 1, Some(group.path()));
        assert_eq!(usage(), Usage::default());
        put("cpu.stat", "usage_usec 1234567\nuser_usec 1000000\n");
        assert_eq!(usage().cpu_milliseconds, Some(1234));
        put("memory.peak", "4096\n");
        assert_eq!(usage().memory_bytes_max, Some(4096));
    }

    #[test]
    fn a_process_tells_what_it_has_taken() {
        assert_eq!(
            cpu_ticks("7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 30 12 0 0 20"),
            Some(42)
        );
        let ours = usage(Kind::Kvm, std::process::id(), None);
        assert!(
            ours.memory_bytes_max.is_some_and(|bytes| bytes > 4096),
            "{ours:?}"
        );
        assert!(ours.cpu_milliseconds.is_some());
        assert_eq!(
            usage(Kind::Nspawn, std::process::id(), None),
            Usage::default()
        );
    }
}
