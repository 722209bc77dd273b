//! A guest: a build machine that runs, in its own network. There are two kinds:
//! virtual machines by QEMU, as an unprivileged user, and containers by
//! systemd-nspawn, with users of their own.
//!
//! It is not tied to our life: an agent that is started again finds it by the record
//! in its run directory. Nothing of a guest runs before that record is written.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::builds::Usage;
use config::machine::{Kind, Machine};
use config::settings::{Acceleration, Uefi};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedWriteHalf, pipe};
use tokio::time::timeout;
use tracing::debug;

use crate::error::GuestError;
use crate::process::{self, Exit, Process};
use crate::qemu::checkpoint as frozen;
use crate::qemu::qmp::{Monitor, QmpError};
use crate::run_dir::{self as run, StderrPipe};
use crate::{nspawn, qemu};

/// How long QEMU may take to leave when it is told to.
const QUIT_LIMIT: Duration = Duration::from_secs(5);
/// How long the kernel may take to end a process that was killed.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// What a guest is started from.
#[derive(Debug)]
pub struct Spec {
    /// For people: shown in the list of processes.
    pub name: String,
    /// Its snapshot, with the files that the machine's manifest names.
    pub directory: PathBuf,
    /// The machine's manifest.
    pub machine: Machine,
    /// The user that QEMU runs as.
    pub user: User,
    /// A directory for its sockets and its record; made when it is not there.
    pub run: PathBuf,
    /// The name of its network, which must be there.
    pub network: String,
    /// What should run its processors.
    pub acceleration: Acceleration,
    /// The firmware, if it boots by UEFI.
    pub uefi: Uefi,
    /// Whether what it writes is kept: when it flushes, it is on the host's disk.
    /// Otherwise everything is thrown away with it, and flushes do nothing.
    pub durable: bool,
    /// The way in which it boots.
    pub boot: BootMode,
    /// Descriptors that live as long as the guest, such as a lock.
    pub keep: Vec<OwnedFd>,
}

/// The way in which a guest boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMode {
    /// Boots from its disk.
    Cold,
    /// Boots from a clone of its disk, with its memory in a file, so that a checkpoint of
    /// it can be saved. The machine's own disk stays unchanged.
    CheckpointSource,
    /// Continues from the checkpoint in its directory. The checkpoint's memory file stays
    /// unchanged.
    Restore,
}

/// An unprivileged user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
}

impl From<(u32, u32)> for User {
    fn from((uid, gid): (u32, u32)) -> Self {
        Self { uid, gid }
    }
}

/// What a guest says, as it says it.
pub type Stream = Box<dyn AsyncRead + Send + Unpin>;

/// What types on a guest's console. Dropping that of a virtual machine ends the console
/// that it came with.
#[derive(Debug)]
pub enum ConsoleInput {
    /// Of a virtual machine.
    Socket(OwnedWriteHalf),
    /// Of a container.
    Pipe(pipe::Sender),
}

impl ConsoleInput {
    /// Types these bytes. Waits while the guest takes none.
    ///
    /// # Errors
    /// When the guest is gone.
    pub async fn press(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.write_all(bytes).await,
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
        }
    }
}

/// A running guest. Dropping it leaves it running.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    run: PathBuf,
    complaints: StderrPipe,
}

