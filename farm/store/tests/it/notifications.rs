//! The outbox of notifications: what each end of a build leaves in it.

use std::collections::BTreeMap;

use config::BuildId;
use config::notify::{Notice, NoticeData, NotifyKind, Settlement};
use config::task::Outcome;
use farm_core::HostId;
use farm_core::operation::{Answer, Operation};
use farm_store::Store;
use jiff::Timestamp;
use server_tests::Cluster;
use tokio::task::block_in_place;

use super::harness::{client, open};
use super::views::{claim, finish, submit};

/// Returns the ends that rules are to weigh: the build, and if it was canceled.
fn ends(cluster: &Cluster) -> Vec<(i64, bool)> {
    block_in_place(|| {
        let read = "SELECT build, canceled FROM notify_ends ORDER BY build";
        let rows = client(cluster).query(read, &[]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    })
}

async fn release(store: &Store, build: BuildId, is_unused: bool) {
    let release = Operation::Release {
        host: HostId(1),
        lease: claim(store, build, 0).await,
        is_unused,
        attempts_max: 1,
    };
    store.apply(&release).await.unwrap();
}

/// Ends builds in each way that there is.
async fn end_all(store: &Store) {
    let mut builds = Vec::new();
    for key in 1..=5 {
        builds.push(submit(store, key, 0, "hello").await);
    }
    let lease = claim(store, builds[0], 0).await;
    finish(store, lease, Outcome::Error).await;
    store.apply(&Operation::Cancel(builds[1])).await.unwrap();
    release(store, builds[2], false).await;
    let lease = claim(store, builds[3], 0).await;
    store.apply(&Operation::Cancel(builds[3])).await.unwrap();
    let unused = Operation::Release {
        host: HostId(1),
        lease,
        is_unused: true,
        attempts_max: 1,
    };
    store.apply(&unused).await.unwrap();
    claim(store, builds[4], 0).await;
    let rescue = Operation::Rescue {
        host: HostId(1),
        beat: beat(store).await,
        attempts_max: 1,
    };
    store.apply(&rescue).await.unwrap();
}

async fn beat(store: &Store) -> u64 {
    let Ok(Answer::Hosts(hosts)) = store.apply(&Operation::Hosts).await else {
        panic!("no hosts");
    };
    hosts[0].beat
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn each_end_of_a_build_is_left_for_each_rule_once() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 1).await;
    end_all(&store.clone().telling(&["team".parse().unwrap()])).await;
    let expected = [(1, false), (2, true), (3, false), (4, true), (5, false)];
    assert_eq!(ends(&cluster), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_farm_without_rules_leaves_nothing() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 1).await;
    end_all(&store).await;
    assert_eq!(ends(&cluster), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn two_coordinators_weigh_and_send_once_and_in_order() {
    let cluster = block_in_place(Cluster::start);
    let rule = "team".parse().unwrap();
    let store = open(&cluster.url(), 1).await.telling(&[rule]);
    let rule = "team".parse().unwrap();
    store.add_rules(&["team"]).await.unwrap();
    for key in 1..=2 {
        let build = submit(&store, key, 0, "hello").await;
        let lease = claim(&store, build, 0).await;
        finish(&store, lease, Outcome::Error).await;
    }
    let (one, two) = (
        store.ends(&rule).await.unwrap().unwrap(),
        store.ends(&rule).await.unwrap().unwrap(),
    );
    let notices: Vec<_> = one
        .builds
        .iter()
        .map(|(build, _)| Notice {
            kind: NotifyKind::Failed,
            timestamp: Timestamp::UNIX_EPOCH,
            data: NoticeData {
                rule: rule.clone(),
                before: None,
                build: Some(Box::new(build.clone())),
                problem: None,
            },
        })
        .collect();
    let none = BTreeMap::new();
    let weigh = |ends| store.weigh(&rule, ends, &none, &notices);
    assert!(weigh(&one).await.unwrap(), "the first records");
    assert!(!weigh(&two).await.unwrap(), "the second records nothing");
    assert_eq!(store.ends(&rule).await.unwrap(), None);

    let taken = store
        .take_notification(&rule, 60_000)
        .await
        .unwrap()
        .unwrap();
    let other = store.take_notification(&rule, 60_000).await.unwrap();
    assert_eq!(other, None, "the first one is under way");
    store.notification_failed(&taken, "no route").await.unwrap();
    let paused = store.take_notification(&rule, 60_000).await.unwrap();
    assert_eq!(paused, None, "its pause lasts");
    let skip = "UPDATE notifications SET due = now()";
    block_in_place(|| client(&cluster).batch_execute(skip).unwrap());
    let again = store
        .take_notification(&rule, 60_000)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((again.attempt, &again.failure[..]), (2, "no route"));
    assert_eq!(again.id, taken.id);
    let counts = store.notification_counts().await.unwrap();
    assert_eq!((counts[0].waiting, &counts[0].failure[..]), (2, "no route"));
    for taken in [&taken, &again] {
        let settle = store.settle_notification(taken, &Settlement::Delivered);
        settle.await.unwrap();
    }
    let next = store
        .take_notification(&rule, 60_000)
        .await
        .unwrap()
        .unwrap();
    assert_ne!(next.id, taken.id);
    assert_eq!(next.content.data.build.unwrap().build, BuildId(2));
}
