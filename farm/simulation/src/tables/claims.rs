//! Claims, results and rescues: the transactions that move a build.

use config::builds::Submitter;
use config::task::Outcome;
use farm_core::messages::Report;
use farm_core::operation::{Answer, Pick};
use farm_core::{Epoch, HostId, Lease, Published, Standing};

use super::{
    BuildRecord, DAY_MS, DOUBLINGS_MAX, RETRY_MS, RunRecord, State, Tables, grant, is_due,
};

impl Tables {
    pub(super) fn claim(&mut self, now: u64, host: HostId, beat: u64, picks: &[Pick]) -> Answer {
        let Some(record) = self.hosts.get_mut(&host) else {
            return Answer::NotFound;
        };
        if record.beat != beat || record.takes_nothing(now) {
            return Answer::Overtaken;
        }
        record.beat += 1;
        let mut claimed = Vec::new();
        for pick in picks {
            let is_right = self.is_right(pick);
            let Some(build) = self.builds.get_mut(&pick.build) else {
                continue;
            };
            let State::Queued(not_before) = build.state else {
                continue;
            };
            if build.epoch != pick.epoch || !is_due(not_before, now) || !is_right {
                continue;
            }
            build.epoch = Epoch(build.epoch.0 + 1);
            build.state = State::Leased(now);
            build.claimed_at = now;
            build.host = Some(host);
            build.revision = pick.revision;
            build.charged_ms = pick.charge_ms;
            build.trial = pick.trial;
            build.tried |= pick.trial.is_some();
            if let Some(trial) = pick.trial {
                let run = RunRecord {
                    trial,
                    epoch: build.epoch,
                    host,
                    failure: None,
                };
                self.runs.insert(pick.build, run);
            }
            claimed.push(grant(pick.build, build));
            let submitter = build.submission.submitter.clone();
            self.charge(now, submitter, pick.charge_ms.cast_signed());
        }
        Answer::Claimed(claimed)
    }

    /// Returns true if the revision of a pick is the published one, or the candidate of its trial.
    fn is_right(&self, pick: &Pick) -> bool {
        let Some(build) = self.builds.get(&pick.build) else {
            return false;
        };
        if let Some(number) = pick.trial {
            let on = Published {
                revision: pick.revision,
                content: pick.content.clone(),
            };
            return self.may_try(build, number, &on);
        }
        let published = self.published.get(&build.submission.requirements.machine);
        published
            .is_none_or(|it| it.standing(pick.revision, pick.content.as_ref()) == Standing::Current)
    }

    pub(super) fn finish(&mut self, now: u64, host: HostId, report: &Report) -> Answer {
        let (lease, mut outcome) = (report.lease, report.outcome);
        if self.has_failed_on_trial(host, lease) {
            return Answer::Recorded;
        }
        let Some(build) = self.builds.get_mut(&lease.build) else {
            return Answer::Stale;
        };
        if build.epoch != lease.epoch || build.host != Some(host) {
            return Answer::Stale;
        }
        let used = match build.state {
            State::Finished(_, Some(by)) if by == (host, lease.epoch) => return Answer::Recorded,
            State::Finished(..) => return Answer::Stale,
            // Its host was given up, but nobody else has started the build.
            State::Queued(_) => 0,
            State::Leased(since) => {
                now.saturating_sub(since).cast_signed() - build.charged_ms.cast_signed()
            }
        };
        if build.trial.is_some() && !outcome.is_good() {
            if !build.canceled {
                return self.failed(now, lease, outcome);
            }
            outcome = Outcome::Abort;
        }
        build.state = State::Finished(outcome, Some((host, lease.epoch)));
        build.finished_at = now;
        let submitter = build.submission.submitter.clone();
        self.charge(now, submitter, used);
        self.add_upload(now, host, lease);
        Answer::Recorded
    }

    /// Notes a failure on trial, for which its submitter is not charged.
    fn failed(&mut self, now: u64, lease: Lease, outcome: Outcome) -> Answer {
        let build = &self.builds[&lease.build];
        let refund = match build.state {
            State::Leased(_) => -build.charged_ms.cast_signed(),
            State::Queued(_) | State::Finished(..) => 0,
        };
        let submitter = build.submission.submitter.clone();
        self.charge(now, submitter, refund);
        self.fail_on_trial(lease, outcome);
        Answer::Recorded
    }

    pub(super) fn release(
        &mut self,
        now: u64,
        host: HostId,
        lease: Lease,
        is_unused: bool,
        attempts_max: u64,
    ) -> Answer {
        if self.has_failed_on_trial(host, lease) {
            return Answer::Recorded;
        }
        let Some(build) = self.builds.get_mut(&lease.build) else {
            return Answer::Stale;
        };
        if build.epoch != lease.epoch || build.host != Some(host) {
            return Answer::Stale;
        }
        match build.state {
            State::Finished(..) => return Answer::Stale,
            State::Queued(_) => {}
            State::Leased(_) if is_unused => {
                if build.trial.take().is_some() {
                    build.tried = false;
                    self.runs.remove(&lease.build);
                }
                build.give_back(now);
            }
            State::Leased(_) if build.trial.is_some() && !build.canceled => {
                return self.failed(now, lease, Outcome::Abnormal);
            }
            State::Leased(_) => build.lose(now, attempts_max),
        }
        Answer::Recorded
    }

    pub(super) fn rescue(
        &mut self,
        now: u64,
        host: HostId,
        beat: u64,
        attempts_max: u64,
    ) -> Answer {
        let Some(record) = self.hosts.get_mut(&host).filter(|it| it.beat == beat) else {
            return Answer::Rescued(Vec::new());
        };
        record.beat += 1;
        let mut rescued = Vec::new();
        for (id, build) in &mut self.builds {
            if build.host == Some(host) && matches!(build.state, State::Leased(_)) {
                build.lose(now, attempts_max);
                rescued.push(Lease {
                    build: *id,
                    epoch: build.epoch,
                });
            }
        }
        Answer::Rescued(rescued)
    }

    /// Adds to the use of a submitter.
    fn charge(&mut self, now: u64, submitter: Submitter, used_ms: i64) {
        *self.used_ms.entry((submitter, now / DAY_MS)).or_default() += used_ms;
    }
}

impl BuildRecord {
    /// Takes a lease away that was not used. The build returns to the queue, unless it was canceled.
    fn give_back(&mut self, now: u64) {
        self.state = if self.canceled {
            State::Finished(Outcome::Abort, None)
        } else {
            State::Queued(now + (RETRY_MS << (self.epoch.0 - 1).min(DOUBLINGS_MAX)))
        };
    }

    /// Takes the lease away. The build returns to the queue, unless it was canceled or lost too often.
    fn lose(&mut self, now: u64, attempts_max: u64) {
        self.losses += 1;
        self.state = if self.canceled {
            State::Finished(Outcome::Abort, None)
        } else if self.losses >= attempts_max {
            State::Finished(Outcome::Abnormal, None)
        } else {
            let pause = RETRY_MS << (self.losses - 1).min(DOUBLINGS_MAX);
            State::Queued(now + pause)
        };
    }
}
