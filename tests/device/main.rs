//! Real btrfs on loop files and real QEMU: root only, one at a time.

mod store;
