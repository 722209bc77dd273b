//! `relay`: the way of another host's command line to the agent here, over standard input and output.

use std::fs::File;
use std::io::{self, Read, Write};
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

/// The size of one read.
const PIECE: usize = 64 * 1024;

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
        let _ = copy(&mut input, &mut requests);
        let _ = requests.shutdown(Shutdown::Write);
    });
    match copy(&mut agent, &mut output) {
        // The other host has gone.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        copied => copied.map_err(failed),
    }
}

/// Copies up to the end. Unlike `io::copy`, it never uses `splice`, which locks the pipe to sshd while
/// it waits for the socket: sshd could not read what is in the pipe.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&piece[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
