//! A shell for a person at the machine's console.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Cursor};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use config::task::{self, BreakpointState};

use crate::cli::Settings;
use crate::log::Log;
use crate::{WorkerError, chain};
use tftp::client::Client;

/// How often the host is asked whether to go on.
const ASK: Duration = Duration::from_secs(1);
/// How often we look whether the shell has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Where the kernel names the devices of its console; the last one is `/dev/console`.
const CONSOLES: &str = "/sys/class/tty/console/active";
/// The terminal that controls our session, if one does.
const TERMINAL: &str = "/dev/tty";

/// Stops for a person: gives the console a shell in the directory `place`, until the
/// shell ends or the host says to go on.
///
/// # Errors
/// The host does not hear of it.
pub fn breakpoint(settings: &Settings, place: &Path, log: &mut Log) -> Result<(), WorkerError> {
    put(&settings.client, BreakpointState::Waiting)?;
    log.say("waiting for a person at the console");
    match start(settings, place) {
        Ok(mut shell) => wait(&settings.client, &mut shell),
        Err(error) => log.say(&format!("there is no shell: {error}")),
    }
    log.say("going on");
    put(&settings.client, BreakpointState::Resumed)
}

/// Gives the console a shell until it ends.
pub fn hold(settings: &Settings, place: &Path) {
    if let Ok(mut shell) = start(settings, place) {
        // It is over however it ends.
        let _ = shell.wait();
    }
}

fn put(client: &Client, state: BreakpointState) -> Result<(), WorkerError> {
    let text = state.print();
    let put = client.put(task::BREAKPOINT, &mut Cursor::new(&text), text.len() as u64);
    put.map_err(|source| WorkerError::Put {
        name: task::BREAKPOINT.to_owned(),
        source,
    })
}

fn wait(client: &Client, shell: &mut Child) {
    loop {
        for _ in 0..ASK.as_millis() / LOOK.as_millis() {
            if !matches!(shell.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK);
        }
        if client.get(task::RESUME, &mut io::sink()).is_ok() {
            let _ = shell.kill();
            let _ = shell.wait();
            return;
        }
    }
}

/// Starts ourselves as [`become_shell`]: a program cannot leave its session otherwise.
#[expect(
    clippy::disallowed_methods,
    reason = "the shell is no program of the toolchain, and is not heard by the log"
)]
fn start(settings: &Settings, place: &Path) -> io::Result<Child> {
    Command::new(&settings.worker)
        .arg("shell")
        .current_dir(if place.is_dir() {
            place
        } else {
            Path::new("/")
        })
        .env("BUILDHOST_WORKER", &settings.worker)
        .stdin(Stdio::null())
        .spawn()
}

/// Becomes a shell at the machine's console, which it controls. Returns only when it
/// cannot.
#[expect(
    clippy::disallowed_methods,
    reason = "the shell takes our place, with all that we were given"
)]
pub fn become_shell() -> io::Error {
    let open = || -> io::Result<[File; 3]> {
        let console = terminal()?;
        Ok([console.try_clone()?, console.try_clone()?, console])
    };
    match open() {
        Ok([input, output, errors]) => Command::new("/bin/sh")
            .arg("-i")
            .stdin(input)
            .stdout(output)
            .stderr(errors)
            .exec(),
        Err(error) => error,
    }
}

/// The terminal that controls our session. In a container that is its console, which
/// belongs to the session of the first process; of a virtual machine's nobody makes use,
/// so we begin a session that it controls.
fn terminal() -> io::Result<File> {
    let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    open(Path::new(TERMINAL)).or_else(|_| {
        rustix::process::setsid()?;
        // The first terminal that is opened now is ours.
        open(&console())
    })
}

/// The device of the console itself: `/dev/console` cannot control anything.
fn console() -> PathBuf {
    let active = fs::read_to_string(CONSOLES).unwrap_or_default();
    let device = active.split_ascii_whitespace().last();
    let device = device.map(|name| Path::new("/dev").join(name));
    device
        .filter(|device| device.exists())
        .unwrap_or_else(|| "/dev/console".into())
}

/// The words for a shell that could not be.
pub fn failed(error: &io::Error) -> String {
    format!("there is no shell at the console: {}", chain(error))
}
