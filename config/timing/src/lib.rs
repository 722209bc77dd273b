//! The times of schedules, as pure computations for hosts and farms: those that are due, and the next ones.

mod plan;
mod times;

pub use plan::{Plan, ScheduleState, plan};
pub use times::{Times, TimingError};
