//! The commands about a host: its volume, its queue, its health.

pub(crate) mod doctor;
pub(crate) mod init;
pub(crate) mod queue;
