//! The contract of the btrfs backend.

use ::store::subvolumes::BtrfsBackend;
use tests::backend_contract;
use tests::mount::Mount;

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_btrfs_backend_fulfills_the_contract() {
    let mount = Mount::btrfs(512);
    backend_contract::check(&BtrfsBackend, &mount.directory("contract"));
}
