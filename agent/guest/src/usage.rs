//! The resource usage of a guest, read from its control group or, without one, from
//! `/proc`.

use std::path::Path;

use config::builds::Usage;
use config::machine::Kind;

/// Returns the usage of a guest so far, without the fields that the kernel does not count.
pub(crate) fn usage(kind: Kind, pid: u32, group: Option<&Path>) -> Usage {
    match (group, kind) {
        (Some(group), _) => of_group(group),
        (None, Kind::Kvm) => of_process(Path::new("/proc").join(pid.to_string()).as_path()),
        // The processes in a container are others than the one that is held.
        (None, Kind::Nspawn) => Usage::default(),
    }
}

fn of_group(group: &Path) -> Usage {
    let read = |name: &str| sys::trusted::read_text(group.join(name)).unwrap_or_default();
    Usage {
        cpu_milliseconds: value(&read("cpu.stat"), "usage_usec").map(|it| it / 1000),
        memory_bytes_max: read("memory.peak").trim().parse().ok(),
    }
}

fn of_process(directory: &Path) -> Usage {
    let read = |name: &str| sys::trusted::read_text(directory.join(name)).unwrap_or_default();
    let ticks = cpu_ticks(&read("stat"));
    let per_second = rustix::param::clock_ticks_per_second();
    Usage {
        cpu_milliseconds: ticks.and_then(|ticks| (ticks * 1000).checked_div(per_second)),
        memory_bytes_max: value(&read("status"), "VmHWM:").map(|kib| kib * 1024),
    }
}

/// Returns the number after `key` at the start of a line.
fn value(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        (fields.next() == Some(key)).then_some(fields)
    });
    line?.next()?.parse().ok()
}

/// Returns the time in user and system mode of `/proc/PID/stat`. The process name in it,
/// in parentheses, may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_values_that_the_kernel_counts_are_reported() {
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
    fn the_usage_of_a_process_is_reported() {
        assert_eq!(
            cpu_ticks("7 (a) b) S 1 1 1 0 -1 0 0 0 0 0 30 12 0 0 20"),
            Some(42)
        );
        let own = usage(Kind::Kvm, std::process::id(), None);
        assert!(
            own.memory_bytes_max.is_some_and(|bytes| bytes > 4096),
            "{own:?}"
        );
        assert!(own.cpu_milliseconds.is_some());
        assert_eq!(
            usage(Kind::Nspawn, std::process::id(), None),
            Usage::default()
        );
    }
}
