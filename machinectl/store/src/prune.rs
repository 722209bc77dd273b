//! Old revisions: which are kept, which go, and going back to one.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use config::layout::Entry;
use config::{MachineName, Revision};

use crate::clean::Step;
use crate::error::IoContext;
use crate::{
    Change, LockRefusal, MachineRefusal, MachineView, Result, RevisionView, StoreError, Volume,
};
use sys::command;

/// How long we wait for the space of what was deleted.
const RECLAIM_MAX: Duration = Duration::from_mins(1);

/// Which revisions may go. The current one and pinned ones never do, nor what an
/// image or a snapshot in use was made from, nor what somebody reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// How many of the newest complete revisions of a machine stay.
    pub keep: usize,
    /// Those that were made after this stay.
    pub made_before: Option<SystemTime>,
    /// Enough free space, in bytes: nothing goes when there is so much.
    pub until_free: Option<u64>,
}

/// Which revisions go, the oldest first. Thinks only.
pub fn plan<'v>(
    views: impl IntoIterator<Item = &'v MachineView>,
    rule: &Rule,
) -> Vec<(MachineName, Revision)> {
    let mut chosen = Vec::new();
    for view in views {
        for old in old(view, rule).filter(|it| use_of(view, it).is_none()) {
            chosen.push((old.subvolume.created, view.name.clone(), old.revision));
        }
    }
    chosen.sort();
    chosen
        .into_iter()
        .map(|(_, machine, revision)| (machine, revision))
        .collect()
}

/// What keeps an old revision from going now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// An image that serves, or a snapshot in use, was made from it.
    Origin,
    /// Somebody reads it.
    Read,
}

/// Old revisions that stay only because they are used. Thinks only.
pub fn spared(view: &MachineView, rule: &Rule) -> Vec<(Revision, Use)> {
    let used = old(view, rule).filter_map(|it| Some((it.revision, use_of(view, it)?)));
    used.collect()
}

/// The revisions that a rule lets go, if nobody uses them.
fn old<'v>(view: &'v MachineView, rule: &Rule) -> impl Iterator<Item = &'v RevisionView> {
    let live = view.is_live();
    let complete: Vec<_> = view.revisions.iter().filter(|it| it.complete).collect();
    let count = complete.len().saturating_sub(rule.keep);
    let rule = *rule;
    complete.into_iter().take(count).filter(move |it| {
        let young = |limit| it.subvolume.created >= limit;
        let kept = view.current == Some(it.revision) || view.pins.contains(&it.revision);
        live && !kept && !rule.made_before.is_some_and(young)
    })
}

fn use_of(view: &MachineView, revision: &RevisionView) -> Option<Use> {
    if view.held.contains(&revision.revision) {
        Some(Use::Read)
    } else {
        view.origins.contains(&revision.uuid).then_some(Use::Origin)
    }
}

/// What pruning came to.
#[derive(Debug, Default)]
pub struct Pruned {
    /// What went.
    pub done: Vec<(MachineName, Revision)>,
    /// What stays, because an image that serves or a build was made from it.
    pub origins: Vec<(MachineName, Revision)>,
    /// What did not go, and why; a revision that is being sent, for example.
    pub failed: Vec<(MachineName, Revision, StoreError)>,
}

impl Volume {
    /// Deletes the revisions of all `machines` that a rule lets go. One that cannot
    /// be deleted does not stop the rest.
    ///
    /// # Errors
    /// When the machines cannot be looked at, or free space cannot be measured.
    pub fn prune(&self, machines: &[MachineName], rule: &Rule) -> Result<Pruned> {
        let views: Vec<_> = machines
            .iter()
            .map(|name| self.look(name))
            .collect::<Result<_>>()?;
        let mut pruned = self.prune_these(&plan(&views, rule), rule)?;
        for view in &views {
            for (revision, used) in spared(view, rule) {
                let machine = view.name.clone();
                if used == Use::Origin {
                    pruned.origins.push((machine, revision));
                    continue;
                }
                let path = self.entry(&machine, &Entry::Revision(revision));
                let error = LockRefusal::in_use(&path).into();
                pruned.failed.push((machine, revision, error));
            }
        }
        Ok(pruned)
    }

