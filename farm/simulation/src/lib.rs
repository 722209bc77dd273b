//! Deterministic simulation of a farm: hosts, coordinators, clients and the store in one thread, from
//! one seed. Hosts and coordinators run the state machines of `farm_core`, as the programs do.
//!
//! The world loses, repeats and delays messages, kills and pauses processes, reboots and freezes hosts,
//! sets clocks and cuts the network. After each step it checks the invariants. A seed always gives the
//! same run.

mod planted;
pub mod tables;
mod world;

pub use planted::Bug;
use world::World;

/// A run that has broken an invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The seed, which repeats the run.
    pub seed: u64,
    /// The invariant, and what broke it.
    pub message: String,
    /// The events of the run, if it was traced.
    pub trace: Vec<String>,
}

/// The numbers of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The events.
    pub steps: u64,
    /// Crashes, pauses, partitions, clock steps, and lost or repeated messages.
    pub faults: u64,
    /// Those of them that kill an agent or a coordinator, or cut the power of a host.
    pub crashes: u64,
    /// The builds with a result.
    pub finished: u64,
    /// The leases that were taken from lost hosts.
    pub rescued: u64,
}

impl Statistics {
    /// Adds the numbers of another run.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.finished += other.finished;
        self.rescued += other.rescued;
    }
}

/// Runs the farm from a seed.
///
/// # Errors
/// An invariant does not hold.
pub fn run(seed: u64, bug: Option<Bug>) -> Result<Statistics, Failure> {
    World::new(seed, bug, false).run()
}

/// Runs the farm from a seed, and keeps the events for a failure.
///
/// # Errors
/// An invariant does not hold.
pub fn replay(seed: u64, bug: Option<Bug>) -> Result<Statistics, Failure> {
    World::new(seed, bug, true).run()
}