impl Guest {
    /// Starts a guest. Returns when it runs and the record is written; when it fails,
    /// no process is left.
    ///
    /// # Errors
    /// What could not be used, or what its program complained about.
    pub async fn start(spec: Spec) -> Result<Self, GuestError> {
        let run = spec.run.clone();
        if process::Handle::find(&run)?.is_some() {
            return Err(GuestError::Running(run));
        }
        let complaints = run::prepare(&run).map_err(GuestError::run(&run))?;
        let (memory, directory) = (spec.boot, spec.directory.clone());
        let started = tokio::task::spawn_blocking(move || match spec.machine.kind {
            Kind::Kvm => Ok((qemu::start(spec)?, None)),
            Kind::Nspawn => nspawn::start(spec).map(|(handle, gate)| (handle, Some(gate))),
        });
        let panicked = |error| GuestError::Start(io::Error::other(error));
        let (process, gate) = started.await.map_err(panicked)??;
        let guest = Self {
            process: process.watch().map_err(GuestError::Watch)?,
            run,
            complaints,
        };
        let up = async {
            if let Some(gate) = gate {
                return Ok(gate.open()?);
            }
            let mut monitor = guest.monitor().await?;
            debug!("QEMU answers");
            if memory == BootMode::Restore {
                frozen::load(&mut monitor, &directory).await?;
                debug!("QEMU has read the state of the frozen guest");
            }
            monitor.command("cont").await
        };
        if let Err(source) = up.await {
            // It is gone or it is not: what we noticed first is what to tell.
            let _ = guest.end().await;
            let stderr = guest.complaints();
            return Err(GuestError::Up { stderr, source });
        }
        Ok(guest)
    }

