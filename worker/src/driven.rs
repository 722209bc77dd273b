//! The worker of a driven guest: runs the commands that the host sends, several at a time, until the
//! host ends the guest. See [`config::exec`] for the protocol.

mod account;
mod command;
mod connection;
mod log_lines;
mod running;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use config::exec::{Frame, TCP_PORT};
use config::secrets::Mask;

use crate::WorkerError;
use crate::cli::Settings;
use crate::log::Log;
use crate::shell::Surroundings;

use connection::Connection;
use running::Running;

/// The number of events that may wait for the log. With more, the commands wait.
const EVENTS_MAX: usize = 16;
/// The interval at which bytes that the host has not taken are sent again.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
/// The pause before another connection to the host after one that failed: the agent is being
/// restarted.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// The time in which the commands must end when the guest is stopped.
const STOP_MAX: Duration = Duration::from_secs(5);

/// An event of the commands.
enum Event {
    /// Lines of output for the log, masked.
    Output(Vec<u8>),
    /// A line of the worker.
    Line(String),
    /// The request to stop, which came on this connection.
    Stop(Connection),
}

/// The parts that all commands share.
struct Context {
    surroundings: Surroundings,
    mask: Mask,
    events: SyncSender<Event>,
    running: Running,
}

/// Runs commands until the host stops the guest.
///
/// # Errors
/// The threads have ended, which they do not by themselves.
pub fn run(
    settings: &Settings,
    surroundings: &Surroundings,
    log: &mut Log,
) -> Result<(), WorkerError> {
    let (sender, events) = mpsc::sync_channel(EVENTS_MAX);
    let context = Arc::new(Context {
        surroundings: surroundings.clone(),
        mask: log.mask(),
        events: sender,
        running: Running::default(),
    });
    let address = SocketAddr::new(settings.pr_host.ip(), TCP_PORT);
    let shared = Arc::clone(&context);
    std::thread::spawn(move || wait_for_commands(address, &shared));
    log.line("waiting for commands");
    let mut stop = loop {
        match events.recv_timeout(FLUSH_INTERVAL) {
            Ok(Event::Output(bytes)) => log.append_lines(&bytes),
            Ok(Event::Line(line)) => log.line(&line),
            Ok(Event::Stop(connection)) => break connection,
            Err(RecvTimeoutError::Timeout) => log.flush(),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(WorkerError::Handshake(
                    std::io::ErrorKind::BrokenPipe.into(),
                ));
            }
        }
    };
    log.line("stopped by the host");
    context.running.end_all();
    let deadline = Instant::now() + STOP_MAX;
    while !context.running.is_empty() && Instant::now() < deadline {
        match events.recv_timeout(FLUSH_INTERVAL) {
            Ok(Event::Output(bytes)) => log.append_lines(&bytes),
            Ok(Event::Line(line)) => log.line(&line),
            Ok(Event::Stop(_)) | Err(_) => {}
        }
    }
    // A host that does not hear it asks again or waits for the result.
    let _ = stop.send(&Frame::Stopped);
    Ok(())
}

/// Keeps one connection to the host that waits for a command, unless as many commands run as may.
/// Returns when the guest is stopped.
fn wait_for_commands(address: SocketAddr, context: &Arc<Context>) {
    loop {
        context.running.wait_for_place();
        let received = Connection::open(address).and_then(|mut connection| {
            let frame = connection.receive()?;
            Ok((connection, frame))
        });
        match received {
            Ok((connection, Some(Frame::Start(command)))) => {
                let place = context.running.place();
                let context = Arc::clone(context);
                std::thread::spawn(move || command::run(&command, connection, &context, place));
            }
            Ok((connection, Some(Frame::Stop))) => {
                if context.events.send(Event::Stop(connection)).is_err() {
                    return;
                }
            }
            Ok(_) | Err(_) => std::thread::sleep(RECONNECT_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests;
