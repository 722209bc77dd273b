//! A database with hosts, and requests of a kind.

use std::collections::BTreeMap;

use config::builds::Priority;
use farm_core::messages::{Subject, Submission};
use farm_core::{HostId, Requirements};
use farm_store::Store;
use server_tests::Cluster;

/// The machines of the tests.
pub(crate) const MACHINES: [&str; 3] = ["linux", "bsd", "mac"];

/// Opens the store of a cluster, and enrols hosts.
pub(crate) async fn open(url: &str, hosts: u8) -> Store {
    let store = Store::open(url, 8).await.unwrap();
    for host in 1..=hosts {
        store
            .invite([host; 32], &format!("host{host}"), 60)
            .await
            .unwrap();
        let enrolled = store.enrol([host; 32], [100 + host; 32]).await.unwrap();
        assert_eq!(enrolled, Some(HostId(host.into())));
    }
    store
}

/// Returns a client beside the store.
pub(crate) fn client(cluster: &Cluster) -> postgres::Client {
    postgres::Client::connect(&cluster.url(), postgres::NoTls).unwrap()
}

/// Returns a request for a build.
pub(crate) fn submission(key: u64, submitter: &str, machine: usize, priority: i32) -> Submission {
    Submission {
        key: format!("k{key}"),
        submitter: submitter.parse().unwrap(),
        priority: Priority(priority),
        requirements: Requirements {
            machine: MACHINES[machine].parse().unwrap(),
            toolchain: "default".parse().unwrap(),
            cpus: 1,
            memory_mib: 100,
            resources: BTreeMap::new(),
            work: farm_core::Work::default(),
        },
        subject: Subject::default(),
    }
}

/// Returns true in the runs that try every case.
pub(crate) fn is_long() -> bool {
    std::env::var_os("BUILDHOST_LONG").is_some()
}
