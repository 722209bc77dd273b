//! Pages of builds, attempts, hosts, the queue and tokens.

use config::task::Outcome;
use config::tokens::Scope;
use farm_core::messages::{Report, Subject};
use farm_core::operation::{Answer, Operation, Pick};
use farm_core::site::HostState;
use farm_core::view::{BuildQuery, BuildState, BuildView, HostQuery};
use farm_core::{Epoch, HostId, Lease, Offer, OfferedMachine, Revision};
use farm_store::Store;
use server_tests::Cluster;
use tokio::task::block_in_place;

use super::harness::{client, open, submission};

pub(crate) async fn submit(
    store: &Store,
    key: u64,
    machine: usize,
    target: &str,
) -> config::BuildId {
    let mut submission = submission(key, "ann", machine, 0);
    submission.subject = Subject {
        target: Some(target.parse().unwrap()),
        project: key.is_multiple_of(2).then(|| "image".parse().unwrap()),
    };
    let Ok(Answer::Submitted(build)) = store.apply(&Operation::Submit(submission)).await else {
        panic!("not submitted");
    };
    build
}

/// Gives a build to host 1.
pub(crate) async fn claim(store: &Store, build: config::BuildId, epoch: u64) -> Lease {
    let host = HostId(1);
    let Ok(Answer::Beaten { beat, .. }) =
        store.apply(&Operation::Beat(host, Offer::default())).await
    else {
        panic!("no beat");
    };
    let pick = Pick {
        build,
        epoch: Epoch(epoch),
        content: None,
        revision: Revision(3),
        charge_ms: 1,
        trial: None,
    };
    let picks = vec![pick];
    let claim = Operation::Claim { host, beat, picks };
    let Ok(Answer::Claimed(grants)) = store.apply(&claim).await else {
        panic!("no claim");
    };
    grants[0].lease
}

pub(crate) async fn finish(store: &Store, lease: Lease, outcome: Outcome) {
    finish_with(store, lease, outcome, None).await;
}

async fn finish_with(store: &Store, lease: Lease, outcome: Outcome, message: Option<&str>) {
    let message = message.map(|it| it.to_owned().into());
    let report = Report {
        lease,
        outcome,
        message,
    };
    let finish = Operation::Finish(HostId(1), report);
    assert_eq!(store.apply(&finish).await, Ok(Answer::Recorded));
}

fn numbers(builds: &[BuildView]) -> Vec<u64> {
    builds.iter().map(|it| it.build.0).collect()
}

