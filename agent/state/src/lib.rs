//! The state that all parts of a running agent share.

pub mod agent_state;
pub mod contacts;
pub mod hot_images;
pub mod image_facts;
pub mod job_table;
pub mod lease_deadlines;
pub mod machine_sizes;
pub mod maintenance;
pub mod paths;
pub mod ready_pool;
pub mod restore_history;
pub mod status;

pub use agent_state::AgentState;
pub use hot_images::{HotImages, RestoreMemory};
pub use image_facts::{ImageFacts, ImageFactsCache};
pub use job_table::{
    BuildJob, CancelAnswer, DebugJob, DiskUse, ForkJob, HoldJob, ImageJob, JobTable, LeaseEnd,
};
pub use lease_deadlines::LeaseDeadlines;
pub use machine_sizes::MachineSizes;
pub use paths::StatePaths;
pub use ready_pool::{PooledGuest, ReadyPool};
pub use status::QueueSnapshot;
