//! The servers: the one of this project, and those that `scripts/make-servers` unpacks.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use config::task::GATEWAY;
use sys::command;

use super::client::{Link, fetch};
use super::{GuestNetwork, LOSSES, network};

/// The name of the server of this project.
pub(super) const BUILDHOST: &str = "buildhost";

/// A server that can be started.
pub(super) struct Peer {
    pub(super) name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    /// The search path for libraries that are not installed.
    libraries: OsString,
}

/// Returns the server of this project and the foreign servers that can be started.
pub(super) fn all(servers: &Path, directory: &Path) -> Vec<Peer> {
    let directory = directory.to_str().unwrap();
    let libraries = fs::read_dir(servers).unwrap().map(|entry| {
        let library = entry.unwrap().path().join("usr/lib");
        library.join("x86_64-linux-gnu")
    });
    let libraries = std::env::join_paths(libraries.filter(|path| path.is_dir())).unwrap();
    let peer = |name, program: PathBuf, line: &str| Peer {
        name,
        program,
        arguments: line.split(' ').map(str::to_owned).collect(),
        libraries: libraries.clone(),
    };
    let own = std::env::current_exe().unwrap();
    let mut all = vec![
        peer(BUILDHOST, own, &format!("serve {directory}")),
        peer(
            "tftpd-hpa",
            servers.join("tftpd-hpa/usr/sbin/in.tftpd"),
            &format!("-L -s -a {GATEWAY}:69 {directory}"),
        ),
        peer(
            "dnsmasq",
            servers.join("dnsmasq-base/usr/sbin/dnsmasq"),
            &format!("-d -C /dev/null --port=0 --enable-tftp --tftp-root={directory}"),
        ),
        peer(
            "atftpd",
            servers.join("atftpd/usr/sbin/atftpd"),
            &format!("--daemon --no-fork --user root --bind-address {GATEWAY} {directory}"),
        ),
    ];
    all.retain(Peer::is_available);
    all
}

impl Peer {
    /// Returns true if the program prints the expected version.
    fn is_available(&self) -> bool {
        let expected = match self.name {
            "tftpd-hpa" => "tftp-hpa",
            "dnsmasq" => "Dnsmasq",
            "atftpd" => "atftp",
            _ => return true,
        };
        let mut version = command::prepare(&self.program);
        version.arg("--version");
        version.env("LD_LIBRARY_PATH", &self.libraries);
        let output = command::run(version, Duration::from_secs(5));
        let is_available =
            output.is_ok_and(|output| String::from_utf8_lossy(&output).contains(expected));
        if !is_available {
            println!("      {} is left out: it is not available", self.name);
        }
        is_available
    }
}

/// A running server in a network of its own. Dropping it kills the server.
pub(super) struct RunningServer {
    process: Child,
    network: GuestNetwork,
    supports_windows: bool,
}

impl RunningServer {
    /// Starts a server and waits until it serves files.
    pub(super) fn start(peer: &Peer, purpose: &str) -> Self {
        let network = network(&format!("{purpose}-{}", peer.name));
        let mut server = command::prepare(&peer.program);
        server
            .args(&peer.arguments)
            .env("LD_LIBRARY_PATH", &peer.libraries)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = network.get().enter(|| server.spawn()).unwrap();
        let mut running = Self {
            process,
            network,
            supports_windows: false,
        };
        // The server may not listen yet.
        let deadline = Instant::now() + Duration::from_secs(10);
        let (percent, size) = LOSSES[2];
        let small = percent.to_string();
        let time_limit = Duration::from_millis(200);
        loop {
            let mut link = Link::lossless();
            let fetched = running
                .network
                .get()
                .enter(|| fetch(&small, 2, &mut link, time_limit, &mut |_: &[u8]| {}));
            match fetched {
                Ok(fetched) if fetched.size == size as u64 => {
                    running.supports_windows = fetched.window == 2;
                    return running;
                }
                other => assert!(Instant::now() < deadline, "{}: {other:?}", peer.name),
            }
        }
    }

    /// Returns the windows that the server supports.
    pub(super) fn supported(&self, windows: &[u64]) -> Vec<u64> {
        let mut windows = windows.to_vec();
        windows.retain(|window| *window == 1 || self.supports_windows);
        windows
    }

    /// Returns the network of the server.
    pub(super) fn network(&self) -> &GuestNetwork {
        &self.network
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
