//! Networks of guests for tests, which are deleted when they are dropped.

use std::ops::Deref;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use guest::network::{LinkType, Network};
use sys::command;

/// The time limit for a shell command, in seconds.
const SHELL_SECONDS_MAX: &str = "240";

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
