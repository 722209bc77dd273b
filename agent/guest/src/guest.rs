//! A running guest. It outlives the agent: a later agent finds it by the process record in
//! its run directory, and nothing of it runs before that record is written.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::builds::Usage;
use config::machine::{Kind, Machine};
use tracing::debug;

use crate::end::{GuestEnd, Shutdown};
use crate::error::GuestError;
use crate::process::{Exit, Process};
use crate::qemu::checkpoint;
use crate::qemu::fork::{self, CapturedFork, ForkError, ForkSpec, PreparedFork};
use crate::qemu::qmp::{Qmp, QmpError};
use crate::qemu::socket::connect_to;
use crate::run_dir::{self, StderrPipe};
use crate::spec::{BootMode, Spec};
use crate::{nspawn, qemu};

/// The time in which QEMU must end after the command `quit`.
const QUIT_LIMIT: Duration = Duration::from_secs(5);
/// The time in which the kernel must end a killed process.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A running guest. Dropping it leaves it running.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    run_dir: PathBuf,
    stderr: StderrPipe,
}

/// The ends of a guest's serial console.
#[derive(Debug)]
pub enum Console {
    /// A virtual machine's, for both directions.
    Socket(UnixStream),
    /// A container's named pipes.
    Pipes {
        /// The output.
        output: File,
        /// The input; a container of an older agent has none.
        input: Option<File>,
    },
}

/// Closes a snapshot to everybody but root: the owners of its files may have the number of a
/// user of the host.
fn protect(directory: &Path) -> Result<(), GuestError> {
    let closed = chown(directory, Some(0), Some(0))
        .and_then(|()| fs::set_permissions(directory, Permissions::from_mode(0o700)));
    closed.map_err(|source| GuestError::Open {
        path: directory.to_owned(),
        source,
    })
}

impl Guest {
    /// Starts a guest. Returns when it runs and its process record is written. On failure no
    /// process is left.
    ///
    /// # Errors
    /// When a part of the guest cannot be used, or its program fails.
    pub fn start(spec: Spec) -> Result<Self, GuestError> {
        let run_dir = spec.run_dir.clone();
        if Process::find(&run_dir)?.is_some() {
            return Err(GuestError::Running(run_dir));
        }
        let stderr = run_dir::prepare(&run_dir).map_err(GuestError::run_dir(&run_dir))?;
        let (boot, directory, paused) = (spec.boot, spec.directory.clone(), spec.paused);
        protect(&directory)?;
        let (process, gate) = match spec.machine.kind {
            Kind::Kvm => (qemu::start(spec)?, None),
            Kind::Nspawn => nspawn::start(spec).map(|(process, gate)| (process, Some(gate)))?,
        };
        let guest = Self {
            process,
            run_dir,
            stderr,
        };
        let begun = match gate {
            Some(gate) => gate.open().map_err(QmpError::from),
            None => guest.load(boot, &directory).and_then(|mut qmp| {
                if paused {
                    return Ok(());
                }
                qmp.command("cont")
            }),
        };
        if let Err(source) = begun {
            // The first error is the one to report.
            let _ = guest.kill_and_wait();
            let stderr = guest.take_stderr();
            return Err(GuestError::Program { stderr, source });
        }
        Ok(guest)
    }

    /// Connects to QEMU, and loads the checkpoint if there is one to restore.
    fn load(&self, boot: BootMode, directory: &Path) -> Result<Qmp, QmpError> {
        let mut qmp = self.connect_qmp()?;
        debug!("connected to QEMU's monitor");
        if boot == BootMode::Restore {
            checkpoint::load(&mut qmp, directory)?;
            debug!("QEMU loaded the state of the checkpoint");
        }
        Ok(qmp)
    }

    /// Gives a guest another run directory, which must not exist, and another control group.
    ///
    /// # Errors
    /// When a directory cannot be renamed or created. The guest may have either name then.
    pub fn rename(
        self,
        group: &str,
        machine: &Machine,
        run_dir: &Path,
    ) -> Result<Self, GuestError> {
        fs::rename(&self.run_dir, run_dir).map_err(GuestError::run_dir(run_dir))?;
        Ok(Self {
            process: self.process.move_to(group, machine, run_dir)?,
            run_dir: run_dir.to_owned(),
            stderr: self.stderr,
        })
    }

