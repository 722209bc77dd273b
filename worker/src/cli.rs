//! The command line: what is asked for, and where things are.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use config::task;
use lexopt::{Arg, Parser, ValueExt};

use crate::WorkerError;
use crate::log::Log;
use crate::pr::Question;
use crate::virtio_port::{self, Port};
use tftp::client::{self, Client, Timeouts};

/// What `--help` prints.
pub const HELP: &str = include_str!("help.txt");

/// Where a build's directories are made.
const WORK: &str = "/buildhost/build";
/// The variable that names the PR service for `pr`; a toolchain's `build` has it.
pub const PR_HOST: &str = "BUILDHOST_PR_HOST";

/// What is asked for.
#[derive(Debug)]
pub enum Command {
    /// Install the toolchain.
    Bootstrap(Settings),
    /// Do a build.
    Build(Settings),
    /// Be a shell at the console.
    Shell,
    /// Ask for a revision.
    Pr(SocketAddr, Question),
    /// Print [`HELP`].
    Help,
    /// Print our version.
    Version,
}

/// Where things are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The host's TFTP server.
    pub client: Client,
    /// The PR service, for a toolchain's `build` to ask.
    pub pr_host: SocketAddr,
    /// The directory of the toolchain.
    pub toolchain: PathBuf,
    /// The directory below which a build makes its own.
    pub work: PathBuf,
    /// Our own program.
    pub worker: PathBuf,
}

impl Settings {
    /// Begins the log of this run.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn create_log(&self) -> Result<Log, WorkerError> {
        std::fs::create_dir_all(&self.work).map_err(WorkerError::disk(&self.work))?;
        let port = Port::find(
            task::LOG_PORT,
            Path::new(virtio_port::CLASSES),
            Path::new("/dev"),
        );
        let gateway = SocketAddr::new(self.pr_host.ip(), task::LOG_TCP_PORT);
        let port = port.or_else(|| Port::connect(gateway));
        Log::create(&self.work.join("log"), port)
    }
}

/// The words of a command line, sorted.
#[derive(Debug, Default)]
struct Words {
    host: Option<String>,
    toolchain: Option<PathBuf>,
    work: Option<PathBuf>,
    plain: Vec<String>,
}

/// Reads a command line; `worker` is the path of our own program, `pr_host` the
/// value of `BUILDHOST_PR_HOST`.
///
/// # Errors
/// What is wrong with it, in words for the one who typed it.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    worker: PathBuf,
    pr_host: Option<String>,
) -> Result<Command, lexopt::Error> {
    let mut parser = Parser::from_args(arguments);
    let mut words = Words::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Command::Version),
            Arg::Long("host") => words.host = Some(parser.value()?.string()?),
            Arg::Long("toolchain") => words.toolchain = Some(parser.value()?.into()),
            Arg::Long("work") => words.work = Some(parser.value()?.into()),
            Arg::Value(word) => words.plain.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let plain: Vec<&str> = words.plain.iter().map(String::as_str).collect();
    match plain.as_slice() {
        ["bootstrap"] => Ok(Command::Bootstrap(words.settings(worker, pr_host)?)),
        ["build"] => Ok(Command::Build(words.settings(worker, pr_host)?)),
        ["shell"] => Ok(Command::Shell),
        ["pr", version, architecture, checksum] => {
            let host = words.host.or(pr_host);
            let question = Question {
                version: (*version).to_owned(),
                architecture: (*architecture).to_owned(),
                checksum: (*checksum).to_owned(),
            };
            Ok(Command::Pr(address(host, task::PR_PORT)?, question))
        }
        ["pr", ..] => Err("usage: buildhost-worker pr VERSION ARCH CHECKSUM".into()),
        ["bootstrap" | "build", extra, ..] => Err(format!("`{extra}` is too much").into()),
        [other, ..] => Err(format!("`{other}` is not a command; see --help").into()),
        [] => Err("what is to be done? bootstrap, build or pr; see --help".into()),
    }
}

impl Words {
    fn settings(self, worker: PathBuf, pr_host: Option<String>) -> Result<Settings, lexopt::Error> {
        let server = address(self.host, client::PORT)?;
        let pr_host = pr_host.or_else(|| Some(server.ip().to_string()));
        let own = || worker.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Settings {
            client: Client::new(server, Timeouts::default()),
            pr_host: address(pr_host, task::PR_PORT)?,
            toolchain: self.toolchain.unwrap_or_else(own),
            work: self.work.unwrap_or_else(|| WORK.into()),
            worker,
        })
    }
}

/// Reads `ADDRESS` or `ADDRESS:PORT`.
fn address(text: Option<String>, port: u16) -> Result<SocketAddr, lexopt::Error> {
    let text = text.unwrap_or_else(|| task::GATEWAY.to_owned());
    let bare = text.parse::<IpAddr>().map(|ip| (ip, port).into());
    bare.or_else(|_| text.parse())
        .map_err(|_| format!("`{text}` is not an address; 192.0.2.1 or 192.0.2.1:69 is").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, String> {
        let words = line.split_whitespace().map(OsString::from);
        parse(words, "/tool/buildhost-worker".into(), None).map_err(|error| error.to_string())
    }

    #[test]
    fn a_build_knows_where_things_are() {
        let Ok(Command::Build(settings)) = read("build") else {
            panic!("it is a build");
        };
        assert_eq!(settings.client.server().to_string(), "169.254.111.222:69");
        assert_eq!(settings.pr_host.to_string(), "169.254.111.222:8585");
        assert_eq!(settings.toolchain, Path::new("/tool"));
        assert_eq!(settings.work, Path::new("/buildhost/build"));
    }

    #[test]
    fn another_host_may_be_named_in_any_place() {
        for line in [
            "--host 127.0.0.1:6969 bootstrap --toolchain /t --work /w",
            "bootstrap --host=127.0.0.1:6969 --toolchain=/t --work=/w",
        ] {
            let Ok(Command::Bootstrap(settings)) = read(line) else {
                panic!("{line} is a bootstrap");
            };
            assert_eq!(settings.client.server().to_string(), "127.0.0.1:6969");
            assert_eq!(settings.pr_host.to_string(), "127.0.0.1:8585");
            assert_eq!(settings.toolchain, Path::new("/t"));
        }
    }

    #[test]
    fn a_revision_is_asked_of_the_pr_service() {
        let Ok(Command::Pr(server, question)) = read("pr hello-1.0-r0 x86_64 c0 --host ::1") else {
            panic!("it is a question");
        };
        assert_eq!(server.to_string(), "[::1]:8585");
        assert_eq!(question.version, "hello-1.0-r0");
    }

    #[test]
    fn faults_tell_the_way_out() {
        let table = [
            "",
            "biuld",
            "build x",
            "pr x",
            "build --host here",
            "build --fast",
        ];
        let told: Vec<_> = table.map(|line| read(line).unwrap_err()).into();
        insta::assert_snapshot!(told.join("\n"));
    }
}
