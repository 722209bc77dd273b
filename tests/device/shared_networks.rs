//! Networks of a build's guest and its auxiliary ones: they reach each other, and none takes the
//! addresses of another.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use config::task::{GATEWAY, PR_PORT};
use guest::network::{LinkType, Network, Port, delete};
use sys::command::{self, CommandError};
use tests::wait_until;

/// A network with three containers, deleted when it is dropped.
struct SharedNetwork {
    network: Network,
    ends: Vec<OwnedFd>,
}

impl SharedNetwork {
    fn new(name: &str) -> Self {
        let name = format!("test-{}-{name}", std::process::id());
        let network = Network::create_shared(&name, &[LinkType::Veth; 3]).unwrap();
        let ports = [None, Port::auxiliary(1), Port::auxiliary(2)];
        let end = |port: Option<Port>| {
            let port = port.unwrap_or(Port::BUILD);
            network.create_container_end(Some(port)).unwrap()
        };
        let ends = ports.map(end).into();
        Self { network, ends }
    }

    /// Runs a command of the shell in the network of a guest.
    fn run(&self, guest: usize, script: &str) -> Result<Vec<u8>, CommandError> {
        let end = self.ends[guest].as_raw_fd();
        let mut inside = command::prepare("nsenter");
        inside.arg(format!("--net=/proc/{}/fd/{end}", std::process::id()));
        inside.args(["sh", "-c", script]);
        command::run(inside, Duration::from_secs(20))
    }

    /// Returns true if a guest reaches an address.
    fn reaches(&self, guest: usize, to: &str) -> bool {
        let ping = format!("busybox ping -c 1 -W 1 {to}");
        self.run(guest, &ping).is_ok()
    }
}

impl Drop for SharedNetwork {
    fn drop(&mut self) {
        let _ = delete(self.network.name());
    }
}

#[test]
#[ignore = "needs root: network namespaces"]
fn guests_of_a_network_reach_each_other_and_the_gateway() {
    let network = SharedNetwork::new("reach");
    for (guest, others) in [
        (0, ["169.254.111.2", "169.254.111.3"]),
        (1, ["169.254.111.1", "169.254.111.3"]),
        (2, ["169.254.111.1", "169.254.111.2"]),
    ] {
        for other in others.into_iter().chain([GATEWAY]) {
            assert!(network.reaches(guest, other), "{guest} to {other}");
        }
    }
    let address = format!("{GATEWAY}:{PR_PORT}").parse().unwrap();
    let _service: TcpListener = network.network.tcp_listener(address).unwrap();
    let connect = format!("timeout 2 bash -c 'exec 3<>/dev/tcp/{GATEWAY}/{PR_PORT}'");
    let refused = |guest| network.run(guest, &connect).is_err();
    assert!(!refused(0), "the services are the build's guest's");
    assert!(refused(1), "an auxiliary guest has none");
}

#[test]
#[ignore = "needs root: network namespaces"]
fn a_guest_cannot_take_the_addresses_of_another_one() {
    let network = SharedNetwork::new("take");
    network
        .run(1, "ip address add 169.254.111.9/24 dev eth0")
        .unwrap();
    for own in ["169.254.111.3", GATEWAY, "169.254.111.9"] {
        let add = format!("ip address add {own}/32 dev eth0 || true");
        network.run(1, &add).unwrap();
        let ping = format!("busybox ping -c 1 -W 1 -I {own} 169.254.111.1");
        assert!(network.run(1, &ping).is_err(), "{own}");
        network
            .run(1, &format!("ip address del {own}/32 dev eth0 || true"))
            .unwrap();
    }
    // Its neighbors are asked again after a pause.
    wait_until("its own address works again", || {
        network.reaches(1, "169.254.111.1")
    });
    let change = "ip link set dev eth0 down
        ip link set dev eth0 address 02:62:68:00:00:02
        ip link set dev eth0 up";
    network.run(1, change).unwrap();
    assert!(!network.reaches(1, "169.254.111.3"));
    assert!(!network.reaches(1, GATEWAY));
    assert!(
        network.reaches(0, "169.254.111.3"),
        "the others are not disturbed"
    );
}
