//! What every guest here stands on: a snapshot of an image, a network, and an ear at
//! the port that the worker's first packet comes to. Each goes when it is dropped.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use config::machine::Machine;
use config::settings::{Acceleration, Settings};
use config::task::GATEWAY;
use config::{MachineName, Tag, ToolchainName};
use guest::network::{Cable, Network};
use guest::{BootMode, Spec};
use store::{Origin, Snapshot, Volume};
use tokio::net::UdpSocket;

/// How long anything here may take.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// A volume with bootstrapped machines.
pub(crate) struct Ground {
    pub(crate) volume: Volume,
    count: Cell<u32>,
}

pub(crate) fn toolchain() -> ToolchainName {
    "default".parse().unwrap()
}

impl Ground {
    pub(crate) fn open(volume: &Path) -> Self {
        Self {
            volume: Volume::open(volume).unwrap(),
            count: Cell::new(0),
        }
    }

    /// A snapshot of a machine's image, as a build takes one.
    pub(crate) fn snapshot(&self, machine: &str) -> Taken<'_> {
        self.count.set(self.count.get() + 1);
        let machine: MachineName = machine.parse().unwrap();
        let tag: Tag = format!("bench{}", self.count.get()).parse().unwrap();
        let image = Origin::Image(toolchain());
        let snapshot = self.volume.snapshot(&machine, &image, &toolchain(), &tag);
        Taken {
            volume: &self.volume,
            snapshot: Some(snapshot.unwrap()),
        }
    }
}

/// A snapshot.
pub(crate) struct Taken<'a> {
    volume: &'a Volume,
    /// Until it is dropped.
    snapshot: Option<Snapshot>,
}

impl Taken<'_> {
    pub(crate) fn path(&self) -> &Path {
        self.snapshot.as_ref().unwrap().path()
    }

    /// A guest in it.
    pub(crate) fn spec(&self, run: &Path, net: &Net, boot: BootMode) -> Spec {
        let manifest = fs::read_to_string(self.path().join(config::machine::FILE)).unwrap();
        Spec {
            name: "bench".to_owned(),
            directory: self.path().to_owned(),
            machine: Machine::parse(&manifest).unwrap(),
            user: (65_534, 65_534).into(),
            run: run.to_owned(),
            network: net.get().name().to_owned(),
            acceleration: Acceleration::Auto,
            uefi: Settings::parse("").unwrap().guests.uefi,
            durable: false,
            boot,
            keep: Vec::new(),
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let snapshot = self.snapshot.take().unwrap();
        let (machine, tag) = (snapshot.machine().clone(), snapshot.tag().clone());
        // Nobody may use it any more.
        drop(snapshot);
        self.volume
            .drop_snapshot(&machine, &toolchain(), &tag)
            .unwrap();
    }
}

/// A network.
pub(crate) struct Net(Option<Network>);

impl Net {
    pub(crate) fn new(name: &str, cable: Cable) -> Self {
        let name = format!("bhbench-{}-{name}", std::process::id());
        Self(Some(Network::create(&name, cable).unwrap()))
    }

    pub(crate) fn get(&self) -> &Network {
        self.0.as_ref().unwrap()
    }

    /// Listens where guests ask for their task.
    pub(crate) fn ear(&self) -> UdpSocket {
        let address: SocketAddr = format!("{GATEWAY}:69").parse().unwrap();
        self.get().udp(address).unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.0.take().unwrap().delete().unwrap();
    }
}

/// Waits for the worker's first packet.
pub(crate) async fn first_packet(ear: &UdpSocket) {
    let heard = tokio::time::timeout(LIMIT, ear.recv(&mut [0; 600])).await;
    heard.unwrap().unwrap();
}
