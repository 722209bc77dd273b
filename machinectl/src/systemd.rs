//! systemd has a `machinectl`, too. What only that one knows is handed to it, so that
//! ours may stand first in a PATH.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Its verbs, but for those that we have.
const VERBS: [&str; 30] = [
    "bind",
    "cancel-transfer",
    "cat",
    "clean",
    "clone",
    "copy-from",
    "copy-to",
    "disable",
    "edit",
    "enable",
    "export-raw",
    "export-tar",
    "image-status",
    "import-fs",
    "import-raw",
    "import-tar",
    "kill",
    "list-images",
    "list-transfers",
    "poweroff",
    "pull-raw",
    "pull-tar",
    "read-only",
    "reboot",
    "remove",
    "set-limit",
    "shell",
    "show",
    "show-image",
    "start",
];

/// Becomes systemd's `machinectl` when the command line asks for one of its verbs and
/// it is there. Otherwise it returns, and the command line is ours.
pub(super) fn hand_over() {
    let mut words = std::env::args_os().skip(1);
    if !words.next().is_some_and(|verb| is_theirs(&verb)) {
        return;
    }
    if let Some(program) = other(&std::env::var_os("PATH").unwrap_or_default()) {
        #[expect(
            clippy::disallowed_methods,
            reason = "it takes our place, with all that we were given"
        )]
        let failed = Command::new(program)
            .args(std::env::args_os().skip(1))
            .exec();
        drop(failed);
    }
}

fn is_theirs(verb: &OsString) -> bool {
    VERBS.iter().any(|theirs| verb == theirs)
}

/// The first `machinectl` in a PATH that is not this program.
fn other(path: &std::ffi::OsStr) -> Option<PathBuf> {
    let ours = std::env::current_exe().ok()?.canonicalize().ok()?;
    let is_other = |program: &PathBuf| matches!(program.canonicalize(), Ok(it) if it != ours);
    std::env::split_paths(path)
        .map(|directory| directory.join(Path::new("machinectl")))
        .find(is_other)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Cli;

    #[test]
    fn no_verb_of_ours_is_handed_over() {
        let command = Cli::command();
        let mut ours = command.get_subcommands().map(clap::Command::get_name);
        let both = ours.find(|verb| VERBS.contains(verb));
        assert_eq!(both, None);
        assert!(VERBS.is_sorted(), "{VERBS:?}");
    }

    #[test]
    fn the_other_program_is_found_behind_ours() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("1"), directory.path().join("2"));
        for directory in [&first, &second] {
            std::fs::create_dir(directory).unwrap();
        }
        let ours = std::env::current_exe().unwrap();
        std::os::unix::fs::symlink(ours, first.join("machinectl")).unwrap();
        let path = std::env::join_paths([&first, &second]).unwrap();
        assert_eq!(other(&path), None);
        std::fs::File::create(second.join("machinectl")).unwrap();
        assert_eq!(other(&path), Some(second.join("machinectl")));
    }
}
