//! The farm: many hosts, one queue. Pure state machines, which the programs and the simulation drive.
//!
//! A host polls a coordinator with its [`Offer`]. The coordinator claims builds for it in the store,
//! each under a [`Lease`], and the host reports their results. This crate reads no clock, opens no
//! connection and writes no file: a [`Moment`] comes in with each input, and effects go out as values.

pub mod archive;
pub mod coordinator;
pub mod copies;
pub mod host;
pub mod messages;
pub mod model;
pub mod operation;
pub mod placement;
pub mod publication;
pub mod schedules;
pub mod site;
pub mod sources;
pub mod transfers;
pub mod trials;
pub mod view;
pub mod watch;
pub mod windows;

pub use model::{
    Capacity, Epoch, HostId, Lease, Moment, Offer, OfferedMachine, OfferedTrial, Published,
    Requirements, Revision, Standing, Terms, Work,
};
