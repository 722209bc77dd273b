//! The database does what the specification says: random operations on both give the same answers.

use std::collections::{BTreeMap, BTreeSet};

use config::canary::TrialVerdict;
use config::schedule::Timing;
use config::task::{Digest, Outcome, Source};
use config::{BuildId, ScheduleName};
use farm_core::archive::{Archive, Upload};
use farm_core::copies::CoordinatorName;
use farm_core::messages::{Report, Subject};
use farm_core::operation::{Answer, Operation, Pick};
use farm_core::schedules::{Occasion, Schedule};
use farm_core::trials::TrialNumber;
use farm_core::windows::{Day, NewWindow, Occurrence, Weekly};
use farm_core::{Epoch, HostId, Lease, Offer, OfferedMachine, Published, Revision};
use farm_simulation::tables::{ScheduleRecord, Tables};
use farm_store::{ArchiveState, Store};
use fastrand::Rng;
use jiff::civil::Time;
use jiff::{SignedDuration, Timestamp};
use server_tests::Cluster;

use super::harness::{MACHINES, client, is_long, open, submission};

const HOSTS: u8 = 3;
/// The coordinators. Only the first two keep sources.
const COORDINATORS: u8 = 3;
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

fn any_content(rng: &mut Rng) -> Option<Digest> {
    ["a", "b", ""][rng.usize(0..3)].repeat(64).parse().ok()
}

fn any_picks(rng: &mut Rng, tables: &Tables) -> Vec<Pick> {
    let mut picks: Vec<Pick> = Vec::new();
    for _ in 0..rng.u8(1..4) {
        let (_, lease) = any_lease(rng, tables);
        if picks.iter().all(|it| it.build != lease.build) {
            let on = any_revision(rng);
            let pick = Pick {
                build: lease.build,
                epoch: lease.epoch,
                revision: on.revision,
                content: on.content,
                charge_ms: rng.u64(1..100_000),
                trial: None,
            };
            picks.push(on_trial(rng, tables, pick));
        }
    }
    picks
}

/// Returns a pick that is on trial, if its machine has had a trial.
fn on_trial(rng: &mut Rng, tables: &Tables, pick: Pick) -> Pick {
    let build = tables.builds.get(&pick.build);
    let machine = build.map(|it| &it.submission.requirements.machine);
    let trial = machine
        .and_then(|it| tables.trials.get(it))
        .map(|it| &it.trial);
    let Some(trial) = trial.filter(|_| rng.u8(0..4) > 0) else {
        return pick;
    };
    let (on, number) = match rng.u8(0..6) {
        0 => (any_revision(rng), trial.number),
        1 => (trial.candidate.clone(), TrialNumber(rng.u64(0..9))),
        _ => (trial.candidate.clone(), trial.number),
    };
    Pick {
        revision: on.revision,
        content: on.content,
        trial: Some(number),
        ..pick
    }
}

/// Returns an operation on the trials of a machine.
fn any_trial(rng: &mut Rng, tables: &Tables, machine: usize) -> Operation {
    let machine = MACHINES[machine].parse().unwrap();
    let last = tables.trials.get(&machine).map(|it| &it.trial);
    match (rng.u8(0..6), last) {
        (0, Some(last)) => Operation::EndTrial {
            machine,
            number: TrialNumber(last.number.0 - u64::from(rng.u8(0..4) == 0)),
            verdict: [TrialVerdict::Promoted, TrialVerdict::RolledBack][rng.usize(0..2)],
            reason: "a test".to_owned(),
        },
        (1, _) => Operation::Trials,
        (2 | 3, _) => Operation::Publish(machine, any_revision(rng)),
        (_, last) => {
            let new = Published {
                revision: Revision(rng.u64(2..6)),
                content: any_content(rng),
            };
            let same = last.filter(|_| rng.bool());
            let same = same.map(|it| it.candidate.clone());
            let terms = ["1 of 1", "2 of 3"][rng.usize(0..2)].parse().unwrap();
            Operation::BeginTrial(machine, same.unwrap_or(new), terms)
        }
    }
}

/// Returns true if a host whose beat was raised has a window before it.
fn is_soon(answer: &Answer) -> bool {
    matches!(
        answer,
        Answer::Beaten {
            opens_in_ms: Some(_),
            ..
        }
    )
}

