//! The command line.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use config::{cache, hashserv, task};
use lexopt::{Arg, Parser, ValueExt};
use tftp::client::{self, Client, Timeouts};

use crate::WorkerError;
use crate::fetch;
use crate::log::Log;
use crate::log_stream::LogStream;
use crate::pr::Query;
use crate::virtio_port;

/// The output of `--help`.
pub const HELP: &str = include_str!("help.txt");

/// The default directory of builds.
const WORK: &str = "/buildhost/build";
/// The variable with the address of the PR service, which a toolchain's `build` gets.
pub const PR_HOST: &str = "BUILDHOST_PR_HOST";

/// A command.
#[derive(Debug)]
pub enum Command {
    /// Install the toolchain.
    Bootstrap(Settings),
    /// Run a build.
    Build(Settings),
    /// Become a shell on the console.
    Shell,
    /// Get a revision from the PR service.
    Pr(SocketAddr, Query),
    /// Fetch a file of this name to this path.
    Fetch(Client, String, PathBuf),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// The addresses and directories of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The client of the host's TFTP server.
    pub client: Client,
    /// The address of the PR service, for a toolchain's `build`.
    pub pr_host: SocketAddr,
    /// The directory of the toolchain.
    pub toolchain: PathBuf,
    /// The directory in which a build creates its own.
    pub work: PathBuf,
    /// The path of this program.
    pub worker: PathBuf,
}

impl Settings {
    /// Returns the address of the cache, which is at the gateway like the PR service.
    pub(crate) fn cache_address(&self) -> String {
        let gateway = SocketAddr::new(self.pr_host.ip(), cache::PORT);
        format!("http://{gateway}")
    }

    /// Returns the address of the hash equivalence service.
    pub(crate) fn hashserv_address(&self) -> String {
        SocketAddr::new(self.pr_host.ip(), hashserv::PORT).to_string()
    }

    /// Creates the log of a run.
    ///
    /// # Errors
    /// The directory or the file cannot be created.
    pub fn create_log(&self) -> Result<Log, WorkerError> {
        std::fs::create_dir_all(&self.work).map_err(WorkerError::disk(&self.work))?;
        let classes = Path::new(virtio_port::CLASSES);
        let gateway = SocketAddr::new(self.pr_host.ip(), task::LOG_TCP_PORT);
        let stream = LogStream::open(task::LOG_PORT, classes, Path::new("/dev"))
            .or_else(|| LogStream::connect(gateway));
        Log::create(&self.work.join("log"), stream)
    }
}

/// The arguments, sorted by kind.
#[derive(Debug, Default)]
struct Arguments {
    host: Option<String>,
    toolchain: Option<PathBuf>,
    work: Option<PathBuf>,
    positional: Vec<String>,
}

/// Parses a command line. `worker` is the path of this program, `pr_host` the value of
/// `BUILDHOST_PR_HOST`.
///
/// # Errors
/// The command line is invalid.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    worker: PathBuf,
    pr_host: Option<String>,
) -> Result<Command, lexopt::Error> {
    let mut parser = Parser::from_args(arguments);
    let mut arguments = Arguments::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help),
            Arg::Short('V') | Arg::Long("version") => return Ok(Command::Version),
            Arg::Long("host") => arguments.host = Some(parser.value()?.string()?),
            Arg::Long("toolchain") => arguments.toolchain = Some(parser.value()?.into()),
            Arg::Long("work") => arguments.work = Some(parser.value()?.into()),
            Arg::Value(value) => arguments.positional.push(value.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let positional: Vec<&str> = arguments.positional.iter().map(String::as_str).collect();
    match positional.as_slice() {
        ["bootstrap"] => Ok(Command::Bootstrap(arguments.settings(worker, pr_host)?)),
        ["build"] => Ok(Command::Build(arguments.settings(worker, pr_host)?)),
        ["shell"] => Ok(Command::Shell),
        ["pr", version, architecture, checksum] => {
            let host = arguments.host.or(pr_host);
            let query = Query {
                version: (*version).to_owned(),
                architecture: (*architecture).to_owned(),
                checksum: (*checksum).to_owned(),
            };
            Ok(Command::Pr(address(host, task::PR_PORT)?, query))
        }
        ["fetch", name, file] => {
            let server = address(arguments.host, client::PORT)?;
            let client = Client::new(server, fetch::TIMEOUTS);
            Ok(Command::Fetch(client, (*name).to_owned(), file.into()))
        }
        ["fetch", ..] => Err("usage: buildhost-worker fetch NAME FILE".into()),
        ["pr", ..] => Err("usage: buildhost-worker pr VERSION ARCH CHECKSUM".into()),
        ["bootstrap" | "build", extra, ..] => {
            Err(format!("unexpected argument `{extra}`; see --help").into())
        }
        [other, ..] => Err(format!("unknown command `{other}`; see --help").into()),
        [] => Err("no command; give bootstrap, build, fetch or pr; see --help".into()),
    }
}

