//! The contents of revisions: those that are published, and those that people put on hosts by hand.

use config::MachineName;
use config::task::Digest;
use farm_core::host::Input;
use farm_core::operation::{Answer, Operation};

use super::{Event, Host, TERMS, World};

/// Returns the content of a revision: the first one that was made, or another one.
pub(super) fn content(revision: u64, is_other: bool) -> Digest {
    let mut bytes = [u8::from(is_other); 32];
    bytes[..8].copy_from_slice(&revision.to_le_bytes());
    Digest::from(bytes)
}

impl World {
    /// Puts other content under the number of a host's revision, or makes it unknown. The operator notices
    /// after a time. The last copy of a revision is left alone: nobody could fetch it any more.
    pub(super) fn tamper(&mut self, host: usize) {
        let machine = self.rng.usize(0..self.client.machines().len());
        let machine = self.client.machines()[machine].clone();
        let is_known = self.rng.bool();
        let it = &self.hosts[host];
        let Some(revision) = it.revisions.get(&machine).copied() else {
            return;
        };
        let (all, own) = (&self.hosts, content(revision.0, false));
        let has_copy = |(number, it): (usize, &Host)| {
            number != host && !it.is_lost && it.contents.get(&machine) == Some(&own)
        };
        if !all.iter().enumerate().take(2).any(has_copy) {
            return;
        }
        let it = &mut self.hosts[host];
        if is_known {
            it.contents
                .insert(machine.clone(), content(revision.0, true));
        } else {
            it.contents.remove(&machine);
        }
        self.say(|| {
            format!(
                "FAULT host {host}: other content of {machine} {}",
                revision.0
            )
        });
        let delay = self.rng.u64(100..4 * TERMS.lease_ms);
        self.after(delay, Event::Mend(host, machine));
    }

    /// Deletes a machine of a host whose content is not the published one, as its operator is told.
    pub(super) fn mend(&mut self, host: usize, machine: MachineName) {
        if self.hosts[host]
            .trials
            .get(&machine)
            .is_some_and(|it| it.is_open)
        {
            // It may have the only copy of the revision on trial.
            return self.after(1_000, Event::Mend(host, machine));
        }
        let published = self.tables.published.get(&machine);
        let it = &mut self.hosts[host];
        let has = it.contents.get(&machine);
        if published.is_none_or(|published| published.content.as_ref() == has) {
            return;
        }
        it.revisions.remove(&machine);
        it.contents.remove(&machine);
        it.trials.remove(&machine);
        it.shelf.retain(|(it, _)| *it != machine);
        let process = it.process;
        self.ghosts.deleted(host, &machine);
        self.say(|| format!("host {host}: machine {machine} is deleted"));
        self.after(0, Event::HostInput(host, process, Input::Removed(machine)));
    }

    /// Checks that the builds of a published revision have one content.
    pub(super) fn check_contents(&mut self, operation: &Operation, answer: &Answer) {
        let (Operation::Claim { picks, .. }, Answer::Claimed(grants)) = (operation, answer) else {
            return;
        };
        for grant in grants {
            let machine = &grant.requirements.machine;
            let pick = picks.iter().find(|it| it.build == grant.lease.build);
            let Some(pick) = pick.filter(|_| self.tables.published.contains_key(machine)) else {
                continue;
            };
            if pick.trial.is_none() && !self.ghosts.has_one_content(machine, pick) {
                let lease = grant.lease;
                self.violate(format!(
                    "two builds of one published revision have the same content: {lease}"
                ));
            }
        }
    }
}
