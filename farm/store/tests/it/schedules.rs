//! Schedules and projects, as clients see them, and coordinators that run the same schedule.

use config::ScheduleName;
use config::builds::Priority;
use config::schedule::{RunResult, Timing};
use config::task::Outcome;
use farm_core::operation::{Answer, Operation};
use farm_core::schedules::{Added, Occasion, Schedule, due};
use farm_store::Store;
use jiff::{SignedDuration, Timestamp};
use server_tests::Cluster;
use tokio::task::block_in_place;

use super::harness::{client, open, submission};
use super::views::{claim, finish};

fn schedule(name: &str, timing: Timing) -> Schedule {
    let build = submission(0, "ann", 0, 0);
    Schedule {
        name: name.parse().unwrap(),
        timing,
        coalesce: true,
        submitter: build.submitter,
        priority: Priority(3),
        requirements: build.requirements,
        subject: farm_core::messages::Subject {
            target: Some("hello".parse().unwrap()),
            project: Some("camera".parse().unwrap()),
        },
    }
}

async fn add(store: &Store, schedule: &Schedule, replaces: bool) -> Answer {
    let add = Operation::AddSchedule(Box::new(schedule.clone()), replaces);
    store.apply(&add).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn coordinators_that_run_a_schedule_at_once_make_one_build() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 0).await;
    let every = schedule("often", Timing::Every(SignedDuration::from_secs(1)));
    assert_eq!(
        add(&store, &every, false).await,
        Answer::ScheduleAdded(Added::New)
    );
    // The schedule was added an hour ago.
    block_in_place(|| {
        let back = "UPDATE schedules SET added = added - 3600000, since = since - 3600000";
        client(&cluster).batch_execute(back).unwrap();
    });
    let Ok(Answer::Schedules { now, schedules }) = store.apply(&Operation::Schedules).await else {
        panic!("no schedules");
    };
    let round = due(now, &schedules);
    let [(name, occasion)] = &round.runs[..] else {
        panic!("{round:?}");
    };
    let run = Operation::RunSchedule(name.clone(), occasion.clone());
    let runs = (0..8).map(|_| store.apply(&run));
    let answers = futures_util::future::join_all(runs).await;
    let made = answers
        .iter()
        .filter(|it| matches!(it, Ok(Answer::Ran(..))));
    assert_eq!(made.count(), 1, "{answers:?}");
    let builds = store.builds(&serde_json::from_str("{}").unwrap()).await;
    let builds = builds.unwrap().builds;
    assert_eq!(builds.len(), 1);
    assert_eq!(builds[0].priority, Priority(3));
    let shown = store.schedule(name).await.unwrap().unwrap();
    let last = shown.last.clone().unwrap();
    assert_eq!(
        (last.build, last.result),
        (Some(builds[0].build), RunResult::Submitted)
    );
    // Times that were missed are made up for by one run.
    assert!(
        shown.next.unwrap() + SignedDuration::from_secs(2) > now,
        "{shown:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL"]
async fn schedules_and_projects_have_their_last_builds() {
    let cluster = block_in_place(Cluster::start);
    let store = open(&cluster.url(), 1).await;
    assert_eq!(store.projects().await.unwrap(), []);
    let once = schedule("once", Timing::At(Timestamp::MAX));
    add(&store, &once, false).await;
    let again = Answer::ScheduleAdded(Added::Unchanged);
    assert_eq!(add(&store, &once, false).await, again);
    let other = Schedule {
        coalesce: false,
        ..once.clone()
    };
    let exists = Answer::ScheduleAdded(Added::Exists);
    assert_eq!(add(&store, &other, false).await, exists);
    let name: ScheduleName = "once".parse().unwrap();
    let run = |key: &str| Operation::RunSchedule(name.clone(), Occasion::Now(key.to_owned()));
    let first = store.apply(&run("a")).await.unwrap();
    let Answer::Ran(build, RunResult::Submitted) = first else {
        panic!("{first:?}");
    };
    assert_eq!(store.apply(&run("a")).await, Ok(first));
    let coalesced = Answer::Ran(build, RunResult::Coalesced);
    assert_eq!(store.apply(&run("b")).await, Ok(coalesced));
    let project = store.projects().await.unwrap().remove(0);
    assert_eq!((project.name.as_str(), project.unfinished), ("camera", 1));
    assert_eq!(project.schedules, std::slice::from_ref(&name));
    let lease = claim(&store, build, 0).await;
    finish(&store, lease, Outcome::Success).await;
    let Ok(Answer::Ran(second, RunResult::Submitted)) = store.apply(&run("c")).await else {
        panic!("no second build");
    };
    let lease = claim(&store, second, 0).await;
    finish(&store, lease, Outcome::Error).await;
    let project = store.projects().await.unwrap().remove(0);
    assert_eq!(project.unfinished, 0);
    assert_eq!(project.last.as_ref().map(|it| it.build), Some(second));
    assert_eq!(project.good().map(|it| it.build), Some(build));
    let pause = Operation::PauseSchedule(name.clone(), true);
    assert_eq!(store.apply(&pause).await, Ok(Answer::Done));
    let shown = store.schedule(&name).await.unwrap().unwrap();
    assert!(shown.is_paused && shown.next.is_none(), "{shown:?}");
    assert_eq!(shown.schedule, once);
    let remove = Operation::RemoveSchedule(name.clone());
    assert_eq!(store.apply(&remove).await, Ok(Answer::Done));
    assert_eq!(store.schedule(&name).await.unwrap(), None);
}
