//! The egress policy of guests: a network stands in for the host's, another one for the Internet
//! behind it, and real containers connect from inside.

use std::fs;
use std::io::Write;
use std::net::TcpListener;

use config::builds::State;
use config::machine::Kind;
use config::task::Outcome;
use guest::gateway::Offers;
use guest::network::Network;
use guest::network::egress::{self, EgressPolicy};
use rustix::process::Signal;
use session::gateway::dns::{self, Names};
use sys::command;
use tests::agent::AgentHost;

use crate::guests::{GuestFixture, LIMIT, output, read, run_in_background};

/// Two networks: a host with the address 203.0.113.1, which does not forward packets, and the
/// Internet behind it.
struct World {
    host: Network,
    internet: Network,
}

impl World {
    fn new() -> Self {
        let name = |what| format!("bhworld-{}-{what}", std::process::id());
        let make = |name: &str| {
            ip(&["netns", "add", name]);
            Network::open(name).unwrap()
        };
        let all = Self {
            host: make(&name("h")),
            internet: make(&name("w")),
        };
        let (host, internet) = (all.host.name(), all.internet.name());
        let link = format!("link add up0 netns {host} type veth peer name w0 netns {internet}");
        ip(&link.split(' ').collect::<Vec<_>>());
        set_up(&all.host, &["203.0.113.1/24 dev up0"]);
        let addresses = [
            "203.0.113.2/24",
            "192.0.2.7/32",
            "10.9.9.9/32",
            "169.254.169.254/32",
        ];
        set_up(
            &all.internet,
            &addresses.map(|address| format!("{address} dev w0")),
        );
        let route = || {
            ip(&["route", "add", "default", "via", "203.0.113.2"]);
            let switch = "/proc/sys/net/ipv4/ip_forward";
            fs::File::options()
                .write(true)
                .open(switch)?
                .write_all(b"0")
        };
        all.host.enter(route).unwrap();
        for (network, ports) in [(&all.host, &[80][..]), (&all.internet, &[80, 81])] {
            for port in ports {
                listen(network, *port);
            }
        }
        all
    }

    /// Returns the links and tables for egress on the host, and whether it forwards packets.
    fn egress_state(&self) -> (String, String, String) {
        let read = || {
            let forwards = fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?;
            let links = fs::read_to_string("/proc/thread-self/net/dev")?;
            let links = links.lines().filter(|line| line.contains("bhost"));
            let mut list = command::prepare("nft");
            list.args(["list", "tables"]);
            let tables = command::run(list, LIMIT).unwrap();
            let tables = String::from_utf8(tables).unwrap();
            Ok((links.collect(), tables, forwards.trim().to_owned()))
        };
        self.host.enter(read).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for network in [&self.host, &self.internet] {
            let _ = guest::network::delete(network.name());
        }
    }
}

fn ip(words: &[&str]) {
    let mut ip = command::prepare("ip");
    ip.args(words);
    command::run(ip, LIMIT).unwrap();
}

fn set_up(network: &Network, addresses: &[impl AsRef<str> + Sync]) {
    let work = || {
        for address in addresses {
            let words = address.as_ref().split(' ');
            ip(&["address", "add"]
                .into_iter()
                .chain(words)
                .collect::<Vec<_>>());
        }
        ip(&["link", "set", "lo", "up"]);
        let device = addresses[0].as_ref().rsplit(' ').next().unwrap_or_default();
        ip(&["link", "set", device, "up"]);
        Ok(())
    };
    network.enter(work).unwrap();
}

/// Accepts connections until the test ends, and sends each client its address.
fn listen(network: &Network, port: u16) {
    let listener = network
        .enter(|| TcpListener::bind(("0.0.0.0", port)))
        .unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            if let Ok(from) = stream.peer_addr() {
                let _ = writeln!(stream, "from {}", from.ip());
            }
        }
    });
}

/// A program that connects to a server, waits in a container until the test opens its gate, and
/// connects to another server.
const CONNECT_TWICE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) {
    system("nc -w 8 203.0.113.2 80 </dev/null");
    puts("waiting at the gate");
    fflush(stdout);
    while (access("/gate", F_OK)) usleep(10000);
    return system("nc -w 8 203.0.113.2 81 </dev/null; true");
}
"#;

