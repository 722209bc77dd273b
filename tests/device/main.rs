//! Real btrfs on loop files and real QEMU: root only, one at a time.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod arrival;
mod store;
