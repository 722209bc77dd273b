//! The program `buildhost-guard`, which the agent starts for a guest with a deadline.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(run_dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        let _ = writeln!(
            io::stderr(),
            "buildhost-guard is started by buildhost-agent for a guest with a deadline"
        );
        return ExitCode::from(2);
    };
    match run(&run_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Watches with what the agent gave as standard streams: the end of a pipe that the guest holds, the
/// locked file with the deadline, and a pipe on which the agent waits for the first byte.
fn run(run_dir: &Path) -> io::Result<()> {
    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    guard::watch(run_dir, &file, io::stdin().as_fd(), || {
        let _ = io::stderr().write_all(b"\n");
    })
}
