//! The database does what the specification says: random operations on both give the same answers.

use config::BuildId;
use config::task::Outcome;
use farm_core::archive::{Archive, Upload};
use farm_core::operation::{Answer, Operation, Pick};
use farm_core::{Epoch, HostId, Lease, Offer, OfferedMachine, Revision};
use farm_simulation::tables::Tables;
use farm_store::{ArchiveState, Store};
use fastrand::Rng;
use server_tests::Cluster;

use super::harness::{MACHINES, client, is_long, open, submission};

const HOSTS: u8 = 3;
const START_MS: u64 = 1_000_000_000_000;

/// Replaces the clock of the database by a table, for connections with this path.
const FROZEN: &str = "
    CREATE SCHEMA frozen;
    CREATE TABLE frozen.clock (at timestamptz);
    INSERT INTO frozen.clock VALUES (to_timestamp(0));
    CREATE FUNCTION frozen.now() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT at FROM frozen.clock'";

fn any_lease(rng: &mut Rng, tables: &Tables) -> (HostId, Lease) {
    let build = BuildId(rng.u64(0..=tables.builds.len() as u64 + 1));
    let known = tables.builds.get(&build);
    let epoch = known.map_or(0, |it| it.epoch.0);
    let lease = Lease {
        build,
        epoch: Epoch(if rng.u8(0..6) == 0 {
            rng.u64(0..4)
        } else {
            epoch
        }),
    };
    let host = known.and_then(|it| it.host);
    let other = HostId(rng.u64(0..=u64::from(HOSTS) + 1));
    (host.filter(|_| rng.u8(0..6) > 0).unwrap_or(other), lease)
}

fn any_picks(rng: &mut Rng, tables: &Tables) -> Vec<Pick> {
    let mut picks: Vec<Pick> = Vec::new();
    for _ in 0..rng.u8(1..4) {
        let (_, lease) = any_lease(rng, tables);
        if picks.iter().all(|it| it.build != lease.build) {
            picks.push(Pick {
                build: lease.build,
                epoch: lease.epoch,
                revision: Revision(rng.u64(0..3)),
                charge_ms: rng.u64(1..100_000),
            });
        }
    }
    picks
}

/// Returns an operation on the files of builds.
fn any_upload(rng: &mut Rng, tables: &Tables) -> Operation {
    match rng.u8(0..4) {
        0 | 1 => {
            let taken_ms = rng.u64(0..5_000);
            let most = rng.u64(0..3);
            Operation::TakeUploads { most, taken_ms }
        }
        2 => {
            let (host, lease) = any_lease(rng, tables);
            let attempts = tables.uploads.get(&lease.build).map_or(0, |it| it.attempts);
            let upload = Upload {
                lease,
                host,
                attempt: attempts.saturating_sub(rng.u64(0..2)),
                ended_ms: 0,
            };
            let ms = rng.u64(0..10_000);
            Operation::DeferUpload { upload, ms }
        }
        _ => {
            let (_, lease) = any_lease(rng, tables);
            let archive = Archive {
                folder: format!("builds/{lease}"),
                files: std::collections::BTreeMap::new(),
            };
            Operation::Archive(lease, rng.bool().then_some(archive))
        }
    }
}

fn any_operation(rng: &mut Rng, tables: &Tables) -> Operation {
    let host = HostId(rng.u64(1..=u64::from(HOSTS)));
    let known = tables.hosts[&host].beat;
    let beat = if rng.u8(0..6) == 0 {
        rng.u64(0..5)
    } else {
        known
    };
    let machine = rng.usize(0..MACHINES.len());
    let attempts_max = 3;
    match rng.u8(0..24) {
        20..24 => any_upload(rng, tables),
        0..4 => {
            let submitter = ["ann", "bob", "cleo"][rng.usize(0..3)];
            let key = rng.u64(0..tables.builds.len() as u64 + 4);
            Operation::Submit(submission(key, submitter, machine, rng.i32(-1..2)))
        }
        4 => Operation::Cancel(BuildId(rng.u64(0..=tables.builds.len() as u64 + 1))),
        5 | 6 => {
            let mut offer = Offer::default();
            let name = MACHINES[machine].parse().unwrap();
            offer.machines.insert(name, OfferedMachine::default());
            if rng.bool() {
                return Operation::Beat(host, offer);
            }
            let others = (1..=u64::from(HOSTS) + 1).filter(|_| rng.bool());
            Operation::Beats(others.map(|it| (HostId(it), offer.clone())).collect())
        }
        7 | 8 => Operation::Candidates {
            machines: MACHINES[..=machine]
                .iter()
                .map(|it| it.parse().unwrap())
                .collect(),
            most: rng.u64(1..4),
        },
        9..12 => Operation::Claim {
            host,
            beat,
            picks: any_picks(rng, tables),
        },
        12 | 13 => {
            let (host, lease) = any_lease(rng, tables);
            Operation::Finish(
                host,
                lease,
                [Outcome::Success, Outcome::Error][rng.usize(0..2)],
            )
        }
        14 => {
            let (host, lease) = any_lease(rng, tables);
            Operation::Release {
                host,
                lease,
                is_unused: rng.bool(),
                attempts_max,
            }
        }
        15 => Operation::Hosts,
        16 => Operation::Rescue {
            host,
            beat,
            attempts_max,
        },
        17 if rng.u8(0..8) == 0 => {
            Operation::Publish(MACHINES[machine].parse().unwrap(), Revision(rng.u64(0..3)))
        }
        18 => Operation::Drain(HostId(rng.u64(1..=u64::from(HOSTS) + 1)), rng.u8(0..4) == 0),
        _ => Operation::Show(BuildId(rng.u64(0..=tables.builds.len() as u64 + 1))),
    }
}