    /// Deletes those of the chosen revisions that a rule still lets go, in order. One
    /// that cannot be deleted does not stop the rest.
    ///
    /// # Errors
    /// When free space cannot be measured, or the file system cannot commit.
    pub fn prune_these(&self, chosen: &[(MachineName, Revision)], rule: &Rule) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        if rule.until_free.is_some() {
            // Space that somebody has just given back is seen from now on.
            self.commit()?;
        }
        for (machine, revision) in chosen {
            if let Some(wanted) = rule.until_free
                && self.free()? >= wanted
            {
                break;
            }
            let (machine, revision) = (machine.clone(), *revision);
            match self.prune_one(&machine, revision, rule) {
                Ok(Change::Changed) => pruned.done.push((machine, revision)),
                Ok(Change::Unchanged) => continue,
                Err(error) => {
                    pruned.failed.push((machine, revision, error));
                    continue;
                }
            }
            if rule.until_free.is_some() {
                self.reclaim()?;
            }
        }
        if !pruned.done.is_empty() {
            self.commit()?;
        }
        Ok(pruned)
    }

    /// Deletes one revision, if the rule still lets it go under the lock.
    fn prune_one(&self, machine: &MachineName, revision: Revision, rule: &Rule) -> Result<Change> {
        let _lock = self.lock(machine)?;
        let view = self.look(machine)?;
        if !plan([&view], rule).contains(&(machine.clone(), revision)) {
            return Ok(Change::Unchanged);
        }
        self.act(machine, &Step::Delete(Entry::Revision(revision)))?;
        Ok(Change::Changed)
    }

    /// Waits, within limits, until the space of what was deleted can be used again.
    /// It shows only after one more commit.
    ///
    /// # Errors
    /// When the file system cannot commit.
    pub fn reclaim(&self) -> Result<()> {
        self.commit()?;
        let mut sync = command::prepare("btrfs");
        sync.args(["subvolume", "sync"]).arg(&*self.path);
        // Whatever keeps a deleted subvolume open keeps its space; that is no error.
        let begun = Instant::now();
        match command::run(sync, RECLAIM_MAX) {
            Ok(_) | Err(command::CommandError::TimedOut { .. }) => {}
            Err(error) if begun.elapsed() < RECLAIM_MAX => return Err(error.into()),
            Err(_) => {}
        }
        self.commit()
    }

    /// Makes an older revision current again: the given one, or the newest complete
    /// one before the current one.
    ///
    /// # Errors
    /// When there is none.
    pub fn roll_back(&self, machine: &MachineName, to: Option<Revision>) -> Result<Revision> {
        let target = self.plan_roll_back(machine, to)?;
        self.set_current(machine, target)?;
        Ok(target)
    }

    /// Where [`Volume::roll_back`] would lead.
    ///
    /// # Errors
    /// When there is no such revision.
    pub fn plan_roll_back(&self, machine: &MachineName, to: Option<Revision>) -> Result<Revision> {
        let view = self.look(machine)?;
        let mut complete = view
            .revisions
            .iter()
            .filter(|it| it.complete)
            .map(|it| it.revision);
        match to {
            Some(to) if complete.any(|it| it == to) => Ok(to),
            Some(to) => Err(MachineRefusal::NoRevision(machine.clone(), to).into()),
            None => {
                let current = view.need_current()?.revision;
                let older = complete.rfind(|it| *it < current);
                older
                    .ok_or_else(|| MachineRefusal::NoOlderRevision(machine.clone(), current).into())
            }
        }
    }

    /// Keeps a revision from being pruned.
    ///
    /// # Errors
    /// When it is not there or not complete.
    pub fn pin(&self, machine: &MachineName, revision: Revision) -> Result<Change> {
        let _lock = self.lock(machine)?;
        let view = self.look(machine)?;
        if !view.revision(revision).is_some_and(|it| it.complete) {
            return Err(MachineRefusal::NoRevision(machine.clone(), revision).into());
        }
        if view.pins.contains(&revision) {
            return Ok(Change::Unchanged);
        }
        let pin = self.entry(machine, &Entry::Pin(revision));
        let target = Entry::Revision(revision).name(machine);
        self.backend
            .link(Path::new(&target), &pin)
            .context("make the link", &pin)?;
        self.commit()?;
        Ok(Change::Changed)
    }

    /// Lets a revision be pruned again.
    ///
    /// # Errors
    /// When the machine is not there or locked for too long.
    pub fn unpin(&self, machine: &MachineName, revision: Revision) -> Result<Change> {
        let _lock = self.lock(machine)?;
        let pin = self.entry(machine, &Entry::Pin(revision));
        let change = self.backend.unlink(&pin).context("remove", &pin)?;
        self.commit()?;
        Ok(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RevisionView, Subvolume, Uuid};

    fn view(name: &str, complete: &[bool], current: u32, pins: &[u32]) -> MachineView {
        let mut view = MachineView::new(name.parse().unwrap());
        for (number, complete) in (1..).zip(complete) {
            let subvolume = Subvolume {
                uuid: Uuid::nil(),
                parent_uuid: None,
                received_uuid: None,
                transaction: 0,
                read_only: *complete,
                created: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(number)),
            };
            view.revisions.push(RevisionView {
                revision: Revision(number),
                uuid: subvolume.uuid,
                received_uuid: None,
                complete: *complete,
                subvolume,
            });
        }
        view.current = Some(Revision(current));
        view.pins = pins.iter().map(|pin| Revision(*pin)).collect();
        view
    }

    fn numbers(views: &[MachineView], keep: usize, before: Option<u64>) -> Vec<(String, u32)> {
        let made_before = before.map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        let rule = Rule {
            keep,
            made_before,
            until_free: None,
        };
        let plan = plan(views, &rule).into_iter();
        plan.map(|(machine, revision)| (machine.to_string(), revision.0))
            .collect()
    }

    #[test]
    fn the_oldest_go_and_the_current_and_the_pinned_stay() {
        let whole = [true; 5];
        let a = |numbers: &[u32]| {
            numbers
                .iter()
                .map(|it| ("a".to_owned(), *it))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            numbers(&[view("a", &whole, 5, &[])], 2, None),
            a(&[1, 2, 3])
        );
        assert_eq!(numbers(&[view("a", &whole, 1, &[3])], 2, None), a(&[2]));
        assert_eq!(
            numbers(&[view("a", &whole, 5, &[])], 0, None),
            a(&[1, 2, 3, 4])
        );
        assert_eq!(numbers(&[view("a", &whole, 5, &[])], 9, None), a(&[]));
        assert_eq!(
            numbers(&[view("a", &whole, 5, &[])], 1, Some(3)),
            a(&[1, 2])
        );
        // Half ones are nobody's keepsake: the clean-up takes them.
        let half = [true, true, false, true, true];
        assert_eq!(numbers(&[view("a", &half, 5, &[])], 2, None), a(&[1, 2]));
    }

    #[test]
    fn the_oldest_of_all_machines_goes_first() {
        let views = [view("b", &[true; 3], 3, &[]), view("a", &[true; 3], 3, &[])];
        let order = [("a", 1), ("b", 1), ("a", 2), ("b", 2)];
        let order: Vec<_> = order
            .iter()
            .map(|(name, it)| ((*name).to_owned(), *it))
            .collect();
        assert_eq!(numbers(&views, 1, None), order);
    }

    #[test]
    fn a_machine_out_of_service_is_left_alone() {
        let mut broken = view("a", &[true; 3], 3, &[]);
        broken.current = None;
        assert!(numbers(&[broken], 0, None).is_empty());
    }
}