async fn found(store: &Store, query: &str) -> Vec<u64> {
    let query: BuildQuery = serde_json::from_str(query).unwrap();
    numbers(&store.builds(&query).await.unwrap().builds)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn pages_have_queue_and_results_by_every_filter() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 2).await;
    for key in 1..=4 {
        submit(&store, key, usize::from(key > 2), "hello").await;
    }
    let lease = claim(&store, config::BuildId(1), 0).await;
    finish(&store, lease, Outcome::Error).await;
    let release = Operation::Release {
        host: HostId(1),
        lease: claim(&store, config::BuildId(2), 0).await,
        is_unused: false,
        attempts_max: 5,
    };
    assert_eq!(store.apply(&release).await, Ok(Answer::Recorded));
    claim(&store, config::BuildId(3), 0).await;
    for (query, expected) in [
        ("{}", vec![4, 3, 2, 1]),
        (r#"{"state": "queued"}"#, vec![4, 2]),
        (r#"{"state": "running"}"#, vec![3]),
        (r#"{"state": "finished"}"#, vec![1]),
        (r#"{"outcome": "error"}"#, vec![1]),
        (r#"{"outcome": "error", "state": "queued"}"#, vec![]),
        (r#"{"machine": "linux"}"#, vec![2, 1]),
        (r#"{"project": "image"}"#, vec![4, 2]),
        (r#"{"package": "hello", "count": 2}"#, vec![4, 3]),
        (r#"{"submitter": "ann", "before": 3}"#, vec![2, 1]),
        (r#"{"submitter": "bob"}"#, vec![]),
        (r#"{"host": "host1"}"#, vec![3, 1]),
    ] {
        assert_eq!(found(&store, query).await, expected, "{query}");
    }
    let query = BuildQuery {
        count: Some(3),
        ..BuildQuery::default()
    };
    let page = store.builds(&query).await.unwrap();
    assert_eq!(page.next, Some(config::BuildId(2)));
    let returned = store.build(config::BuildId(2)).await.unwrap().unwrap();
    assert_eq!((returned.state, returned.losses), (BuildState::Queued, 1));
    assert_eq!(returned.host, None);
    let lost = &returned.lost[0];
    assert_eq!(
        (lost.host.as_deref(), lost.is_released),
        (Some("host1"), true)
    );
    assert!(store.build(config::BuildId(9)).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_newer_good_build_mends_a_failing_package() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 1).await;
    for (key, target) in [(1, "hello"), (2, "other"), (3, "hello")] {
        let build = submit(&store, key, 0, target).await;
        let lease = claim(&store, build, 0).await;
        let outcome = match key {
            3 => Outcome::Success,
            _ => Outcome::Error,
        };
        finish(&store, lease, outcome).await;
    }
    assert_eq!(numbers(&store.failing().await.unwrap()), [2]);
    let build = store.build(config::BuildId(3)).await.unwrap().unwrap();
    assert!(build.usual_seconds.is_some() && build.claimed.is_some());
    assert_eq!(build.revision, Some(Revision(3)));
    let queue = store.queue().await.unwrap();
    assert_eq!((queue.queued, queue.running, queue.oldest), (0, 0, None));
}

/// Returns an offer of a machine.
fn offering(machine: &str) -> Offer {
    Offer {
        machines: [(machine.parse().unwrap(), OfferedMachine::default())].into(),
        ..Offer::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn hosts_are_in_the_states_that_their_views_say_and_are_found_by_each_filter() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 7).await;
    let halted = Offer {
        halt: Some("the disk has \0 free".to_owned()),
        ..offering("linux")
    };
    let offers = [offering("linux"), halted].into_iter();
    let offers = offers.chain((3..=6).map(|_| offering("bsd")));
    for (host, offer) in (1..).zip(offers) {
        let beat = Operation::Beat(HostId(host), offer);
        assert!(store.apply(&beat).await.is_ok());
    }
    let change = "
        INSERT INTO windows VALUES (1, 3, now() - interval '1 min', now() + interval '1 min', NULL, '');
        UPDATE hosts SET drained = true WHERE id = 4;
        UPDATE hosts SET seen = now() - interval '31 s' WHERE id = 5";
    std::thread::scope(|scope| {
        let changed = scope.spawn(|| client(&cluster).batch_execute(change));
        changed.join().unwrap().unwrap();
    });
    assert!(store.revoke("host6").await.unwrap());
    let lease_ms = 60_000;
    let all = store.hosts(&HostQuery::default(), lease_ms).await.unwrap();
    let sites = store.sites(lease_ms).await.unwrap();
    let states = store.host_states(lease_ms).await.unwrap();
    for (number, (state, name)) in [0, 1, 2, 3, 4, 6, 5].into_iter().zip(HostState::ALL) {
        let site = &sites[number];
        assert_eq!((&site.name, site.state), (&all[number].name, state));
        assert_eq!(*site.offer, all[number].offer);
        assert_eq!(states[&state], 1);
        let query = format!(r#"{{"state": "{name}"}}"#);
        assert_eq!(names(&store, &query).await, [site.name.as_str()]);
        // The windows of views are added by others.
        let viewed = all[number].state();
        assert!(viewed == state || state == HostState::Maintenance && viewed == HostState::Alive);
    }
    for (query, expected) in [
        (r#"{"machine": "linux"}"#, vec!["host1", "host2"]),
        (r#"{"machine": "linux", "state": "halted"}"#, vec!["host2"]),
        (r#"{"machine": "mac"}"#, vec![]),
        (r#"{"name": "t3"}"#, vec!["host3"]),
        (r#"{"name": "%"}"#, vec![]),
        (r#"{"after": "host5"}"#, vec!["host6", "host7"]),
        (r#"{"after": "host2", "count": 2}"#, vec!["host3", "host4"]),
        (
            r#"{"machine": "bsd", "after": "host3", "count": 1}"#,
            vec!["host4"],
        ),
    ] {
        assert_eq!(names(&store, query).await, expected, "{query}");
    }
    let named = store.hosts_named(&["host4", "none", "host2"], lease_ms);
    let named: Vec<_> = named.await.unwrap().into_iter().map(|it| it.name).collect();
    assert_eq!(named, ["host2", "host4"]);
    assert_eq!(store.host_of_name("host3").await.unwrap(), Some(HostId(3)));
    assert_eq!(store.host_name(HostId(3)).await.unwrap().unwrap(), "host3");
    // A host that has other machines later.
    let beat = Operation::Beat(HostId(2), offering("bsd"));
    assert!(store.apply(&beat).await.is_ok());
    assert_eq!(names(&store, r#"{"machine": "linux"}"#).await, ["host1"]);
    assert_eq!(names(&store, r#"{"state": "halted"}"#).await, [""; 0]);
}

async fn names(store: &Store, query: &str) -> Vec<String> {
    let query: HostQuery = serde_json::from_str(query).unwrap();
    let hosts = store.hosts(&query, 60_000).await.unwrap();
    hosts.into_iter().map(|it| it.name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_token_counts_until_it_is_revoked() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let name = "ci".parse().unwrap();
    assert!(
        store
            .add_token(&name, Scope::Submit, [7; 32])
            .await
            .unwrap()
    );
    assert!(!store.add_token(&name, Scope::Admin, [8; 32]).await.unwrap());
    let client = store.client([7; 32]).await.unwrap();
    assert_eq!(client, Some((name.clone(), Scope::Submit)));
    assert_eq!(store.client([8; 32]).await.unwrap(), None);
    assert_eq!(store.tokens().await.unwrap().len(), 1);
    assert!(store.revoke_token(&name).await.unwrap());
    assert!(!store.revoke_token(&name).await.unwrap());
    assert_eq!(store.client([7; 32]).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn a_result_has_the_message_of_its_host_or_of_the_farm() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 2).await;
    for key in 1..=2 {
        submit(&store, key, 1, "hello").await;
    }
    let lease = claim(&store, config::BuildId(1), 0).await;
    finish_with(&store, lease, Outcome::Error, Some("make failed")).await;
    let lost = Operation::Release {
        host: HostId(1),
        lease: claim(&store, config::BuildId(2), 0).await,
        is_unused: false,
        attempts_max: 1,
    };
    assert_eq!(store.apply(&lost).await, Ok(Answer::Recorded));
    let builds = store.builds(&BuildQuery::default()).await.unwrap().builds;
    let messages: Vec<_> = builds
        .iter()
        .map(|it| it.message.as_ref().map(ToString::to_string))
        .collect();
    let expected = ["1 attempts lost their hosts or guests", "make failed"];
    assert_eq!(messages, expected.map(|it| Some(it.to_owned())));
}