    /// Finds the guest that an earlier agent started with this run directory, if it still
    /// runs. Its processors may be stopped: see [`Guest::resume`].
    ///
    /// # Errors
    /// When its process record cannot be read.
    pub fn find(run_dir: &Path) -> Result<Option<Self>, GuestError> {
        let process = Process::find(run_dir)?;
        Ok(process.map(|process| Self {
            process,
            run_dir: run_dir.to_owned(),
            stderr: StderrPipe::find(run_dir),
        }))
    }

    fn connect_qmp(&self) -> Result<Qmp, QmpError> {
        match self.kind() {
            Kind::Kvm => Qmp::connect(&self.run_dir.join(run_dir::MONITOR)),
            Kind::Nspawn => Err(QmpError::Container),
        }
    }

    /// Returns the guest's kind.
    pub fn kind(&self) -> Kind {
        self.process.kind()
    }

    /// Returns the end of the standard error of the guest's program since the last call.
    pub fn take_stderr(&self) -> String {
        self.stderr.take()
    }

    /// Returns the guest's resource usage so far.
    pub fn usage(&self) -> Usage {
        self.process.usage()
    }

    /// Returns the number of the guest's process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the unit of the guest's scope, on a host with machined.
    pub fn scope(&self) -> Option<&str> {
        self.process.scope()
    }

    /// Returns the directory with the guest's files. The record of an older agent has none.
    pub fn root(&self) -> Option<&Path> {
        self.process.root()
    }

