//! Real btrfs on loop files and real QEMU: root only, each in a process of its own.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops at the first surprise and tells what it counted"
)]

mod again;
mod agent;
mod arrival;
mod attach;
mod bad_input;
mod cleaning;
mod containers;
mod crowding;
mod death;
mod doctor;
mod egress;
mod far;
mod frozen;
mod full;
mod guests;
mod habits;
mod hostile;
mod import;
mod kills;
mod life;
mod load;
mod members;
mod outcomes;
mod powercut;
mod pruning;
mod queue;
mod rehearsal;
mod relay;
mod revisions;
mod schedules;
mod store;
mod tftp;
mod uefi;
mod walls;
