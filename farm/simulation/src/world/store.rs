//! The store: one transaction at a time, whose answer may get lost.

use config::task::Digest;
use farm_core::HostId;
use farm_core::messages::Report;
use farm_core::operation::{Answer, Operation, Pick};
use farm_core::schedules::Occasion;

use super::trials::break_trials;
use super::{Call, Event, World};
use crate::Bug;
use crate::tables::{BuildRecord, ScheduleRecord, State, Tables, time};

impl World {
    pub(super) fn store_operation(&mut self, call: Call, operation: &Operation) {
        if self.store_down_until > self.now {
            return;
        }
        let now = self.store_clock();
        let before = self.before();
        let answer = self.apply_planted(now, operation.clone());
        let is_read = matches!(
            operation,
            Operation::Hosts
                | Operation::Candidates { .. }
                | Operation::Schedules
                | Operation::Trials
                | Operation::TakeUploads { .. }
        );
        if !is_read {
            self.say(|| format!("store: {operation:?} -> {answer:?}"));
        }
        self.committed(&before, operation, &answer);
        if let Some(delay) = self.transit() {
            self.after(delay, Event::Answer(call, answer));
        }
    }

    /// Executes an operation with the planted bug of the store.
    fn apply_planted(&mut self, now: u64, mut operation: Operation) -> Answer {
        let tables = &mut self.tables;
        let Some(bug) = self.bug else {
            return tables.apply(now, operation);
        };
        let before = tables.clone();
        break_before(bug, now, tables, &mut operation);
        let mut answer = tables.apply(now, operation.clone());
        break_after(bug, &before, tables, &operation, &mut answer);
        if let Answer::Beats(answers) = &mut answer {
            self.ghosts.break_beats(bug, &operation, answers);
        }
        answer
    }
}

/// Changes an operation, or what it sees, as a bug would.
fn break_before(bug: Bug, now: u64, tables: &mut Tables, operation: &mut Operation) {
    match (bug, operation) {
        (Bug::FinishIgnoresEpoch, Operation::Finish(_, Report { lease, .. })) => {
            if let Some(build) = tables.builds.get(&lease.build) {
                lease.epoch = build.epoch;
            }
        }
        (Bug::FailureOnTrialIsFinal, Operation::Finish(_, Report { lease, .. })) => {
            if let Some(build) = tables.builds.get_mut(&lease.build) {
                build.trial = None;
            }
        }
        (Bug::FinishIgnoresHost, Operation::Finish(host, Report { lease, .. })) => {
            let owner = tables.builds.get(&lease.build).and_then(|it| it.host);
            *host = owner.unwrap_or(*host);
        }
        (Bug::FinishOverwrites, Operation::Finish(host, Report { lease, .. })) => {
            if let Some(build) = tables.builds.get_mut(&lease.build) {
                (build.epoch, build.host) = (lease.epoch, Some(*host));
                build.state = State::Leased(now);
            }
        }
        (Bug::ClaimIgnoresBeat, Operation::Claim { host, beat, .. })
        | (Bug::RescueIgnoresBeat, Operation::Rescue { host, beat, .. }) => {
            *beat = tables.hosts[host].beat;
        }
        (Bug::UnusedIsLost, Operation::Release { is_unused, .. }) => *is_unused = false,
        (Bug::LostIsUnused, Operation::Release { is_unused, .. }) => *is_unused = true,
        (Bug::SubmitIgnoresKey, Operation::Submit(submission)) => {
            submission.key = format!("{}-{}", submission.key, tables.builds.len());
        }
        (Bug::PublishReplacesContent, Operation::Publish(machine, wanted)) => {
            if let Some(published) = tables.published.get_mut(machine)
                && published.revision == wanted.revision
            {
                published.content.clone_from(&wanted.content);
            }
        }
        (Bug::PublishLowers, Operation::Publish(machine, _)) => {
            tables.published.remove(machine);
        }
        (bug, Operation::Claim { host, picks, .. }) => break_claim(bug, tables, *host, picks),
        (bug, Operation::RunSchedule(name, occasion)) => {
            if let Some(record) = tables.schedules.get_mut(name) {
                break_run(bug, now, record, occasion);
            }
            if bug == Bug::RunIgnoresKey {
                let key = occasion.key(name);
                let same = tables
                    .builds
                    .values_mut()
                    .filter(|it| it.submission.key == key);
                same.for_each(|it| it.submission.key.push_str(" again"));
            }
        }
        _ => {}
    }
}

/// Changes a claim, or what it sees, as a bug would.
fn break_claim(bug: Bug, tables: &mut Tables, host: HostId, picks: &mut Vec<Pick>) {
    match bug {
        Bug::ClaimIgnoresState => {
            for pick in picks {
                if let Some(build) = tables.builds.get_mut(&pick.build)
                    && !matches!(build.state, State::Finished(..))
                {
                    (pick.epoch, build.state) = (build.epoch, State::Queued(0));
                }
            }
        }
        Bug::ContentIsIgnored => {
            for pick in picks {
                let build = tables.builds.get(&pick.build);
                let machine = build.map(|it| &it.submission.requirements.machine);
                if let Some(published) = machine.and_then(|it| tables.published.get_mut(it)) {
                    // Any content is right for one that has none.
                    published.content = None;
                }
            }
        }
        Bug::ClaimIgnoresDrain => {
            tables.hosts.entry(host).or_default().drained = false;
        }
        Bug::ClaimIgnoresWindows => {
            tables.hosts.entry(host).or_default().windows.clear();
        }
        Bug::ClaimIgnoresTrialEnd => {
            for record in tables.trials.values_mut() {
                record.trial.end = None;
            }
        }
        Bug::ClaimIgnoresRevision => tables.published.clear(),
        _ => {}
    }
}

