//! The state that all parts of a running agent share.

pub mod agent_state;
pub mod guest_tag;
pub mod maintenance;
pub mod restore_history;
