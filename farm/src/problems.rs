//! The problems of a farm, of which the rules for notifications are told: one look at the database.

use config::BuildId;
use config::notify::{FarmProblem, Problem, ProblemId};
use farm_core::site::{HostState, Site};
use farm_core::view::{HostView, ScheduleView, unlike_machines};
use farm_store::{StoreError, Uploads};
use jiff::Timestamp;

use crate::coordinator::Coordinator;
use crate::view;

/// The seconds by which a run of a schedule may be late.
const LATE_SECONDS: i64 = 60;
/// The seconds for which files of a build may wait for the object store.
const UPLOAD_SECONDS: u64 = 3_600;

/// The farm, as far as its problems are in it.
#[derive(Debug)]
pub(crate) struct FarmLook {
    /// The time of the database.
    pub(crate) now: Timestamp,
    /// The hosts that are silent, or have something else than what is published.
    hosts: Vec<HostView>,
    schedules: Vec<ScheduleView>,
    uploads: Uploads,
    /// The number of builds that wait for lost sources, and the first of them.
    sourceless: Option<(u64, BuildId)>,
    /// The coordinators that give no sign of life, since a time.
    absent: Vec<(String, Timestamp)>,
}

impl FarmLook {
    /// Reads the farm.
    pub(crate) async fn take(coordinator: &Coordinator) -> Result<Self, StoreError> {
        let store = coordinator.store();
        let published = store.published().await?;
        let sites = view::sites(coordinator).await?;
        let is_troubled = |it: &&Site| match it.state {
            HostState::Silent => true,
            HostState::New | HostState::Revoked => false,
            _ => unlike_machines(&it.offer, &published).next().is_some(),
        };
        let troubled = sites.iter().filter(is_troubled);
        let troubled: Vec<_> = troubled.map(|it| it.name.as_str()).collect();
        Ok(Self {
            now: store.queue().await?.at,
            hosts: view::hosts_named(coordinator, &troubled).await?,
            schedules: store.schedules().await?,
            uploads: store.uploads().await?,
            sourceless: store.sourceless().await?,
            absent: store.absent_coordinators().await?,
        })
    }

    /// Returns the problems.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let hosts = self.hosts.iter().flat_map(|it| self.of_host(it));
        let schedules = self.schedules.iter().filter_map(|it| self.late(it));
        let absent = self.absent.iter().map(|(url, seen)| gone(url, *seen));
        let farm = [self.uploads(), self.sources()].into_iter().flatten();
        hosts.chain(schedules).chain(absent).chain(farm).collect()
    }

    /// Returns the problems of a host. One that is drained or in maintenance may be away.
    fn of_host(&self, host: &HostView) -> impl Iterator<Item = Problem> {
        let name = &host.name;
        let is_away = host.drained || host.open_window().is_some();
        let seen = host.seen.unwrap_or(self.now);
        let silent = (host.state() == HostState::Silent && !is_away).then(|| {
            let proof = format!("its last sign of life was at {seen}");
            let advice = format!(
                "look at its agent and its network; `buildhost-farm revoke {name}` if it does not come back"
            );
            problem(FarmProblem::HostSilent, name, proof, &advice, seen)
        });
        let has_other = !host.revoked && !host.unlike.is_empty();
        let other = has_other.then(|| {
            let machines = host.unlike.iter();
            let machines = machines.map(|(machine, reason)| format!("{machine}: {reason}"));
            let proof = machines.collect::<Vec<_>>().join("; ");
            let advice = "on that host, `buildhost record`, or `buildhost delete`, after which it fetches \
                          the published revision";
            problem(FarmProblem::HostContent, name, proof, advice, self.now)
        });
        silent.into_iter().chain(other)
    }

    fn late(&self, it: &ScheduleView) -> Option<Problem> {
        let due = it.next.filter(|_| !it.is_paused)?;
        let seconds = self.now.duration_since(due).as_secs();
        (seconds > LATE_SECONDS).then(|| {
            let name = it.schedule.name.as_str();
            let proof = format!("its time {due} has not run");
            let advice = "read the logs of the coordinators";
            problem(FarmProblem::ScheduleLate, name, proof, advice, due)
        })
    }

    fn uploads(&self) -> Option<Problem> {
        let Uploads {
            waiting,
            oldest_seconds,
        } = self.uploads;
        (oldest_seconds >= UPLOAD_SECONDS).then(|| {
            let minutes = oldest_seconds / 60;
            let proof = format!("the files of {waiting} builds wait, the oldest for {minutes} minutes");
            let advice = "`buildhost-farm check` examines the object store; the logs of the coordinators have \
                          the reasons";
            problem(FarmProblem::UploadsFailing, "", proof, advice, self.now)
        })
    }

    fn sources(&self) -> Option<Problem> {
        let (count, first) = self.sourceless?;
        let proof = format!("{count} builds wait, the first of them is build {first}");
        let advice = format!(
            "start the coordinator that has the sources, or submit the same files again; `buildhost explain \
             {first}` names the source"
        );
        Some(problem(
            FarmProblem::SourcesLost,
            "",
            proof,
            &advice,
            self.now,
        ))
    }
}

fn gone(url: &str, seen: Timestamp) -> Problem {
    let proof = format!("its last sign of life was at {seen}");
    let advice =
        "start it again, or delete its row in the table `coordinators` if it does not come back";
    problem(FarmProblem::CoordinatorGone, url, proof, advice, seen)
}

fn problem(
    kind: FarmProblem,
    subject: &str,
    proof: String,
    advice: &str,
    since: Timestamp,
) -> Problem {
    Problem {
        id: ProblemId::Farm(kind),
        subject: subject.to_owned(),
        proof,
        advice: advice.to_owned(),
        since,
    }
}
