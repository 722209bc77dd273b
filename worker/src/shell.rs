//! A shell at the machine's console, for debugging.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use config::task::{self, BreakpointState, Outcome};
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

/// The variable with the text that a shell shows first.
const BANNER: &str = "BUILDHOST_BANNER";

/// The surroundings of the toolchain's `build`, which a shell gets, too.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The build, for people: `build 42 on linux`.
    pub title: String,
    /// The path of the toolchain's `build`.
    pub program: PathBuf,
    /// The directory of the sources.
    pub sources: PathBuf,
    /// The directory of the artifacts.
    pub out: PathBuf,
    /// The working directory.
    pub work: PathBuf,
    /// The variables.
    pub environment: Vec<(&'static str, OsString)>,
}

impl Surroundings {
    /// Returns the text that tells a person where things are. `state` is the state of the build,
    /// `exit` the effect of the end of the shell.
    fn banner(&self, state: &str, exit: &str) -> String {
        let Self {
            title,
            program,
            sources,
            out,
            work,
            ..
        } = self;
        format!(
            "\n{title} {state}.\n\
             \x20 sources    {}\n\
             \x20 directory  {}\n\
             \x20 artifacts  {}\n\
             \x20 program    {}  (builds; it needs an empty directory of artifacts)\n\
             `exit` {exit}.\n",
            sources.display(),
            work.display(),
            out.display(),
            program.display(),
        )
    }
}

/// The reason for a shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// A breakpoint before the build.
    Start,
    /// A breakpoint after the build, which has ended with this outcome.
    Result(Outcome),
    /// A copy of a held guest.
    Attached,
}

impl Stop {
    fn banner(self, surroundings: &Surroundings) -> String {
        match self {
            Self::Start => surroundings.banner("stopped before it begins", "lets it begin"),
            Self::Result(outcome) => surroundings.banner(
                &format!("stopped after the result `{outcome}`"),
                "lets it report that result and end; build again by hand as often as you like",
            ),
            Self::Attached => surroundings.banner(
                "has failed; this is a copy of its guest",
                "deletes this copy, and the held guest stays as it is",
            ),
        }
    }
}

/// Stops at a breakpoint: runs a shell until it ends or the host resumes the build.
///
/// # Errors
/// The state could not be put to the host.
pub fn breakpoint(
    settings: &Settings,
    surroundings: &Surroundings,
    stop: Stop,
    log: &mut Log,
) -> Result<(), WorkerError> {
    put_state(&settings.client, BreakpointState::Waiting)?;
    log.line("stopped at a breakpoint, with a shell on the console");
    match spawn(settings, surroundings, &stop.banner(surroundings)) {
        Ok(mut shell) => wait(&settings.client, &mut shell),
        Err(error) => log.line(&format!("cannot start the shell: {error}")),
    }
    log.line("resumed");
    put_state(&settings.client, BreakpointState::Resumed)
}

/// Runs a shell on the console of a guest that is held to its end.
pub fn hold(settings: &Settings, surroundings: &Surroundings) {
    let banner = surroundings.banner("has failed; its guest is held", "ends the guest");
    if let Ok(mut shell) = spawn(settings, surroundings, &banner) {
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
fn spawn(settings: &Settings, surroundings: &Surroundings, banner: &str) -> io::Result<Child> {
    let directory = &surroundings.work;
    Command::new(&settings.worker)
        .arg("shell")
        .current_dir(if directory.is_dir() {
            directory
        } else {
            Path::new("/")
        })
        .envs(
            surroundings
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .env(BANNER, banner)
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
        let mut terminal = open_terminal()?;
        if let Ok(banner) = std::env::var(BANNER) {
            terminal.write_all(banner.as_bytes())?;
        }
        Ok([terminal.try_clone()?, terminal.try_clone()?, terminal])
    };
    match open() {
        Ok([stdin, stdout, stderr]) => Command::new("/bin/sh")
            .arg("-i")
            .env_remove(BANNER)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_where_things_are_and_how_to_go_on() {
        let below = |name: &str| Path::new("/buildhost/build").join(name);
        let surroundings = Surroundings {
            title: "build 42 on linux".into(),
            program: "/buildhost/toolchain/build".into(),
            sources: below("sources"),
            out: below("out"),
            work: below("work"),
            environment: Vec::new(),
        };
        let stops = [Stop::Start, Stop::Result(Outcome::Error), Stop::Attached];
        let banners = stops.map(|stop| stop.banner(&surroundings));
        insta::assert_snapshot!(banners.join(""));
    }
}