/// Returns a change of windows, most of which are near.
fn any_window(rng: &mut Rng, tables: &Tables, host: HostId, now: u64) -> Operation {
    let mut occurrence = || {
        let opens_ms = now + rng.u64(0..40_000) - 3_000;
        let closes_ms = opens_ms + rng.u64(1..5_000);
        Occurrence {
            opens_ms,
            closes_ms,
        }
    };
    let (first, next) = (occurrence(), occurrence());
    let weekly = Weekly {
        days: vec![Day::Sun],
        from: Time::midnight(),
        until: Time::midnight(),
        zone: "UTC".to_owned(),
    };
    let known = tables.hosts.values().flat_map(|it| it.windows.values());
    let known = known.last().filter(|_| rng.u8(0..4) > 0);
    match (rng.u8(0..4), known) {
        (0, Some(known)) => Operation::RemoveWindow(host, known.id),
        (1, Some(known)) => Operation::MoveWindow {
            window: known.id,
            over: known.occurrence,
            next: rng.bool().then_some(next),
        },
        (2, Some(known)) => Operation::MoveWindow {
            window: known.id,
            over: first,
            next: None,
        },
        (_, known) => {
            let same = known.filter(|_| rng.u8(0..4) == 0);
            let new = NewWindow {
                occurrence: same.map_or(first, |it| it.occurrence),
                weekly: Some(weekly).filter(|_| rng.bool()),
                reason: rng.u8(0..3).to_string(),
            };
            Operation::AddWindow(HostId(rng.u64(1..=u64::from(HOSTS) + 1)), new)
        }
    }
}

fn any_digest(rng: &mut Rng) -> Digest {
    format!("{:064x}", rng.u8(0..4)).parse().unwrap()
}

fn any_digests(rng: &mut Rng) -> Vec<Digest> {
    let digests: BTreeSet<_> = (0..rng.u8(0..3)).map(|_| any_digest(rng)).collect();
    digests.into_iter().collect()
}

fn any_sources(rng: &mut Rng) -> Vec<Source> {
    let sources = any_digests(rng).into_iter().enumerate();
    let sources = sources.map(|(number, sha256)| Source {
        name: format!("source{number}").parse().unwrap(),
        sha256,
    });
    sources.collect()
}

fn any_coordinator(rng: &mut Rng) -> CoordinatorName {
    CoordinatorName(format!("http://c{}", rng.u8(0..COORDINATORS)))
}

fn any_submission(rng: &mut Rng, tables: &Tables, machine: usize) -> Operation {
    let submitter = ["ann", "bob", "cleo"][rng.usize(0..3)];
    let key = rng.u64(0..tables.builds.len() as u64 + 4);
    let mut submission = submission(key, submitter, machine, rng.i32(-1..2));
    submission.requirements.work.sources = any_sources(rng);
    submission.subject.target = ["a", "b", "-"][rng.usize(0..3)].parse().ok();
    Operation::Submit(submission)
}

fn any_operation_on_sources(rng: &mut Rng, tables: &Tables) -> Operation {
    match rng.u8(0..7) {
        0 => Operation::Copies {
            key: format!("k{}", rng.u64(0..tables.builds.len() as u64 + 9)),
            digests: any_digests(rng),
        },
        1 | 2 => Operation::Keep(any_digest(rng), any_coordinator(rng)),
        3 => Operation::Lose(any_digest(rng), any_coordinator(rng)),
        4 => Operation::Expire(rng.u64(0..20_000)),
        5 => Operation::Discard(any_digest(rng), any_coordinator(rng)),
        _ => Operation::Attend(any_coordinator(rng)),
    }
}