    /// Finds the guest that an earlier agent started with this run directory, if
    /// it still runs. Its processors may not run yet: see [`Guest::go_on`]. Must be
    /// called in a tokio runtime.
    ///
    /// # Errors
    /// When there is a record that cannot be read.
    pub fn find(run: &Path) -> Result<Option<Self>, GuestError> {
        let Some(process) = process::Handle::find(run)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            process: process.watch().map_err(GuestError::Watch)?,
            run: run.to_owned(),
            complaints: StderrPipe::find(run),
        }))
    }

    async fn monitor(&self) -> Result<Monitor, QmpError> {
        match self.kind() {
            Kind::Kvm => Monitor::connect(&self.run.join(run::MONITOR)).await,
            Kind::Nspawn => Err(QmpError::None),
        }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.process.kind()
    }

    /// The end of what its program has complained about since it was last asked.
    pub fn complaints(&self) -> String {
        self.complaints.take()
    }

    /// What it has taken of the host until now.
    pub fn usage(&self) -> Usage {
        self.process.usage()
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What QEMU has written to files so far; what the processes of a container have
    /// written is not counted.
    pub fn bytes_written(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.pid()));
        let text = text.unwrap_or_default();
        let mut lines = text.lines();
        let found = lines.find_map(|line| line.strip_prefix("write_bytes: "));
        found.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
    }

    /// Waits until the process has ended, and says how. May be called again.
    pub async fn exited(&self) -> Exit {
        self.process.exited().await
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// When QEMU does not answer; a container has no such button.
    pub async fn power_down(&self) -> Result<(), QmpError> {
        self.monitor().await?.command("system_powerdown").await
    }

    /// Lets QEMU end at once, with what it has written.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub async fn quit(&self) -> Result<(), QmpError> {
        self.monitor().await?.command("quit").await
    }

    /// Stops its processors; it stays as it is until [`Guest::go_on`].
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub async fn suspend(&self) -> Result<(), QmpError> {
        self.monitor().await?.command("stop").await
    }

    /// Freezes a guest that was started as [`BootMode::CheckpointSource`] in `directory`, and
    /// ends it. Disk, memory and devices of one instant lie there then, on disk;
    /// snapshots of the directory start as [`BootMode::Restore`], any number of them.
    /// They start as [`BootMode::Cold`] as before, too, with the disk as it was.
    ///
    /// # Errors
    /// When QEMU or the file system refuses. The guest has ended then, too.
    pub async fn freeze(&self, directory: &Path) -> Result<(), GuestError> {
        let save = async {
            let mut monitor = self.monitor().await?;
            frozen::save(&mut monitor, directory).await?;
            monitor.command("quit").await
        };
        let saved = save.await;
        if saved.is_err() || timeout(QUIT_LIMIT, self.exited()).await.is_err() {
            self.end().await?;
        }
        let stderr = self.complaints();
        saved.map_err(|source| GuestError::Up { stderr, source })
    }

    /// Lets its processors run again.
    ///
    /// # Errors
    /// When QEMU does not answer, or never had the state of the guest that was to be
    /// woken in it: [`QmpError::State`]; it would wait for that for ever.
    pub async fn go_on(&self) -> Result<(), QmpError> {
        match self.kind() {
            Kind::Kvm => {
                let mut monitor = self.monitor().await?;
                frozen::check_loaded(&mut monitor).await?;
                monitor.command("cont").await
            }
            // It ends by itself when nobody let it begin.
            Kind::Nspawn => Ok(()),
        }
    }

    /// Kills the processes; [`Guest::exited`] tells when they are gone.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Ends the guest: asks it to shut down and waits for `grace`; then lets QEMU
    /// end; then kills it.
    ///
    /// # Errors
    /// When the kernel cannot end the process.
    pub async fn stop(&self, grace: Duration) -> Result<Exit, GuestError> {
        match self.power_down().await {
            Ok(()) => {
                if let Ok(exit) = timeout(grace, self.exited()).await {
                    return Ok(exit);
                }
            }
            // It does not listen: the next word would only cost as much time.
            Err(QmpError::Late) => return self.end().await,
            Err(_) => {}
        }
        if self.quit().await.is_ok()
            && let Ok(exit) = timeout(QUIT_LIMIT, self.exited()).await
        {
            return Ok(exit);
        }
        self.end().await
    }

    /// Kills the guest and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel cannot end the process.
    pub async fn end(&self) -> Result<Exit, GuestError> {
        for _ in 0..2 {
            self.kill();
            if let Ok(exit) = timeout(KILL_LIMIT, self.exited()).await {
                return Ok(exit);
            }
        }
        Err(GuestError::Undead(self.pid()))
    }

    /// Its serial console, from now on (from its start for the first that asks).
    /// One reader at a time. Who does not read on holds the guest up. Must be
    /// called in a tokio runtime.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn console(&self) -> io::Result<Stream> {
        match self.kind() {
            Kind::Kvm => Ok(Box::new(qemu::connect(&self.run.join(run::CONSOLE))?)),
            Kind::Nspawn => Ok(Box::new(nspawn::console(&self.run)?)),
        }
    }

    /// Its serial console, like [`Guest::console`], and its keyboard; a container that
    /// an older agent started has none.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn terminal(&self) -> io::Result<(Stream, Option<ConsoleInput>)> {
        match self.kind() {
            Kind::Kvm => {
                let console = qemu::connect(&self.run.join(run::CONSOLE))?;
                let (reader, writer) = console.into_split();
                Ok((Box::new(reader), Some(ConsoleInput::Socket(writer))))
            }
            Kind::Nspawn => {
                let keyboard = nspawn::keyboard(&self.run)?;
                Ok((self.console()?, keyboard.map(ConsoleInput::Pipe)))
            }
        }
    }

    /// The channel on which it waits for its task, [`config::task::CONTROL_PORT`]
    /// inside; like the console. A container has none, and begins at once.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn control(&self) -> io::Result<Option<UnixStream>> {
        self.port(run::CONTROL)
    }

    /// Its log channel, [`config::task::LOG_PORT`] inside; like the console. A
    /// container has none: it sends its log to [`config::task::LOG_TCP_PORT`].
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn log(&self) -> io::Result<Option<Stream>> {
        let log = self.port(run::LOG)?;
        Ok(log.map(|log| Box::new(log) as Stream))
    }

    fn port(&self, name: &str) -> io::Result<Option<UnixStream>> {
        match self.kind() {
            Kind::Kvm => qemu::connect(&self.run.join(name)).map(Some),
            Kind::Nspawn => Ok(None),
        }
    }
}

#[cfg(test)]
impl Spec {
    /// The guest of build 42 on a machine with this manifest.
    pub(crate) fn example(manifest: &str) -> Self {
        Self {
            name: "demo, build 42".to_owned(),
            directory: "/build/machines/default/demo/demo-default-42".into(),
            machine: config::machine::Machine::parse(manifest).unwrap(),
            user: User { uid: 900, gid: 900 },
            run: "/run/buildhost/guests/42".into(),
            network: "buildhost-42".to_owned(),
            acceleration: Acceleration::Auto,
            uefi: config::settings::Settings::parse("").unwrap().guests.uefi,
            durable: false,
            boot: BootMode::Cold,
            keep: Vec::new(),
        }
    }
}
