//! The store on a fake pool.

use ::store::pool::FakePool;
use tests::contract;

#[test]
fn the_fake_pool_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    contract::check(&FakePool::default(), directory.path());
}