/// Returns an operation on one of two schedules, which runs as it is or as it was.
fn any_schedule_operation(rng: &mut Rng, tables: &Tables, now: u64) -> Operation {
    let name: ScheduleName = ["often", "seldom"][rng.usize(0..2)].parse().unwrap();
    let mut build = submission(0, "ann", rng.usize(0..MACHINES.len()), 0);
    match rng.u8(0..10) {
        0 | 1 => {
            build.requirements.work.sources = any_sources(rng);
            let schedule = Schedule {
                name,
                timing: Timing::Every(SignedDuration::from_secs(rng.i64(1..3))),
                coalesce: rng.bool(),
                submitter: build.submitter,
                priority: build.priority,
                requirements: build.requirements,
                subject: Subject {
                    target: None,
                    project: rng.bool().then(|| "camera".parse().unwrap()),
                },
            };
            Operation::AddSchedule(Box::new(schedule), rng.bool())
        }
        2 if rng.u8(0..3) == 0 => Operation::RemoveSchedule(name),
        2 | 3 => Operation::PauseSchedule(name, rng.u8(0..3) == 0),
        4 => Operation::Schedules,
        5 => Operation::RunSchedule(name, Occasion::Now(format!("n{}", rng.u8(0..9)))),
        _ => {
            let known = tables.schedules.get(&name).map(ScheduleRecord::row);
            let Some(mut read) = known else {
                return Operation::Schedules;
            };
            if rng.u8(0..6) == 0 {
                read.since += SignedDuration::from_millis(1);
            }
            let at = |ms: u64| Timestamp::from_millisecond(ms.cast_signed()).unwrap();
            // Times come again, as after a clock that was set back.
            let due = at(START_MS + rng.u64(0..5));
            Operation::RunSchedule(
                name,
                Occasion::Due {
                    read: Box::new(read),
                    due,
                    until: at(now),
                },
            )
        }
    }
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
                files: BTreeMap::new(),
            };
            Operation::Archive(lease, rng.bool().then_some(archive))
        }
    }
}

fn any_revision(rng: &mut Rng) -> Published {
    Published {
        revision: Revision(rng.u64(0..4)),
        content: any_content(rng),
    }
}

/// Returns the result of a lease, which may be over or of another host.
fn any_result(rng: &mut Rng, tables: &Tables) -> Operation {
    let (host, lease) = any_lease(rng, tables);
    let report = Report {
        lease,
        outcome: [Outcome::Success, Outcome::Error, Outcome::Abort][rng.usize(0..3)],
        message: None,
    };
    Operation::Finish(host, report)
}

fn any_operation(rng: &mut Rng, tables: &Tables, now: u64) -> Operation {
    if rng.u8(0..4) == 0 {
        return any_schedule_operation(rng, tables, now);
    }
    let host = HostId(rng.u64(1..=u64::from(HOSTS)));
    let known = tables.hosts[&host].beat;
    let beat = if rng.u8(0..6) == 0 {
        rng.u64(0..5)
    } else {
        known
    };
    let machine = rng.usize(0..MACHINES.len());
    let attempts_max = 3;
    match rng.u8(0..38) {
        0..4 => any_submission(rng, tables, machine),
        23..29 => any_operation_on_sources(rng, tables),
        29..33 => any_upload(rng, tables),
        33..38 => any_trial(rng, tables, machine),
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
        12 | 13 => any_result(rng, tables),
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
        17 if rng.u8(0..3) == 0 => {
            Operation::Publish(MACHINES[machine].parse().unwrap(), any_revision(rng))
        }
        20..23 => any_window(rng, tables, host, now),
        18 => Operation::Drain(HostId(rng.u64(1..=u64::from(HOSTS) + 1)), rng.u8(0..4) == 0),
        _ => Operation::Show(BuildId(rng.u64(0..=tables.builds.len() as u64 + 1))),
    }
}

/// The kinds of answers that each seed must give several times.
const MANY: [&str; 8] = [
    "claimed", "recorded", "rescued", "placed", "windows", "ran", "uploads", "trials",
];

/// Counts what an answer has.
fn note(seen: &mut BTreeMap<&'static str, usize>, operation: &Operation, answer: &Answer) {
    let counts = match answer {
        Answer::Claimed(grants) => {
            let tried = grants.iter().filter(|it| it.trial.is_some());
            vec![("claimed", grants.len()), ("tried", tried.count())]
        }
        Answer::Trials(trials) => {
            let runs = trials.iter().flat_map(|it| &it.builds);
            let failed = runs
                .clone()
                .filter(|it| it.result.is_some() && it.outcome.is_none());
            vec![
                ("trials", trials.len()),
                ("runs", runs.count()),
                ("repeating", failed.count()),
            ]
        }
        Answer::Recorded => vec![("recorded", 1)],
        Answer::Uploads(uploads) => vec![("uploads", uploads.len())],
        Answer::Rescued(leases) => vec![("rescued", leases.len())],
        Answer::Candidates { builds, .. } => {
            let durations = builds.iter().filter(|it| it.usual_ms.is_some());
            vec![("placed", builds.len()), ("durations", durations.count())]
        }
        Answer::Beats(answers) => {
            vec![("windows", answers.iter().filter(|it| is_soon(it)).count())]
        }
        Answer::Beaten { .. } => vec![("windows", usize::from(is_soon(answer)))],
        Answer::Missing(_) if matches!(operation, Operation::AddSchedule(..)) => {
            vec![("schedules without sources", 1)]
        }
        Answer::Missing(_) => vec![("missing", 1)],
        Answer::Expired(digests) => vec![("expired", digests.len())],
        Answer::Done if matches!(operation, Operation::Discard(..)) => vec![("discarded", 1)],
        Answer::Ran(..) => vec![("ran", 1)],
        _ => Vec::new(),
    };
    for (kind, count) in counts {
        *seen.entry(kind).or_default() += count;
    }
}