#[test]
#[ignore = "needs PostgreSQL"]
fn the_database_answers_as_specified() {
    let cluster = Cluster::start();
    let mut clock = client(&cluster);
    clock.batch_execute(FROZEN).unwrap();
    let url = format!(
        "{}&options=-c%20search_path%3Dfrozen,pg_catalog",
        cluster.url()
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    drop(runtime.block_on(open(&url, HOSTS)));
    let tables = "builds, finished, submissions, machines, used, offers, uploads, archives";
    let seeds = if is_long() { 500 } else { 30 };
    let (mut claimed, mut recorded, mut rescued, mut placed) = (0, 0, 0, 0);
    let mut taken = 0;
    for seed in 0..seeds {
        let reset = format!(
            "SET search_path = frozen; TRUNCATE {tables}; ALTER SEQUENCE build_ids RESTART;
             UPDATE hosts SET beat = 0, drained = false, orders = 0,
                version = version + 1"
        );
        clock.batch_execute(&reset).unwrap();
        // Beats are lower now, as after the restore of a backup.
        let store = runtime.block_on(Store::open(&url, 8)).unwrap();
        let store = store.archiving(true);
        let mut rng = Rng::with_seed(seed);
        let mut tables = Tables::default();
        (1..=HOSTS).for_each(|host| tables.enrol(HostId(host.into())));
        let mut now = START_MS;
        let mut log = Vec::new();
        for _ in 0..150 {
            now = match rng.u8(0..30) {
                0 => now + rng.u64(0..200_000_000),
                1 => now - rng.u64(0..300_000),
                _ => now + rng.u64(0..3_000),
            };
            let seconds = format!("UPDATE clock SET at = to_timestamp({now} / 1000.0)");
            clock.batch_execute(&seconds).unwrap();
            let operation = any_operation(&mut rng, &tables);
            let expected = tables.apply(now, operation.clone());
            let answer = runtime.block_on(store.apply(&operation));
            match &expected {
                Answer::Claimed(grants) => claimed += grants.len(),
                Answer::Recorded => recorded += 1,
                Answer::Uploads(uploads) => taken += uploads.len(),
                Answer::Rescued(leases) => rescued += leases.len(),
                Answer::Candidates { builds, .. } => placed += builds.len(),
                _ => {}
            }
            log.push(format!("{now} {operation:?} -> {expected:?}"));
            assert_eq!(answer, Ok(expected), "seed {seed}:\n{}", log.join("\n"));
        }
        for build in tables.builds.keys() {
            let state = runtime.block_on(store.archive_of(*build)).unwrap();
            let expected = match tables.archives.get(build) {
                Some((_, Some(archive))) => ArchiveState::Stored(archive.clone()),
                Some((_, None)) => ArchiveState::Lost,
                None if tables.uploads.contains_key(build) => ArchiveState::Waiting,
                None => ArchiveState::Host,
            };
            assert_eq!(state, expected, "seed {seed}, build {build}");
        }
    }
    // Each kind of answer was compared many times.
    let least = claimed.min(recorded).min(rescued).min(placed).min(taken);
    assert!(
        least > 2 * usize::try_from(seeds).unwrap(),
        "{claimed} {recorded} {rescued} {placed} {taken}"
    );
}

#[test]
#[ignore = "needs PostgreSQL"]
fn a_token_enrols_one_host_and_a_revoked_key_opens_nothing() {
    let cluster = Cluster::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open(&cluster.url(), 2).await;
        let (host, name) = store.host([101; 32]).await.unwrap().unwrap();
        assert_eq!((host, name.as_str()), (HostId(1), "host1"));
        assert_eq!(store.enrol([1; 32], [7; 32]).await.unwrap(), None);
        assert_eq!(store.host([7; 32]).await.unwrap(), None);
        // A new token for the same name replaces the key.
        store.invite([9; 32], "host1", 60).await.unwrap();
        assert_eq!(
            store.enrol([9; 32], [8; 32]).await.unwrap(),
            Some(HostId(1))
        );
        assert_eq!(store.host([101; 32]).await.unwrap(), None);
        assert!(store.revoke("host1").await.unwrap());
        assert_eq!(store.host([8; 32]).await.unwrap(), None);
        assert!(!store.revoke("host9").await.unwrap());
        store.invite([10; 32], "host3", 0).await.unwrap();
        assert_eq!(store.enrol([10; 32], [9; 32]).await.unwrap(), None);
    });
}
