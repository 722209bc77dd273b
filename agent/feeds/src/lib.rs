//! Package feeds: the packages of builds as repositories for apt and opkg.
//!
//! [`package`] reads what guests have made, in memory-safe code with bounds. [`index`] and [`retention`]
//! are pure. [`repository`] keeps one directory, whose generations replace one another by a rename.

pub mod control;
mod disk;
pub mod index;
pub mod package;
pub mod repository;
pub mod retention;
pub mod signature;
pub mod state;
mod version;

pub use version::compare as compare_versions;
