//! `relay`: the way of another host's command line to the agent here, over standard input and output.

use std::fs::File;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use clap::Subcommand;

use crate::exit_code::{ExitStatus, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Connect standard input and output with the agent's socket, for --host on another host
    #[command(hide = true)]
    Relay,
}

/// Copies in both directions until the agent closes the connection. The greeting comes first.
pub(crate) fn run(socket: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(ExitStatus::Failure, error);
    let mut agent = client::connect_socket(socket)?;
    // Unlike `Stdout`, a file has no buffer.
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
    output
        .write_all(client::greeting().as_bytes())
        .map_err(failed)?;
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let mut requests = agent.try_clone().map_err(failed)?;
    // The thread ends with the process, at the latest.
    thread::spawn(move || {
        let _ = io::copy(&mut input, &mut requests);
        let _ = requests.shutdown(Shutdown::Write);
    });
    match io::copy(&mut agent, &mut output) {
        // The other host has gone.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        copied => copied.map(drop).map_err(failed),
    }
}
