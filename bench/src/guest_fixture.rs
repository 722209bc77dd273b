//! The environment of a single guest: a snapshot of an image, a network, and a socket on the port
//! at which the worker's first packet arrives. Each is deleted when it is dropped.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use config::machine::Machine;
use config::settings::{Acceleration, Settings};
use config::task::GATEWAY;
use config::{MachineName, Tag, ToolchainName};
use guest::network::{LinkType, Network};
use guest::{BootMode, Spec, User};
use store::{Snapshot, SnapshotSource, Volume};
use tokio::net::UdpSocket;

/// The time limit for any single step.
pub const LIMIT: Duration = Duration::from_mins(2);

/// Returns the name of the toolchain.
pub fn toolchain() -> ToolchainName {
    "default".parse().unwrap()
}

/// A volume with bootstrapped machines.
#[derive(Debug)]
pub struct Machines {
    volume: Volume,
    snapshots: Cell<u32>,
}

impl Machines {
    /// Opens a volume.
    pub fn open(volume: &Path) -> Self {
        Self {
            volume: Volume::open(volume).unwrap(),
            snapshots: Cell::new(0),
        }
    }

    /// Takes a snapshot of a machine's image, as a build does.
    pub fn snapshot(&self, machine: &str) -> GuestSnapshot<'_> {
        self.snapshots.set(self.snapshots.get() + 1);
        let machine: MachineName = machine.parse().unwrap();
        let tag: Tag = format!("bench{}", self.snapshots.get()).parse().unwrap();
        let image = SnapshotSource::Image(toolchain());
        let snapshot = self.volume.snapshot(&machine, &image, &toolchain(), &tag);
        GuestSnapshot {
            volume: &self.volume,
            snapshot: Some(snapshot.unwrap()),
        }
    }
}

/// A snapshot for a guest. Dropping it deletes the snapshot.
#[derive(Debug)]
pub struct GuestSnapshot<'a> {
    volume: &'a Volume,
    /// The snapshot until it is dropped.
    snapshot: Option<Snapshot>,
}

impl GuestSnapshot<'_> {
    /// Returns the path of the snapshot.
    pub fn path(&self) -> &Path {
        self.snapshot.as_ref().unwrap().path()
    }

    /// Returns the description of a guest in the snapshot.
    pub fn spec(&self, run: &Path, network: &GuestNetwork, boot: BootMode) -> Spec {
        let manifest = fs::read_to_string(self.path().join(config::machine::FILE)).unwrap();
        Spec {
            name: "bench".to_owned(),
            directory: self.path().to_owned(),
            machine: Machine::parse(&manifest).unwrap(),
            user: User {
                uid: 65_534,
                gid: 65_534,
            },
            run_dir: run.to_owned(),
            network: network.get().name().to_owned(),
            port: None,
            acceleration: Acceleration::Auto,
            uefi: Settings::parse("").unwrap().guests.uefi,
            durable: false,
            boot,
            shared_memory: None,
            paused: false,
            keep_open: Vec::new(),
        }
    }
}

impl Drop for GuestSnapshot<'_> {
    fn drop(&mut self) {
        let snapshot = self.snapshot.take().unwrap();
        let (machine, tag) = (snapshot.machine().clone(), snapshot.tag().clone());
        // The snapshot cannot be deleted while it is in use.
        drop(snapshot);
        self.volume
            .delete_snapshot(&machine, &toolchain(), &tag)
            .unwrap();
    }
}

/// The network of a guest. Dropping it deletes the network.
#[derive(Debug)]
pub struct GuestNetwork(Option<Network>);

impl GuestNetwork {
    /// Creates a network whose name contains this one.
    pub fn new(name: &str, link: LinkType) -> Self {
        let name = format!("bhbench-{}-{name}", std::process::id());
        Self(Some(Network::create(&name, link).unwrap()))
    }

    /// Returns the network.
    pub fn get(&self) -> &Network {
        self.0.as_ref().unwrap()
    }

    /// Binds the port at which guests ask for their task. Must be called in a tokio runtime.
    pub fn bind_tftp(&self) -> UdpSocket {
        let address: SocketAddr = format!("{GATEWAY}:69").parse().unwrap();
        let socket = self.get().udp(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        UdpSocket::from_std(socket).unwrap()
    }
}

impl Drop for GuestNetwork {
    fn drop(&mut self) {
        self.0.take().unwrap().delete().unwrap();
    }
}

/// Waits for the worker's first packet.
pub async fn first_packet(socket: &UdpSocket) {
    let packet = tokio::time::timeout(LIMIT, socket.recv(&mut [0; 600])).await;
    packet.unwrap().unwrap();
}