/// Changes the run of a schedule, or the schedule that it sees, as a bug would.
fn break_run(bug: Bug, now: u64, record: &mut ScheduleRecord, occasion: &mut Occasion) {
    let current = record.row();
    match (bug, occasion) {
        (Bug::RunIgnoresMark, Occasion::Due { read, .. }) => **read = current,
        (Bug::RunIgnoresPause, _) => record.paused = false,
        (Bug::RunForgetsUnfinished, _) => record.last_build = None,
        (Bug::RunSkipsTimes, Occasion::Due { until, .. }) => *until = time(now),
        _ => {}
    }
}

/// Changes the effect of an operation or its answer, as a bug would.
fn break_after(
    bug: Bug,
    before: &Tables,
    tables: &mut Tables,
    operation: &Operation,
    answer: &mut Answer,
) {
    match (bug, operation, answer) {
        (Bug::ClaimKeepsEpoch, _, Answer::Claimed(grants)) => {
            for grant in grants {
                grant.lease.epoch.0 = 1;
                if let Some(build) = tables.builds.get_mut(&grant.lease.build) {
                    build.epoch.0 = 1;
                }
            }
        }
        (Bug::ContentIsIgnored, _, Answer::Beats(answers)) => {
            for answer in answers {
                if let Answer::Beaten { published, .. } = answer {
                    for row in published.values_mut() {
                        row.content = None;
                    }
                }
            }
        }
        (Bug::SourceExpiresInUse, Operation::Expire(age_ms), Answer::Expired(digests)) => {
            expire_in_use(before, tables, *age_ms, digests);
        }
        (Bug::ScheduleSourceExpires, Operation::Expire(age_ms), Answer::Expired(digests)) => {
            expire_scheduled(before, tables, *age_ms, digests);
        }
        (Bug::RunLosesBuild, Operation::RunSchedule(..), Answer::Ran(build, _)) => {
            let is_new = !before.builds.contains_key(build);
            if is_new {
                tables.builds.remove(build);
            }
        }
        (Bug::RunIgnoresPause, Operation::RunSchedule(name, _), _) => {
            let was_paused = before.schedules.get(name).is_some_and(|it| it.paused);
            if let Some(record) = tables.schedules.get_mut(name) {
                record.paused = was_paused;
            }
        }
        (Bug::LossIsNotCounted, ..) => {
            for build in tables.builds.values_mut() {
                build.losses = 0;
            }
        }
        (Bug::CancelForgets, Operation::Cancel(build), _) => {
            if let Some(build) = tables.builds.get_mut(build) {
                build.canceled = false;
            }
        }
        (Bug::ClaimIgnoresWindows, Operation::Claim { host, .. }, _) => {
            let windows = before.hosts[host].windows.clone();
            tables.hosts.entry(*host).or_default().windows = windows;
        }
        (Bug::FinishMissesUpload, Operation::Finish(_, Report { lease, .. }), Answer::Recorded) => {
            tables.uploads.remove(&lease.build);
        }
        (Bug::UploadIsForgotten, _, Answer::Uploads(uploads)) => {
            for upload in uploads {
                tables.uploads.remove(&upload.lease.build);
            }
        }
        (Bug::ClaimIgnoresDrain, Operation::Claim { host, .. }, _) => {
            tables.hosts.entry(*host).or_default().drained = before.hosts[host].drained;
        }
        (Bug::ClaimIgnoresRevision | Bug::ContentIsIgnored, Operation::Claim { .. }, _) => {
            tables.published.clone_from(&before.published);
        }
        (bug, operation, answer) => break_trials(bug, before, tables, operation, answer),
    }
}

/// Forgets old sources, also those that builds need.
fn expire_in_use(before: &Tables, tables: &mut Tables, age_ms: u64, digests: &mut Vec<Digest>) {
    let now = before.sources.values().copied().max().unwrap_or_default();
    let old = |used: &u64| now.saturating_sub(*used) > age_ms;
    digests.extend(
        before
            .sources
            .iter()
            .filter(|(_, it)| old(it))
            .map(|(it, _)| it.clone()),
    );
    tables.sources.retain(|digest, _| !digests.contains(digest));
}

/// Forgets old sources, also those that schedules need; those of builds stay.
fn expire_scheduled(before: &Tables, tables: &mut Tables, age_ms: u64, digests: &mut Vec<Digest>) {
    expire_in_use(before, tables, age_ms, digests);
    let builds = before.builds.values();
    let unfinished = builds.filter(|it| !matches!(it.state, State::Finished(..)));
    for digest in unfinished.flat_map(BuildRecord::digests) {
        if let Some(used) = before.sources.get(&digest) {
            tables.sources.insert(digest.clone(), *used);
            digests.retain(|it| *it != digest);
        }
    }
}
