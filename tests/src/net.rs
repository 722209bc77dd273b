//! Networks of guests for tests, gone when they are dropped.

#![expect(clippy::expect_used, reason = "a test ends where it cannot go on")]

use std::ops::Deref;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use guest::network::{Cable, Network};
use sys::command;

/// A guest's network that is deleted when it is dropped.
#[derive(Debug)]
pub struct Net(Option<Network>);

impl Net {
    /// Makes one with a tap, under a name of its own.
    pub fn new() -> Self {
        Self::with(Cable::Tap)
    }

    /// Makes one under a name of its own.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn with(cable: Cable) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bhtest-{}-{count}", std::process::id());
        Self(Some(Network::create(&name, cable).expect("a network")))
    }

    /// Runs a program inside.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, mut program: Command) -> Output {
        self.enter(|| program.output()).expect("a program")
    }

    /// Runs a line of shell inside, for up to 100 s, and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn shell(&self, line: &str) -> String {
        let mut shell = command::prepare("timeout");
        shell.args(["100", "sh", "-c", line]);
        let output = self.run(shell);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{line}` failed: {said}");
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
            network.delete().expect("a network goes");
        }
    }
}