    /// Returns the descriptor of the guest's process, which is readable from its end on.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd()
    }

    /// Returns the number of bytes that QEMU has written to files. The writes of a
    /// container's processes are not counted.
    pub fn bytes_written(&self) -> u64 {
        let io = sys::trusted::read_text(format!("/proc/{}/io", self.pid())).unwrap_or_default();
        let bytes = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
    }

    /// Waits up to `limit` for the end of the guest's process. Returns `None` while it runs.
    /// May be called again.
    pub fn wait(&self, limit: Duration) -> Option<Exit> {
        self.process.wait(limit)
    }

    /// Presses the guest's power button.
    ///
    /// # Errors
    /// When QEMU does not answer, or the guest is a container.
    pub fn power_down(&self) -> Result<(), QmpError> {
        self.connect_qmp()?.command("system_powerdown")
    }

    /// Stops the guest's processors until [`Guest::resume`].
    ///
    /// # Errors
    /// When QEMU does not answer, or the guest is a container.
    pub fn suspend(&self) -> Result<(), QmpError> {
        self.connect_qmp()?.command("stop")
    }

    /// Lets the guest's processors run again.
    ///
    /// # Errors
    /// When QEMU does not answer, or waits in vain for the state of a checkpoint:
    /// [`QmpError::State`].
    pub fn resume(&self) -> Result<(), QmpError> {
        match self.kind() {
            Kind::Kvm => {
                let mut qmp = self.connect_qmp()?;
                checkpoint::check_loaded(&mut qmp)?;
                qmp.command("cont")
            }
            // A container whose gate stayed closed has ended with the agent.
            Kind::Nspawn => Ok(()),
        }
    }

    /// Saves a checkpoint of a guest that was started as [`BootMode::CheckpointSource`] in
    /// `directory`, and ends the guest. The checkpoint is on disk afterwards. Any number of
    /// snapshots of the directory can start as [`BootMode::Restore`], or as
    /// [`BootMode::Cold`] with the machine's own disk.
    ///
    /// # Errors
    /// When QEMU or the file system refuses. The guest has ended then, too.
    pub fn checkpoint(&self, directory: &Path) -> Result<(), GuestError> {
        let saved = self.connect_qmp().and_then(|mut qmp| {
            checkpoint::save(&mut qmp, directory)?;
            qmp.command("quit")
        });
        if saved.is_err() || self.wait(QUIT_LIMIT).is_none() {
            self.kill_and_wait()?;
        }
        let stderr = self.take_stderr();
        saved.map_err(|source| GuestError::Program { stderr, source })
    }

    /// Prepares a fork of the guest, which runs on. The target of the fork must be a snapshot of
    /// the guest's directory.
    ///
    /// # Errors
    /// When the guest did not start from a checkpoint, or its files or its memory cannot be used.
    pub fn prepare_fork(&self, spec: ForkSpec) -> Result<PreparedFork, ForkError> {
        match self.kind() {
            Kind::Kvm => fork::prepare(self.pid(), spec),
            Kind::Nspawn => Err(ForkError::Container),
        }
    }

    /// Captures the guest at this instant. It runs on, whatever fails. Any number of snapshots
    /// of the completed fork point can start as [`BootMode::Restore`] and continue there.
    ///
    /// # Errors
    /// When QEMU or the file system refuses.
    pub fn capture_fork(&self, prepared: PreparedFork) -> Result<CapturedFork, ForkError> {
        prepared.capture(&mut self.connect_qmp()?)
    }

    /// Kills the guest's processes; [`Guest::wait`] returns when they have ended.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Ends the guest: presses the power button and waits up to `grace` for its shutdown;
    /// then lets QEMU quit with what the guest has written; then kills it.
    ///
    /// # Errors
    /// When the kernel cannot end the process.
    pub fn stop(&self, grace: Duration) -> Result<Exit, GuestError> {
        match self.power_down() {
            Ok(()) => {
                if let Some(exit) = self.wait(grace) {
                    return Ok(exit);
                }
            }
            // A second command would only take as long.
            Err(QmpError::Timeout) => return self.kill_and_wait(),
            Err(_) => {}
        }
        let quit = self.connect_qmp().and_then(|mut qmp| qmp.command("quit"));
        if quit.is_ok()
            && let Some(exit) = self.wait(QUIT_LIMIT)
        {
            return Ok(exit);
        }
        self.kill_and_wait()
    }

    /// Kills the guest and waits until it has ended.
    ///
    /// # Errors
    /// When the kernel cannot end the process.
    pub fn kill_and_wait(&self) -> Result<Exit, GuestError> {
        for _ in 0..2 {
            self.kill();
            if let Some(exit) = self.wait(KILL_LIMIT) {
                return Ok(exit);
            }
        }
        Err(GuestError::Unkillable(self.pid()))
    }

    /// Connects to the guest's serial console, from now on (from the guest's start for the
    /// first connection). One reader at a time; output that is not read blocks the guest.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn console(&self) -> io::Result<Console> {
        match self.kind() {
            Kind::Kvm => {
                let socket = connect_to(&self.run_dir.join(run_dir::CONSOLE))?;
                Ok(Console::Socket(socket))
            }
            Kind::Nspawn => Ok(Console::Pipes {
                output: nspawn::console_output(&self.run_dir)?,
                input: nspawn::console_input(&self.run_dir)?,
            }),
        }
    }

    /// Connects to the control port, on which the worker waits for its task
    /// ([`config::task::CONTROL_PORT`] inside). A container has none and begins at once.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn control(&self) -> io::Result<Option<UnixStream>> {
        self.port(run_dir::CONTROL)
    }

    /// Connects to the log channel ([`config::task::LOG_PORT`] inside). A container has
    /// none: it sends its log to [`config::task::LOG_TCP_PORT`].
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn log(&self) -> io::Result<Option<UnixStream>> {
        self.port(run_dir::LOG)
    }

    /// Connects to the monitor on which QEMU reports events, to be read with
    /// [`Shutdown::from_event`](crate::Shutdown::from_event). A container has none, and neither
    /// has the guest of an older agent.
    ///
    /// # Errors
    /// When QEMU is gone.
    pub fn events(&self) -> io::Result<Option<UnixStream>> {
        if !self.run_dir.join(run_dir::EVENTS).exists() {
            return Ok(None);
        }
        self.port(run_dir::EVENTS)
    }

    /// Returns the end of the guest, of which QEMU has reported `shutdown`.
    pub fn end(&self, exit: Exit, shutdown: Option<Shutdown>) -> GuestEnd {
        GuestEnd {
            kind: self.kind(),
            exit,
            shutdown,
            out_of_memory: self.process.ran_out_of_memory(),
        }
    }

    fn port(&self, name: &str) -> io::Result<Option<UnixStream>> {
        match self.kind() {
            Kind::Kvm => connect_to(&self.run_dir.join(name)).map(Some),
            Kind::Nspawn => Ok(None),
        }
    }
}
