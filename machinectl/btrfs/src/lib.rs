//! Subvolumes and send streams of btrfs, and the programs that work on their files. Nothing here
//! knows the name of a machine.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests read files that they have made"
    )
)]

pub mod btrfs_progs;
pub mod compression;
pub mod error;
pub mod file_tool;
pub mod stream;
pub mod subvolumes;

pub use error::{Refusal, RefusalKind, StoreError};
pub use subvolumes::{Change, Subvolume, SubvolumeBackend, Uuid};

/// The result of a fallible operation of the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;
