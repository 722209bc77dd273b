//! The store on real btrfs.

use ::store::backend::BtrfsBackend;
use tests::contract;
use tests::volume::Mount;

#[test]
fn btrfs_keeps_the_contract() {
    if !tests::may_use_devices() {
        return;
    }
    let mount = Mount::btrfs(512);
    contract::check(&BtrfsBackend, &mount.directory("contract"));
}
