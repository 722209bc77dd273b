//! One auxiliary guest that runs: its console, its environment and its end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::AuxiliaryTag;
use config::auxiliary::{AuxiliaryMachine, FILE};
use guest::{Exit, Guest};
use sys::blocking::blocking;
use tftp::server::Event;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::shown;
use crate::console::ConsoleHandle;
use crate::console_tail::ConsoleTail;
use crate::guest_handle::GuestHandle;
use crate::log_capture::Capture;
use crate::shutdown_report::ShutdownReport;
use crate::streams;
use crate::teardown::{kill, remove_run_dir};
use crate::{GuestFailure, GuestServices};

/// The time in which the output of a guest that has ended must be captured.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// An auxiliary guest that runs, before it is registered with the runtime.
pub(crate) struct Found {
    pub(crate) guest: Guest,
    pub(crate) run_dir: PathBuf,
    pub(crate) tag: AuxiliaryTag,
    pub(crate) auxiliary: AuxiliaryMachine,
    /// The file that receives the output of its console, and the maximum size of that file.
    pub(crate) console: (PathBuf, u64),
    /// The actions of the guest at the TFTP server.
    pub(crate) events: mpsc::Receiver<Event>,
    /// The time in which it must put its environment.
    pub(crate) start_limit: Duration,
}

/// An auxiliary guest. Dropping it leaves it running.
#[derive(Debug)]
pub(crate) struct AuxiliaryGuest {
    handle: GuestHandle,
    run_dir: PathBuf,
    name: String,
    events: mpsc::Receiver<Event>,
    started: Instant,
    start_limit: Duration,
    console: Option<ConsoleHandle>,
    shutdown: ShutdownReport,
    tasks: JoinSet<()>,
    captures: JoinSet<()>,
    drain: CancellationToken,
}

impl AuxiliaryGuest {
    /// Registers a guest with the runtime.
    pub(super) fn register(
        services: &GuestServices,
        found: Found,
    ) -> Result<Self, (io::Error, (Arc<Guest>, PathBuf))> {
        let guest = Arc::new(found.guest);
        let registered = GuestHandle::new(Arc::clone(&guest)).and_then(|handle| {
            let mut auxiliary = Self {
                handle,
                run_dir: found.run_dir.clone(),
                name: shown(&found.auxiliary),
                events: found.events,
                started: Instant::now(),
                start_limit: found.start_limit,
                console: None,
                shutdown: ShutdownReport::default(),
                tasks: JoinSet::new(),
                captures: JoinSet::new(),
                drain: CancellationToken::new(),
            };
            let tag = found.tag.to_string();
            auxiliary.attach(services, &guest, &tag, &found.auxiliary, found.console)?;
            Ok(auxiliary)
        });
        registered.map_err(|error| (error, (guest, found.run_dir)))
    }

    /// Captures the output of the console, and follows the reports of QEMU.
    fn attach(
        &mut self,
        services: &GuestServices,
        guest: &Guest,
        tag: &str,
        auxiliary: &AuxiliaryMachine,
        (path, bytes_max): (PathBuf, u64),
    ) -> io::Result<()> {
        let (output, input) = streams::console(guest.console()?)?;
        let handle = services.consoles.add(tag, &auxiliary.machine, input);
        let console = handle.console();
        let capture = Capture::new(path, bytes_max, self.drain.clone());
        let show = move |piece: &[u8]| console.show(piece);
        self.captures.spawn(capture.stream(output, show));
        self.console = Some(handle);
        if let Some(events) = guest.events()? {
            let events = streams::unix_stream(events)?;
            self.tasks.spawn(self.shutdown.clone().follow(events));
        }
        Ok(())
    }

    /// Waits until the guest has put its environment.
    pub(super) async fn ready(&mut self) -> Result<(), GuestFailure> {
        let deadline = sleep_until(self.started + self.start_limit);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => {
                    if self.is_environment(event) {
                        // From now on its actions are not reported.
                        self.events.close();
                        return Ok(());
                    }
                }
                exit = self.handle.exited() => return Err(self.failure(exit).await),
                () = &mut deadline => return Err(GuestFailure::AuxiliaryTimeout {
                    name: self.name.clone(),
                    limit: self.start_limit,
                    console: self.console_tail(),
                }),
            }
        }
    }

    fn is_environment(&self, event: Event) -> bool {
        let auxiliary = &self.name;
        match event {
            Event::Put { name, bytes, .. } => {
                info!(auxiliary, name, bytes, "an auxiliary guest put a file");
                name == FILE
            }
            Event::Fetched { name, bytes } => {
                info!(auxiliary, name, bytes, "an auxiliary guest fetched a file");
                false
            }
            Event::Refused { name, reason } => {
                warn!(
                    auxiliary,
                    name, reason, "an auxiliary guest was refused a file"
                );
                false
            }
            Event::FirstContact => false,
        }
    }

    /// Waits until its process has ended. Cancel-safe.
    pub(super) async fn exited(&self) -> Exit {
        self.handle.exited().await
    }

    /// Returns the failure of the session when the guest has ended.
    pub(super) async fn failure(&self, exit: Exit) -> GuestFailure {
        let shutdown = self.shutdown.of_ended().await;
        GuestFailure::AuxiliaryExited {
            name: self.name.clone(),
            end: self.handle.end(exit, shutdown),
            stderr: self.handle.take_stderr(),
            console: self.console_tail(),
        }
    }

    fn console_tail(&self) -> ConsoleTail {
        let console = self.console.as_ref();
        console.map(|it| it.console().tail()).unwrap_or_default()
    }

    /// Ends the guest, and captures the rest of its output.
    pub(super) async fn end(mut self) {
        self.handle.run(kill).await;
        self.drain.cancel();
        let captured = async { while self.captures.join_next().await.is_some() {} };
        if timeout(DRAIN_LIMIT, captured).await.is_err() {
            warn!(
                auxiliary = self.name,
                "the output of an auxiliary guest does not end"
            );
        }
        let run_dir = self.run_dir.clone();
        blocking(move || remove_run_dir(&run_dir)).await;
    }
}
