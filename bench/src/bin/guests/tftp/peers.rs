//! The servers: ours, and those of others as `scripts/make-servers` unpacks them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use config::task::GATEWAY;
use sys::command;

use super::client::{Line, fetch};
use super::{LOSSES, Net, network};

pub(super) const OURS: &str = "ours";

/// A server that can be started.
pub(super) struct Peer {
    pub(super) name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    /// Where some of its libraries are.
    libraries: OsString,
}

/// Our server, and whatever others are there.
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
        peer(OURS, own, &format!("serve {directory}")),
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
    all.retain(Peer::is_there);
    all
}

impl Peer {
    /// Whether it is there and what it says that it is.
    fn is_there(&self) -> bool {
        let mark = match self.name {
            "tftpd-hpa" => "tftp-hpa",
            "dnsmasq" => "Dnsmasq",
            "atftpd" => "atftp",
            _ => return true,
        };
        let mut version = command::prepare(&self.program);
        version.arg("--version");
        version.env("LD_LIBRARY_PATH", &self.libraries);
        let told = command::run(version, Duration::from_secs(5));
        let is = told.is_ok_and(|told| String::from_utf8_lossy(&told).contains(mark));
        if !is {
            println!("      {} is left out: it is not there", self.name);
        }
        is
    }
}

/// A server that serves, in a network of its own.
pub(super) struct Running {
    process: Child,
    net: Net,
    knows_windows: bool,
}

impl Running {
    pub(super) fn start(peer: &Peer, purpose: &str) -> Self {
        let net = network(&format!("{purpose}-{}", peer.name));
        let mut server = command::prepare(&peer.program);
        server
            .args(&peer.arguments)
            .env("LD_LIBRARY_PATH", &peer.libraries)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = net.get().enter(|| server.spawn()).unwrap();
        let mut running = Self {
            process,
            net,
            knows_windows: false,
        };
        // A server that was just started may not listen yet.
        let deadline = Instant::now() + Duration::from_secs(10);
        let (percent, size) = LOSSES[2];
        let small = percent.to_string();
        let patience = Duration::from_millis(200);
        loop {
            let mut line = Line::whole();
            let got = running
                .net
                .get()
                .enter(|| fetch(&small, 2, &mut line, patience, &mut |_: &[u8]| {}));
            match got {
                Ok(got) if got.size == size as u64 => {
                    running.knows_windows = got.window == 2;
                    return running;
                }
                other => assert!(Instant::now() < deadline, "{}: {other:?}", peer.name),
            }
        }
    }

    /// Those of some windows that it knows.
    pub(super) fn windows(&self, all: &[u64]) -> Vec<u64> {
        let mut all = all.to_vec();
        all.retain(|window| *window == 1 || self.knows_windows);
        all
    }

    pub(super) fn net(&self) -> &Net {
        &self.net
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
