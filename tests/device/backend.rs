//! The store on real btrfs.

use ::store::subvolumes::BtrfsBackend;
use tests::backend_contract;
use tests::mount::Mount;

#[test]
fn btrfs_keeps_the_contract() {
    if !tests::may_use_devices() {
        return;
    }
    let mount = Mount::btrfs(512);
    backend_contract::check(&BtrfsBackend, &mount.directory("contract"));
}
