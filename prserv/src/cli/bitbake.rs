//! The command line of `bitbake-prserv`, so that scripts written for it go on working.
//!
//! Other than there, `--start` waits until the server listens and fails when it does not, and a
//! pid file that a dead server left behind is no obstacle.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, bail};
use clap::{CommandFactory, Parser};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Ending;

/// Where BitBake's server leaves its process id.
const PID_PREFIX: &str = "/tmp/PRServer_";

const STOP_SECONDS_MAX: Duration = Duration::from_secs(2);

const STOP_PAUSE: Duration = Duration::from_millis(10);

/// BitBake PR server, by its old name.
#[derive(Debug, Parser)]
#[command(name = "bitbake-prserv", version)]
pub(crate) struct Arguments {
    /// Database filename.
    #[arg(short, long, value_name = "FILE", default_value = "prserv.sqlite3")]
    file: PathBuf,

    /// Log filename.
    #[arg(short, long, value_name = "FILE", default_value = "prserv.log")]
    log: PathBuf,

    /// Logging level: CRITICAL, ERROR, WARNING, INFO, DEBUG.
    #[arg(long, default_value = "INFO")]
    loglevel: String,

    /// Start the daemon.
    #[arg(long, conflicts_with = "stop")]
    start: bool,

    /// Stop the daemon.
    #[arg(long)]
    stop: bool,

    /// The address to listen on.
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

/// Whether a command line is spelled that way: by the program's name, or by what it begins with.
pub(crate) fn is_meant(arguments: &[String]) -> bool {
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
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    match (arguments.start, arguments.stop) {
        (true, _) => start(arguments),
        (false, true) => stop(arguments),
        (false, false) => {
            Arguments::command().print_help()?;
            Ok(Ending::Done)
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<Ending> {
    let pid_file = pid_file(arguments)?;
    if running(&pid_file).is_some() {
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
    Ok(Ending::Done)
}

#[expect(
    clippy::disallowed_methods,
    reason = "starts this very program, not another one"
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
        .arg(format!("{}:{}", arguments.host, arguments.port));
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

fn stop(arguments: &Arguments) -> anyhow::Result<Ending> {
    let file = pid_file(arguments)?;
    let Ok(text) = fs::read_to_string(&file) else {
        let others = other_ports(&file, &arguments.host);
        bail!(
            "pidfile {} does not exist. Daemon not running? {others}",
            file.display()
        );
    };
    if let Some(pid) = running(&file) {
        writeln!(std::io::stdout(), "Sending SIGTERM to pr-server.")?;
        kill(pid, Signal::SIGTERM).with_context(|| format!("cannot stop process {pid}"))?;
        let start = Instant::now();
        while kill(pid, None).is_ok() && start.elapsed() < STOP_SECONDS_MAX {
            thread::sleep(STOP_PAUSE);
        }
    }
    let is_same = fs::read_to_string(&file).is_ok_and(|now| now == text);
    if is_same {
        fs::remove_file(&file)?;
    }
    Ok(Ending::Done)
}

/// The process that a pid file names, if it lives.
fn running(pid_file: &Path) -> Option<Pid> {
    let pid = fs::read_to_string(pid_file)
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Pid::from_raw)?;
    kill(pid, None).ok().map(|()| pid)
}

fn pid_file(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    let address = ipv4(&arguments.host)?;
    Ok(PathBuf::from(format!(
        "{PID_PREFIX}{address}_{}.pid",
        arguments.port
    )))
}

fn ipv4(host: &str) -> anyhow::Result<Ipv4Addr> {
    let addresses = (host, 0)
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve {host}"))?;
    let mut addresses = addresses.filter_map(|address| match address {
        SocketAddr::V4(address) => Some(*address.ip()),
        SocketAddr::V6(_) => None,
    });
    addresses
        .next()
        .with_context(|| format!("{host} has no IPv4 address"))
}

/// The ports of pid files of the same address, as advice.
fn other_ports(pid_file: &Path, host: &str) -> String {
    let name = |path: &Path| Some(path.file_stem()?.to_str()?.to_owned());
    let Some((address, _)) = name(pid_file).and_then(|stem| {
        stem.rsplit_once('_')
            .map(|(address, port)| (address.to_owned(), port.to_owned()))
    }) else {
        return String::new();
    };
    let files = fs::read_dir("/tmp").into_iter().flatten().flatten();
    let ports: Vec<String> = files
        .filter_map(|file| {
            let stem = name(&file.path())?;
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
    fn the_old_spelling_is_told_from_ours() {
        for (line, meant) in [
            ("bitbake-prserv", true),
            ("/usr/bin/bitbake-prserv --stop", true),
            ("prserv --start", true),
            ("prserv --host localhost --port 0 --start", true),
            ("prserv", false),
            ("prserv --help", false),
            ("prserv serve --start", false),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(is_meant(&words), meant, "{line}");
        }
    }
}
