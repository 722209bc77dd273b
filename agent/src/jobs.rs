//! Everything that runs a guest: builds, bootstraps, debug sessions, holds.

pub mod bootstrap;
pub mod build;
pub mod debug_session;
pub mod hold;
