//! The commands of driven guests: the connections of their workers, and the clients of the API.

mod log;
mod relay;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use config::BuildId;
use config::builds::Submitter;
use config::exec::{Command, Decoder, Frame};
use config::secrets::Mask;
use jiff::Timestamp;
use parking_lot::Mutex;
use sys::observer::Observer;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use log::CommandLog;
pub use log::{FILE as COMMANDS_FILE, read as read_commands};
pub use relay::RunningCommand;

/// The time in which a worker must wait for a command, and take it.
const WORKER_LIMIT: Duration = Duration::from_secs(30);
/// The time in which a worker must end its commands when its guest is stopped.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The part of a driven guest that is not in other guests.
#[derive(Debug, Clone)]
pub struct DrivenGuest {
    /// The file that receives the records of its commands.
    pub file: PathBuf,
    /// The time for which a command may be quiet: the idle timeout of other builds.
    pub quiet_max: Duration,
}

/// A reason why a command was not started, or a guest not stopped.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The worker does not wait for a command.
    #[error(
        "the worker of the guest takes no command within {} s: {} commands run already, the guest \
         is still starting, or its processors are overloaded",
        WORKER_LIMIT.as_secs(),
        config::exec::COMMANDS_MAX
    )]
    Busy,
    /// The guest has ended.
    #[error("the guest has ended")]
    Ended,
    /// The connection to the worker failed.
    #[error("the worker of the guest does not answer")]
    Worker(#[source] io::Error),
    /// The command cannot be recorded.
    #[error("cannot record the command")]
    Record(#[source] io::Error),
}

/// The commands of one guest. Clones are of the same one.
#[derive(Debug, Clone)]
pub struct Commands(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The connections on which the worker waits.
    waiting: tokio::sync::Mutex<mpsc::Receiver<TcpStream>>,
    log: CommandLog,
    mask: Mask,
    observer: Observer,
    quiet_max: Duration,
    /// Set once the worker has waited for a command.
    contacted: Arc<AtomicBool>,
    closed: CancellationToken,
}

impl Commands {
    /// Returns the commands of a guest whose worker connects to `listener`, and the task that accepts
    /// its connections. Commands that an earlier agent started are lost.
    pub(super) fn open(
        guest: DrivenGuest,
        listener: TcpListener,
        mask: Mask,
        observer: Observer,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, waiting) = mpsc::channel(1);
        let contacted = Arc::new(AtomicBool::new(false));
        let commands = Self(Arc::new(Shared {
            waiting: tokio::sync::Mutex::new(waiting),
            log: CommandLog::new(guest.file),
            mask,
            observer,
            quiet_max: guest.quiet_max,
            contacted: Arc::clone(&contacted),
            closed: CancellationToken::new(),
        }));
        (commands, accept(listener, sender, contacted))
    }

    /// Starts a command for a client.
    ///
    /// # Errors
    /// The worker takes no command, or the command cannot be recorded.
    pub async fn start(
        &self,
        command: Command,
        submitter: Submitter,
    ) -> Result<RunningCommand, StartError> {
        let shared = &self.0;
        let mut stream = self.take_waiting().await?;
        let words = command.command.iter().map(|word| shared.mask.text(word));
        let number = shared
            .log
            .start(words.collect(), submitter, Timestamp::now())
            .await
            .map_err(StartError::Record)?;
        let running = |stream| RunningCommand {
            stream,
            number,
            commands: self.clone(),
        };
        let frame = Frame::Start(Box::new(command)).to_bytes();
        let sent = timeout(WORKER_LIMIT, stream.write_all(&frame)).await;
        let sent = sent.map_err(io::Error::from).flatten();
        let running = running(stream);
        if let Err(error) = sent {
            running.record(config::exec::CommandEnd::Lost).await;
            return Err(StartError::Worker(error));
        }
        Ok(running)
    }

    /// Lets the worker end all commands and report its result. Returns once it has ended them.
    ///
    /// # Errors
    /// The worker does not answer.
    pub async fn stop(&self) -> Result<(), StartError> {
        let mut stream = self.take_waiting().await?;
        let stopped = async {
            stream.write_all(&Frame::Stop.to_bytes()).await?;
            let mut decoder = Decoder::default();
            match relay::receive(&mut stream, &mut decoder).await? {
                Some(Frame::Stopped) => Ok(()),
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
        };
        let stopped = timeout(STOP_LIMIT, stopped).await;
        let stopped = stopped.map_err(io::Error::from).flatten();
        stopped.map_err(StartError::Worker)
    }

    /// Returns a connection on which the worker waits.
    async fn take_waiting(&self) -> Result<TcpStream, StartError> {
        let taken = async {
            let mut waiting = self.0.waiting.lock().await;
            loop {
                let stream = waiting.recv().await.ok_or(StartError::Ended)?;
                // A worker that waits sends nothing; anything else is the end of its connection.
                match stream.try_read(&mut [0]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(stream),
                    Ok(_) | Err(_) => {}
                }
            }
        };
        tokio::select! {
            () = self.0.closed.cancelled() => Err(StartError::Ended),
            taken = timeout(WORKER_LIMIT, taken) => taken.unwrap_or(Err(StartError::Busy)),
        }
    }
}

/// Accepts the connections of a worker, of which one waits at a time.
async fn accept(
    listener: TcpListener,
    waiting: mpsc::Sender<TcpStream>,
    contacted: Arc<AtomicBool>,
) {
    loop {
        let Ok(place) = waiting.reserve().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without it, the end of a command would wait for an acknowledgment.
                let _ = stream.set_nodelay(true);
                contacted.store(true, Ordering::SeqCst);
                place.send(stream);
            }
            // The agent may be out of descriptors for a while.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// The commands of all driven guests, by the guests' tags.
#[derive(Debug, Clone, Default)]
pub struct CommandRegistry(Arc<Mutex<BTreeMap<String, Commands>>>);

/// The entry of a guest in the registry. Dropping it ends the connections of all clients.
#[derive(Debug)]
pub(super) struct CommandsHandle {
    registry: CommandRegistry,
    tag: String,
    commands: Commands,
}

impl CommandRegistry {
    /// Adds the commands of the guest with this tag.
    pub(super) fn add(&self, tag: &str, commands: Commands) -> CommandsHandle {
        self.0.lock().insert(tag.to_owned(), commands.clone());
        CommandsHandle {
            registry: self.clone(),
            tag: tag.to_owned(),
            commands,
        }
    }

    /// Returns the commands of a build's guest while it runs.
    pub fn of_build(&self, id: BuildId) -> Option<Commands> {
        self.0.lock().get(&id.to_string()).cloned()
    }
}

impl CommandsHandle {
    /// Returns true if the worker has waited for a command.
    pub(super) fn was_contacted(&self) -> bool {
        self.commands.0.contacted.load(Ordering::SeqCst)
    }
}

impl Drop for CommandsHandle {
    fn drop(&mut self) {
        self.commands.0.closed.cancel();
        self.registry.0.lock().remove(&self.tag);
    }
}
