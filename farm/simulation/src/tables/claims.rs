//! Claims, results and rescues: the transactions that move a build.

use config::builds::Submitter;
use config::task::Outcome;
use farm_core::messages::Report;
use farm_core::operation::{Answer, Pick};
use farm_core::{Epoch, HostId, Lease, Standing};

use super::{BuildRecord, DAY_MS, DOUBLINGS_MAX, RETRY_MS, State, Tables, grant, is_due};

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
            let Some(build) = self.builds.get_mut(&pick.build) else {
                continue;
            };
            let machine = &build.submission.requirements.machine;
            let published = self.published.get(machine);
            let is_current = published.is_none_or(|it| {
                it.standing(pick.revision, pick.content.as_ref()) == Standing::Current
            });
            let State::Queued(not_before) = build.state else {
                continue;
            };
            if build.epoch != pick.epoch || !is_due(not_before, now) || !is_current {
                continue;
            }
            build.epoch = Epoch(build.epoch.0 + 1);
            build.state = State::Leased(now);
            build.claimed_at = now;
            build.host = Some(host);
            build.revision = pick.revision;
            build.charged_ms = pick.charge_ms;
            claimed.push(grant(pick.build, build));
            let submitter = build.submission.submitter.clone();
            self.charge(now, submitter, pick.charge_ms.cast_signed());
        }
        Answer::Claimed(claimed)
    }

    pub(super) fn finish(&mut self, now: u64, host: HostId, report: &Report) -> Answer {
        let (lease, outcome) = (report.lease, report.outcome);
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
        build.state = State::Finished(outcome, Some((host, lease.epoch)));
        build.finished_at = now;
        let submitter = build.submission.submitter.clone();
        self.charge(now, submitter, used);
        self.add_upload(now, host, lease);
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
        let Some(build) = self.builds.get_mut(&lease.build) else {
            return Answer::Stale;
        };
        if build.epoch != lease.epoch || build.host != Some(host) {
            return Answer::Stale;
        }
        match build.state {
            State::Finished(..) => return Answer::Stale,
            State::Queued(_) => {}
            State::Leased(_) if is_unused => build.give_back(now),
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
