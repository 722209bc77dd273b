//! The planner: pure functions from what was observed to the actions to take.
//!
//! This crate reads no files and no clock and starts nothing: [`Observed`] holds everything
//! that a plan depends on, and a [`Action`] everything that its execution needs.

pub mod admission;
pub mod durations;
pub mod plan;
pub mod pressure;

mod resources;
mod running_jobs;
mod start_mode;

pub use plan::{
    Action, Amounts, AuxiliaryOpenings, BootstrapFailure, BuildStart, Decision, HostState,
    ImageStart, Observed, OfferedCandidate, OfferedMachine, Opening,
};
pub use resources::{Capacity, ResourceRequest};
pub use running_jobs::{JobId, RunningDebugSession, RunningFork, RunningHold, RunningJobs};
pub use start_mode::StartMode;