/// Makes the hosts and the coordinators.
async fn prepare(url: &str) {
    let store = open(url, HOSTS).await;
    for number in 0..COORDINATORS {
        let name = CoordinatorName(format!("http://c{number}"));
        let registered = store.register(&name, [number; 32], number < 2).await;
        registered.unwrap();
    }
}

/// Compares the places of the files of all builds.
async fn compare_archives(store: &Store, tables: &Tables, seed: u64) {
    for build in tables.builds.keys() {
        let expected = match tables.archives.get(build) {
            Some((_, Some(archive))) => ArchiveState::Stored(archive.clone()),
            Some((_, None)) => ArchiveState::Lost,
            None if tables.uploads.contains_key(build) => ArchiveState::Waiting,
            None => ArchiveState::Host,
        };
        let state = store.archive_of(*build).await.unwrap();
        assert_eq!(state, expected, "seed {seed}, build {build}");
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
    runtime.block_on(prepare(&url));
    let tables = "builds, finished, submissions, machines, used, offers, windows, schedules, sources, source_copies, uploads, archives, trials, trial_runs";
    let seeds = if is_long() { 500 } else { 30 };
    let mut seen = BTreeMap::new();
    for seed in 0..seeds {
        let reset = format!(
            "SET search_path = frozen; TRUNCATE {tables}; ALTER SEQUENCE build_ids RESTART;
             ALTER SEQUENCE window_ids RESTART; ALTER SEQUENCE trial_numbers RESTART;
             UPDATE hosts SET beat = 0, drained = false, orders = 0,
                version = version + 1;
             UPDATE coordinators SET beat = 0, seen = to_timestamp(0)"
        );
        clock.batch_execute(&reset).unwrap();
        // Beats are lower now, as after the restore of a backup.
        let store = runtime.block_on(Store::open(&url, 8)).unwrap();
        let store = store.archiving(true);
        let mut rng = Rng::with_seed(seed);
        let mut tables = Tables::default();
        (1..=HOSTS).for_each(|host| tables.enrol(HostId(host.into())));
        (0..2).for_each(|it| tables.register(CoordinatorName(format!("http://c{it}"))));
        let mut now = START_MS;
        let mut log = Vec::new();
        for _ in 0..800 {
            now = match rng.u8(0..30) {
                0 => now + rng.u64(0..200_000_000),
                1 => now - rng.u64(0..300_000),
                _ => now + rng.u64(0..3_000),
            };
            let seconds = format!("UPDATE clock SET at = to_timestamp({now} / 1000.0)");
            clock.batch_execute(&seconds).unwrap();
            let operation = any_operation(&mut rng, &tables, now);
            let expected = tables.apply(now, operation.clone());
            let answer = runtime.block_on(store.apply(&operation));
            note(&mut seen, &operation, &expected);
            log.push(format!("{now} {operation:?} -> {expected:?}"));
            assert_eq!(answer, Ok(expected), "seed {seed}:\n{}", log.join("\n"));
        }
        runtime.block_on(compare_archives(&store, &tables, seed));
    }
    // Each kind of answer was compared many times, and some that are rare.
    let many = 2 * usize::try_from(seeds).unwrap();
    for kind in MANY {
        assert!(seen.get(kind) > Some(&many), "{kind}: {seen:?}");
    }
    for kind in [
        "durations",
        "missing",
        "expired",
        "discarded",
        "tried",
        "runs",
        "repeating",
    ] {
        assert!(seen.get(kind) > Some(&0), "{kind}: {seen:?}");
    }
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
