//! The state that all parts of a running agent share.

pub mod agent_state;
pub mod guest_tag;
pub mod image_facts;
pub mod image_key;
pub mod job_table;
pub mod maintenance;
pub mod paths;
pub mod resources;
pub mod restore_history;
pub mod status;

pub use agent_state::AgentState;
pub use guest_tag::{CopyTag, GuestTag};
pub use image_facts::{ImageFacts, ImageFactsCache};
pub use image_key::ImageKey;
pub use job_table::{BuildJob, DebugJob, HoldJob, ImageJob, JobId, JobTable, RunningJobs};
pub use paths::StatePaths;
pub use resources::{Capacity, ResourceRequest};
pub use status::QueueSnapshot;
