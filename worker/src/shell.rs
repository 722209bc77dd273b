//! A shell at the machine's console, for debugging.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use config::task::{self, BreakpointState};
use sys::error_report::chain;
use tftp::client::Client;

use crate::cli::Settings;
use crate::log::Log;
use crate::{WorkerError, report};

/// The interval at which the host is polled for [`task::RESUME`].
const RESUME_INTERVAL: Duration = Duration::from_secs(1);
/// The interval at which the end of the shell is polled for.
const EXIT_INTERVAL: Duration = Duration::from_millis(50);
/// The file in which the kernel names the devices of its console. The last one is
/// `/dev/console`.
const CONSOLES: &str = "/sys/class/tty/console/active";
/// The controlling terminal of the session, if it has one.
const TERMINAL: &str = "/dev/tty";

/// Stops at a breakpoint: runs a shell in `directory` until it ends or the host resumes the
/// build.
///
/// # Errors
/// The state could not be put to the host.
pub fn breakpoint(settings: &Settings, directory: &Path, log: &mut Log) -> Result<(), WorkerError> {
    put_state(&settings.client, BreakpointState::Waiting)?;
    log.line("stopped at a breakpoint, with a shell on the console");
    match spawn(settings, directory) {
        Ok(mut shell) => wait(&settings.client, &mut shell),
        Err(error) => log.line(&format!("cannot start the shell: {error}")),
    }
    log.line("resumed");
    put_state(&settings.client, BreakpointState::Resumed)
}

/// Runs a shell on the console to its end.
pub fn hold(settings: &Settings, directory: &Path) {
    if let Ok(mut shell) = spawn(settings, directory) {
        // Its exit status does not matter.
        let _ = shell.wait();
    }
}

fn put_state(client: &Client, state: BreakpointState) -> Result<(), WorkerError> {
    report::put_text(client, task::BREAKPOINT, &state.print())
}

/// Waits until the shell has ended, or kills it when the host resumes the build.
fn wait(client: &Client, shell: &mut Child) {
    loop {
        for _ in 0..RESUME_INTERVAL.as_millis() / EXIT_INTERVAL.as_millis() {
            if !matches!(shell.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(EXIT_INTERVAL);
        }
        if client.get(task::RESUME, &mut io::sink()).is_ok() {
            let _ = shell.kill();
            let _ = shell.wait();
            return;
        }
    }
}

/// Starts the worker as `shell`, which calls [`exec_shell`]: only a new process can leave
/// its session.
#[expect(
    clippy::disallowed_methods,
    reason = "`sys::command` collects output, but the shell has the console"
)]
fn spawn(settings: &Settings, directory: &Path) -> io::Result<Child> {
    Command::new(&settings.worker)
        .arg("shell")
        .current_dir(if directory.is_dir() {
            directory
        } else {
            Path::new("/")
        })
        .env("BUILDHOST_WORKER", &settings.worker)
        .stdin(Stdio::null())
        .spawn()
}

/// Replaces this process by a shell that controls the machine's console. Returns only on
/// failure.
#[expect(
    clippy::disallowed_methods,
    reason = "`sys::command` starts children, but this replaces the process"
)]
pub fn exec_shell() -> io::Error {
    let open = || -> io::Result<[File; 3]> {
        let terminal = open_terminal()?;
        Ok([terminal.try_clone()?, terminal.try_clone()?, terminal])
    };
    match open() {
        Ok([stdin, stdout, stderr]) => Command::new("/bin/sh")
            .arg("-i")
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .exec(),
        Err(error) => error,
    }
}

/// Opens the controlling terminal. In a container, that is the console, which belongs to the
/// session of the first process. In a virtual machine, no session has the console, so this
/// process starts one that does.
fn open_terminal() -> io::Result<File> {
    let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    open(Path::new(TERMINAL)).or_else(|_| {
        rustix::process::setsid()?;
        // The first terminal that a new session opens becomes its controlling terminal.
        open(&console())
    })
}

/// Returns the device behind `/dev/console`, which cannot be a controlling terminal itself.
fn console() -> PathBuf {
    let active = fs::read_to_string(CONSOLES).unwrap_or_default();
    active
        .split_ascii_whitespace()
        .last()
        .map(|name| Path::new("/dev").join(name))
        .filter(|device| device.exists())
        .unwrap_or_else(|| "/dev/console".into())
}

/// Returns the message for a failure of [`exec_shell`].
pub fn exec_error(error: &io::Error) -> String {
    format!("cannot start a shell on the console: {}", chain(error))
}