impl Arguments {
    fn settings(self, worker: PathBuf, pr_host: Option<String>) -> Result<Settings, lexopt::Error> {
        let server = address(self.host, client::PORT)?;
        let pr_host = pr_host.or_else(|| Some(server.ip().to_string()));
        let beside_worker = || worker.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Settings {
            client: Client::new(server, Timeouts::default()),
            pr_host: address(pr_host, task::PR_PORT)?,
            toolchain: self.toolchain.unwrap_or_else(beside_worker),
            work: self.work.unwrap_or_else(|| WORK.into()),
            worker,
        })
    }
}

/// Parses `ADDRESS` or `ADDRESS:PORT`. The default is the gateway's address and `port`.
fn address(text: Option<String>, port: u16) -> Result<SocketAddr, lexopt::Error> {
    let text = text.unwrap_or_else(|| task::GATEWAY.to_owned());
    text.parse::<IpAddr>()
        .map(|ip| (ip, port).into())
        .or_else(|_| text.parse())
        .map_err(|_| format!("`{text}` is not an address such as 192.0.2.1 or 192.0.2.1:69").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Command, String> {
        let arguments = line.split_whitespace().map(OsString::from);
        parse(arguments, "/tool/buildhost-worker".into(), None).map_err(|error| error.to_string())
    }

    #[test]
    fn a_build_has_default_settings() {
        let Ok(Command::Build(settings)) = parse_line("build") else {
            panic!("not a build");
        };
        assert_eq!(settings.client.server().to_string(), "169.254.111.222:69");
        assert_eq!(settings.pr_host.to_string(), "169.254.111.222:8585");
        assert_eq!(settings.toolchain, Path::new("/tool"));
        assert_eq!(settings.work, Path::new("/buildhost/build"));
    }

    #[test]
    fn options_may_precede_or_follow_the_command() {
        for line in [
            "--host 127.0.0.1:6969 bootstrap --toolchain /t --work /w",
            "bootstrap --host=127.0.0.1:6969 --toolchain=/t --work=/w",
        ] {
            let Ok(Command::Bootstrap(settings)) = parse_line(line) else {
                panic!("{line} is not a bootstrap");
            };
            assert_eq!(settings.client.server().to_string(), "127.0.0.1:6969");
            assert_eq!(settings.pr_host.to_string(), "127.0.0.1:8585");
            assert_eq!(settings.toolchain, Path::new("/t"));
        }
    }

    #[test]
    fn pr_queries_the_pr_service() {
        let Ok(Command::Pr(server, query)) = parse_line("pr hello-1.0-r0 x86_64 c0 --host ::1")
        else {
            panic!("not a query");
        };
        assert_eq!(server.to_string(), "[::1]:8585");
        assert_eq!(query.version, "hello-1.0-r0");
    }

    #[test]
    fn fetch_waits_for_a_host_that_does_not_answer_yet() {
        let line = "fetch toolchain.tar.gz /tmp/toolchain.tar.gz --host 192.0.2.1";
        let Ok(Command::Fetch(client, name, file)) = parse_line(line) else {
            panic!("not a fetch");
        };
        assert_eq!(client.server().to_string(), "192.0.2.1:69");
        assert_eq!(name, "toolchain.tar.gz");
        assert_eq!(file, Path::new("/tmp/toolchain.tar.gz"));
    }

    #[test]
    fn errors_name_the_argument_and_the_remedy() {
        let table = [
            "",
            "biuld",
            "build x",
            "pr x",
            "fetch toolchain.tar.gz",
            "build --host here",
            "build --fast",
        ];
        let errors: Vec<_> = table.map(|line| parse_line(line).unwrap_err()).into();
        insta::assert_snapshot!(errors.join("\n"));
    }
}
