//! The `machinectl` of systemd, which stands behind this program in a `PATH`.
//!
//! Under the name `machinectl`, a command that only systemd's program knows is handed over to it.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::command;

use crate::program::Program;

/// The time limit for systemd's `machinectl --help`.
const HELP_LIMIT: Duration = Duration::from_secs(10);

/// Replaces this process by systemd's `machinectl` if that program is installed and knows the
/// command. Returns otherwise.
pub(crate) fn hand_over(arguments: &[OsString]) {
    let Some(verb) = arguments.first().and_then(|word| word.to_str()) else {
        return;
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(program) = find(&path) else {
        return;
    };
    let mut help = command::prepare(&program);
    help.arg("--help");
    let Ok(help) = command::run(help, HELP_LIMIT) else {
        return;
    };
    if lists(&String::from_utf8_lossy(&help), verb) {
        #[expect(
            clippy::disallowed_methods,
            reason = "the program inherits everything from this process"
        )]
        let error = std::process::Command::new(program).args(arguments).exec();
        drop(error);
    }
}

/// Returns true if a help text has a line for the command. Such lines are indented by two spaces.
fn lists(help: &str, verb: &str) -> bool {
    let mut commands = help
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter_map(|line| line.split(' ').next());
    !verb.is_empty() && commands.any(|command| command == verb)
}

/// Returns the first `machinectl` in a `PATH` that is not this program.
fn find(path: &OsStr) -> Option<PathBuf> {
    let this = std::env::current_exe().ok()?.canonicalize().ok()?;
    std::env::split_paths(path)
        .map(|directory| directory.join(Path::new(Program::Machinectl.name())))
        .find(|program| program.canonicalize().is_ok_and(|program| program != this))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The beginning of the help text of systemd 252.
    const HELP: &str = "\
machinectl [OPTIONS...] COMMAND ...

Send control commands to or query the virtual machine and container
registration manager.

Machine Commands:
  list                        List running VMs and containers
  shell [[USER@]NAME [COMMAND...]]
                              Invoke a shell (or other command) in a container
  kill NAME...                Send signal to processes of a VM/container

Options:
  -h --help                   Show this help
     --version                Show package version
";

    #[test]
    fn commands_are_read_from_the_help_text() {
        for verb in ["list", "shell", "kill"] {
            assert!(lists(HELP, verb), "{verb}");
        }
        for verb in ["", "Invoke", "control", "lst", "Machine"] {
            assert!(!lists(HELP, verb), "{verb}");
        }
    }

    #[test]
    fn this_program_is_skipped_in_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("1"), directory.path().join("2"));
        for directory in [&first, &second] {
            std::fs::create_dir(directory).unwrap();
        }
        let this = std::env::current_exe().unwrap();
        std::os::unix::fs::symlink(this, first.join("machinectl")).unwrap();
        let path = std::env::join_paths([&first, &second]).unwrap();
        assert_eq!(find(&path), None);
        std::fs::File::create(second.join("machinectl")).unwrap();
        assert_eq!(find(&path), Some(second.join("machinectl")));
    }
}
