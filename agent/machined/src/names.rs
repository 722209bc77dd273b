//! The names of scopes and machines; pure.

/// The longest name that machined accepts.
const NAME_MAX: usize = 64;
/// The number of names that are tried for a guest.
const NAMES: usize = 9;

/// Returns the name of the scope for the process of a guest. Scopes of earlier guests with the same
/// control group may still exist for a moment.
pub(crate) fn unit(group: &str, pid: u32) -> String {
    format!("{group}-{pid}.scope")
}

/// Returns the path of a process in the hierarchy of control groups (version 2) if its last part is
/// `unit`. `text` is `/proc/PID/cgroup`.
pub(crate) fn path_of_unit<'t>(text: &'t str, unit: &str) -> Option<&'t str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let last = path.rsplit('/').next()?;
    (last == unit).then_some(path)
}

/// Returns true if a process is in `unit` in any hierarchy. `text` is `/proc/PID/cgroup`.
pub(crate) fn is_in_unit(text: &str, unit: &str) -> bool {
    text.lines()
        .any(|line| line.rsplit('/').next() == Some(unit))
}

/// Returns the names under which a guest may be registered, in the order in which they are tried.
pub(crate) fn candidates(group: &str) -> Vec<String> {
    let with = |suffix: &str| {
        let length = group.floor_char_boundary(NAME_MAX - suffix.len());
        format!("{}{suffix}", &group[..length])
    };
    let numbered = (2..=NAMES).map(|number| with(&format!("-{number}")));
    std::iter::once(with("")).chain(numbered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_in_its_scope_and_in_no_other() {
        let text = "1:name=systemd:/\n0::/machine.slice/buildhost-42-7.scope\n";
        let path = "machine.slice/buildhost-42-7.scope";
        assert_eq!(path_of_unit(text, &unit("buildhost-42", 7)), Some(path));
        assert_eq!(path_of_unit(text, &unit("buildhost-42", 8)), None);
        assert_eq!(path_of_unit("0::/\n", "a.scope"), None);
        let old = "1:name=systemd:/machine.slice/a.scope\n0::/\n";
        assert_eq!(path_of_unit(old, "a.scope"), None);
        assert!(is_in_unit(old, "a.scope"));
        assert!(!is_in_unit(old, "b.scope"));
    }

    #[test]
    fn taken_names_get_a_number_and_all_fit() {
        let names = candidates("buildhost-42");
        assert_eq!(names[..2], ["buildhost-42", "buildhost-42-2"]);
        assert_eq!(names.len(), NAMES);
        let long = "x".repeat(80);
        assert!(candidates(&long).iter().all(|name| name.len() == NAME_MAX));
    }
}
