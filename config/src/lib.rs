//! The formats that all programs of Buildhost share: names, the layout of a volume,
//! manifests, settings, and the messages between programs.
//!
//! This crate has no access to files, clocks or random numbers. Every function takes
//! values and returns values, so tests compare values.

pub mod feeds;
mod guest_tag;
mod image_key;
mod load;
mod newtype;
pub mod notify;
mod resource_counts;

pub mod auxiliary;
pub mod builds;
pub mod cache;
pub mod canary;
pub mod controllers;
pub mod doctor;
pub mod egress;
pub mod exec;
pub mod hashserv;
pub mod layers;
pub mod layout;
pub mod limits;
pub mod machine;
pub mod machines;
pub mod manifest;
pub mod names;
pub mod pressure;
pub mod progress;
pub mod projects;
pub mod queue;
pub mod schedule;
pub mod secrets;
pub mod settings;
pub mod slsa;
pub mod ssh;
pub mod task;
pub mod text;
pub mod tokens;
mod told;
pub mod uri;
pub mod web;

pub use guest_tag::{AuxiliaryTag, CopyTag, GuestTag, NoGuestTag};
pub use image_key::ImageKey;
pub use load::Load;
pub use names::{
    BuildId, CacheName, ContextName, ControllerName, FeedName, FileName, LayerName, MachineName,
    NameError, NotifyName, ProjectName, ReleaseName, ResourceName, Revision, ScheduleName,
    SecretName, Tag, ToolchainName,
};
pub use resource_counts::{ResourceCount, ResourceCountError, ResourceCounts};
pub use ssh::SshHost;
pub use text::{join_and, printable};

/// The number of bytes in a mebibyte.
pub const MIB: u64 = 1 << 20;