/// Connects to every server from a container with this policy, and returns the replies.
fn connect_everywhere(world: &World, policy: &EgressPolicy) -> Vec<String> {
    let fixture = GuestFixture::container(
        "try() { if reply=$(nc -w 8 $2 $3 </dev/null 2>/dev/null) && [ -n \"$reply\" ]; \
                 then echo \"$1: $reply\"; fi; }
         try web 203.0.113.2 80 & try other-port 203.0.113.2 81 & try other-place 192.0.2.7 80 &
         try private 10.9.9.9 80 & try metadata 169.254.169.254 80 &
         try host 203.0.113.1 80 & try link 198.18.0.0 80 &
         wait
         nslookup web.example.org $host | grep '^Address.*203' | head -n 1
         nslookup other.example.org $host | grep -o REFUSED | head -n 1
         echo finished",
    );
    world
        .host
        .enter(|| Ok(egress::open(&fixture.net, policy)))
        .unwrap()
        .unwrap();
    let names = [(
        "web.example.org".to_owned(),
        vec!["203.0.113.2".parse().unwrap()],
    )];
    let names = Names::Table(names.into());
    let sockets = fixture
        .net
        .enter(|| guest::gateway::bind(Kind::Nspawn, Offers::default()))
        .unwrap();
    run_in_background(|| dns::serve(sockets.dns, names).unwrap());
    let guest = fixture.start();
    let console = read(output(guest.console()));
    guest.wait(LIMIT).unwrap();
    let console = console.join().unwrap();
    world
        .host
        .enter(|| Ok(egress::close(&fixture.net)))
        .unwrap()
        .unwrap();
    let mut lines: Vec<_> = console.lines().map(|line| line.trim().to_owned()).collect();
    assert_eq!(lines.pop().as_deref(), Some("finished"), "{console}");
    lines.sort();
    lines
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_guest_reaches_what_its_policy_allows_and_nothing_else() {
    let world = World::new();
    let before = world.egress_state();
    assert_eq!((before.0.as_str(), before.2.as_str()), ("", "0"));
    let resolved = ["Address: 203.0.113.2", "REFUSED"];
    let expected = |reached: &[&str]| {
        let replies = reached
            .iter()
            .map(|target| format!("{target}: from 203.0.113.1"));
        let mut lines: Vec<_> = replies.chain(resolved.map(str::to_owned)).collect();
        lines.sort();
        lines
    };
    let nat = EgressPolicy::default();
    assert_eq!(
        connect_everywhere(&world, &nat),
        expected(&["web", "other-port", "other-place"])
    );
    let listed = EgressPolicy {
        private: vec!["10.9.0.0/16".parse().unwrap()],
        ..EgressPolicy::default()
    };
    let all = ["web", "other-port", "other-place", "private"];
    assert_eq!(connect_everywhere(&world, &listed), expected(&all));
    let places = EgressPolicy {
        destinations: Some(vec!["203.0.113.2:80".parse().unwrap()]),
        ..EgressPolicy::default()
    };
    assert_eq!(connect_everywhere(&world, &places), expected(&["web"]));
    assert_eq!(world.egress_state(), before, "all changes were undone");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_policy_of_a_guest_survives_an_agent_and_must_be_allowed_by_the_settings() {
    let world = World::new();
    let before = world.egress_state();
    let mut host = AgentHost::new("guests.egress = \"allow\"\nbootstrap.retries_max = 0\n");
    for (name, egress) in [("some", "203.0.113.2:80 203.0.113.2:81"), ("all", "nat")] {
        host.add_container(name, |files| {
            let path = files.join("manifest");
            let manifest = fs::read_to_string(&path).unwrap();
            tests::write_file(&path, &format!("{manifest}egress: {egress}\n"));
        });
    }
    host.add_toolchain("0.1.0");
    host.start_in(&world.host);
    let id = host.submit_code("some", CONNECT_TWICE);
    host.wait_for_gate(id);
    host.stop(Signal::KILL);
    assert!(world.egress_state().0.contains("bhost"));
    host.start_in(&world.host);
    host.open_gate("some", id);
    let build = host.wait_for(id, State::Finished);
    assert_eq!(
        (build.outcome, build.attempts),
        (Some(Outcome::Success), 1),
        "{build:?}"
    );
    let log = host.log_of(id);
    assert_eq!(log.matches("from 203.0.113.1").count(), 2, "{log}");
    let id = host.submit_code("all", CONNECT_TWICE);
    tests::wait_until("the build has the reason for its wait", || {
        host.build(id)
            .message
            .contains("asks for egress `nat`, and this host allows `allow`")
    });
    host.machinectl(&["cancel", &id.to_string()]).success();

    let id = host.submit_code("some", CONNECT_TWICE);
    host.wait_for_gate(id);
    host.stop(Signal::KILL);
    for guest in host.guests() {
        rustix::process::kill_process(guest, Signal::KILL).unwrap();
    }
    host.start_in(&world.host);
    host.machinectl(&["cancel", &id.to_string()]).success();
    host.wait_for(id, State::Finished);
    tests::wait_until("all changes are undone", || {
        world.egress_state() == before && host.networks().is_empty()
    });
}
