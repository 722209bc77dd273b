//! The command line of `bitbake-prserv`, for compatibility with existing scripts.
//!
//! Unlike the original, `--start` waits until the server listens and fails if it does not, and a
//! stale pid file is ignored.

use std::fs::{self, File};
use std::io;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, bail};
use clap::{CommandFactory, Parser};
use nix::sys::signal::{Signal, kill};

use super::{ExitStatus, pid_file};

/// The prefix of the pid file of BitBake's server.
const PID_PREFIX: &str = "/tmp/PRServer_";

const STOP_TIMEOUT: Duration = Duration::from_secs(2);

const STOP_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// BitBake PR server with the command line of bitbake-prserv.
#[derive(Debug, Parser)]
#[command(name = "bitbake-prserv", version)]
pub(crate) struct Arguments {
    /// The database file.
    #[arg(short, long, value_name = "FILE", default_value = "prserv.sqlite3")]
    file: PathBuf,

    /// The log file.
    #[arg(short, long, value_name = "FILE", default_value = "prserv.log")]
    log: PathBuf,

    /// The log level: CRITICAL, ERROR, WARNING, INFO or DEBUG.
    #[arg(long, default_value = "INFO")]
    loglevel: String,

    /// Start the daemon.
    #[arg(long, conflicts_with = "stop")]
    start: bool,

    /// Stop the daemon.
    #[arg(long)]
    stop: bool,

    /// The address to listen on. A name stands for all of its addresses.
    #[arg(long, default_value = "0.0.0.0")]
    host: String,

    /// The port to listen on.
    #[arg(long, default_value_t = 8585)]
    port: u16,

    /// Open the database in read-only mode.
    #[arg(short, long)]
    read_only: bool,

    /// The upstream server.
    #[arg(short, long, value_name = "HOST:PORT", env = "PRSERV_UPSTREAM")]
    upstream: Option<String>,
}

/// Returns true if a command line is one of `bitbake-prserv`: by the name of the program, or
/// because it begins with an option and contains `--start` or `--stop`.
pub(crate) fn is_invoked(arguments: &[String]) -> bool {
    let name = arguments.first().map(Path::new).and_then(Path::file_name);
    let is_alias = name.is_some_and(|name| name == "bitbake-prserv");
    let options = arguments.get(1..).unwrap_or_default();
    let starts_with_option = options.first().is_some_and(|first| first.starts_with('-'));
    is_alias
        || starts_with_option
            && options
                .iter()
                .any(|text| text == "--start" || text == "--stop")
}

/// Starts or stops a server, or prints the help.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    match (arguments.start, arguments.stop) {
        (true, _) => start(arguments),
        (false, true) => stop(arguments),
        (false, false) => {
            Arguments::command().print_help()?;
            Ok(ExitStatus::Success)
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    let pid_file = pid_file(arguments)?;
    let text = pid_file::read(&pid_file).unwrap_or_default();
    if pid_file::running_server(&text).is_some() {
        bail!(
            "pidfile {} already exist. Daemon already running?",
            pid_file.display()
        );
    }
    let mut daemon = spawn(arguments, &pid_file)?;
    let mut ready = String::new();
    if let Some(out) = daemon.stdout.take() {
        BufReader::new(out).read_line(&mut ready)?;
    }
    if ready.is_empty() {
        daemon.wait()?;
        bail!("the server did not start; see {}", arguments.log.display());
    }
    Ok(ExitStatus::Success)
}

#[expect(
    clippy::disallowed_methods,
    reason = "starts this program itself, not another one"
)]
fn spawn(arguments: &Arguments, pid_file: &Path) -> anyhow::Result<Child> {
    let log = &arguments.log;
    let log = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(env::current_exe()?);
    command
        .arg("serve")
        .arg("--listen")
        .arg(listen_address(&arguments.host, arguments.port));
    command
        .arg("--db")
        .arg(std::path::absolute(&arguments.file)?);
    command.arg("--daemon").arg(pid_file);
    if arguments.read_only {
        command.arg("--read-only");
    }
    if let Some(upstream) = &arguments.upstream {
        command.arg("--upstream").arg(upstream);
    }
    command
        .env("RUST_LOG", level(&arguments.loglevel))
        .env("NO_COLOR", "1");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    command.spawn().context("cannot start the server")
}

