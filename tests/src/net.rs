//! Networks of guests for tests, which are deleted when they are dropped, and slow clients.

use std::net::{SocketAddr, TcpStream};
use std::ops::Deref;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use guest::network::{LinkType, Network};
use socket2::{Domain, Socket, Type};
use sys::command;

/// The time limit for a shell command, in seconds.
const SHELL_SECONDS_MAX: &str = "240";

/// The time for which a client waits for a reply.
const REPLY_LIMIT: Duration = Duration::from_mins(1);
/// The time for which a client tries to send.
const SEND_LIMIT: Duration = Duration::from_millis(100);

/// Connects from the loopback address 127.0.0.`last`, which is a client of its own, with a small
/// buffer for replies.
pub fn connect_from(last: u8, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let own = SocketAddr::from(([127, 0, 0, last], 0));
    socket
        .bind(&own.into())
        .and_then(|()| socket.set_recv_buffer_size(4096))
        .and_then(|()| socket.connect(&to.into()))
        .and_then(|()| socket.set_read_timeout(Some(REPLY_LIMIT)))
        .and_then(|()| socket.set_write_timeout(Some(SEND_LIMIT)))
        .expect("a connection");
    socket.into()
}

/// The network of a guest. Dropping it deletes the network.
#[derive(Debug)]
pub struct Net(Option<Network>);

impl Net {
    /// Creates a network with a tap device under a unique name.
    pub fn new() -> Self {
        Self::with(LinkType::Tap)
    }

    /// Creates a network with this type of link under a unique name.
    pub fn with(link: LinkType) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bhtest-{}-{count}", std::process::id());
        Self(Some(Network::create(&name, link).expect("a network")))
    }

    /// Runs a program in the network to its end.
    pub fn run(&self, mut program: Command) -> Output {
        self.enter(|| program.output()).expect("a program")
    }

    /// Runs a shell command in the network, checks that it succeeds, and returns its output.
    pub fn shell(&self, line: &str) -> String {
        let mut shell = command::prepare("timeout");
        shell.args([SHELL_SECONDS_MAX, "sh", "-c", line]);
        let output = self.run(shell);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{line}` failed: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Net {
    type Target = Network;

    fn deref(&self) -> &Network {
        self.0.as_ref().expect("a network until it is dropped")
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Some(network) = self.0.take() {
            network.delete().expect("the deletion of a network");
        }
    }
}