fn stop(arguments: &Arguments) -> anyhow::Result<ExitStatus> {
    let file = pid_file(arguments)?;
    let text = match pid_file::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let hint = other_ports(&file, &arguments.host);
            bail!(
                "pidfile {} does not exist. Daemon not running? {hint}",
                file.display()
            );
        }
        text => text.with_context(|| format!("cannot use the pidfile {}", file.display()))?,
    };
    if let Some(pid) = pid_file::running_server(&text) {
        writeln!(std::io::stdout(), "Sending SIGTERM to pr-server.")?;
        kill(pid, Signal::SIGTERM).with_context(|| format!("cannot stop process {pid}"))?;
        let start = Instant::now();
        while pid_file::is_running(pid) && start.elapsed() < STOP_TIMEOUT {
            thread::sleep(STOP_POLL_INTERVAL);
        }
    }
    let is_unchanged = pid_file::read(&file).is_ok_and(|current| current == text);
    if is_unchanged {
        fs::remove_file(&file)?;
    }
    Ok(ExitStatus::Success)
}

fn pid_file(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    let host = without_brackets(&arguments.host);
    let addresses = (host, 0)
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {host}"))?;
    let address = named_address(addresses.map(|address| address.ip()))
        .with_context(|| format!("{host} has no address"))?;
    Ok(PathBuf::from(format!(
        "{PID_PREFIX}{address}_{}.pid",
        arguments.port
    )))
}

/// Returns the address that the pid file is named after: the first one of IPv4, as BitBake's server
/// does, or else the first one.
fn named_address(addresses: impl Iterator<Item = IpAddr>) -> Option<IpAddr> {
    let addresses: Vec<IpAddr> = addresses.collect();
    let ipv4 = addresses.iter().find(|address| address.is_ipv4());
    ipv4.or(addresses.first()).copied()
}

fn listen_address(host: &str, port: u16) -> String {
    match without_brackets(host) {
        host if host.contains(':') => format!("[{host}]:{port}"),
        host => format!("{host}:{port}"),
    }
}

fn without_brackets(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host)
}

/// Returns a hint with the ports of other pid files of the same address.
fn other_ports(pid_file: &Path, host: &str) -> String {
    let stem = |path: &Path| Some(path.file_stem()?.to_str()?.to_owned());
    let Some(address) = stem(pid_file).and_then(|stem| Some(stem.rsplit_once('_')?.0.to_owned()))
    else {
        return String::new();
    };
    let files = fs::read_dir("/tmp").into_iter().flatten().flatten();
    let ports: Vec<String> = files
        .filter_map(|file| {
            let stem = stem(&file.path())?;
            Some(stem.strip_prefix(&address)?.strip_prefix('_')?.to_owned())
        })
        .collect();
    match ports.as_slice() {
        [] => String::new(),
        ports => format!(
            "Wrong port? Other ports listening at {host}: {}",
            ports.join(" ")
        ),
    }
}

fn level(name: &str) -> &'static str {
    match name.to_ascii_uppercase().as_str() {
        "DEBUG" => "debug",
        "WARNING" | "WARN" => "warn",
        "ERROR" | "CRITICAL" => "error",
        _ => "info",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_of_bitbake_prserv_are_recognized() {
        for (line, expected) in [
            ("bitbake-prserv", true),
            ("/usr/bin/bitbake-prserv --stop", true),
            ("prserv --start", true),
            ("prserv --host localhost --port 0 --start", true),
            ("prserv", false),
            ("prserv --help", false),
            ("prserv serve --start", false),
        ] {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(is_invoked(&arguments), expected, "{line}");
        }
    }

    #[test]
    fn a_pid_file_is_named_after_the_first_ipv4_address_if_there_is_one() {
        for (addresses, expected) in [
            (&["::1", "127.0.0.1", "127.0.0.2"][..], Some("127.0.0.1")),
            (&["::1", "fd00::1"], Some("::1")),
            (&[], None),
        ] {
            let addresses = addresses.iter().map(|text| text.parse().unwrap());
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(named_address(addresses), expected);
        }
    }

    #[test]
    fn an_ipv6_address_gets_brackets() {
        for (host, expected) in [
            ("::1", "[::1]:8585"),
            ("[::1]", "[::1]:8585"),
            ("localhost", "localhost:8585"),
        ] {
            assert_eq!(listen_address(host, 8585), expected);
        }
    }
}
