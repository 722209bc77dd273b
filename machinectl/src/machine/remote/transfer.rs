//! The transfer of a revision between this host and a remote one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use config::{MachineName, Revision};
use store::send::{RemoteHost, RemoteView, common_parent};
use store::{Intent, MachineView, Source, Uuid, Volume};

use super::progress::Progress;
use crate::exit_code::{ExitStatus, Failure};
use crate::machine::ingest::{intent, report_no_manifest};
use crate::machine::retention::Retention;
use crate::options::DryRun;
use crate::output::{Output, mebibytes};

/// The two ends of a transfer.
#[derive(Clone, Copy)]
pub(super) struct Transfer<'a> {
    pub(super) volume: &'a Volume,
    pub(super) name: &'a MachineName,
    pub(super) remote: &'a RemoteHost,
    pub(super) retention: Retention,
    pub(super) output: &'a Output,
}

impl Transfer<'_> {
    /// Sends a revision to the remote host.
    pub(super) fn push(
        self,
        from: Option<&Path>,
        full: bool,
        dry_run: DryRun,
    ) -> Result<(), Failure> {
        let (name, output) = (self.name, self.output);
        let host = &self.remote.host;
        // The remote host is asked first: if it is unreachable, nothing changes here either.
        let remote = self.remote.view(name)?;
        if let Some(from) = from
            && !dry_run.enabled
        {
            self.create_next(from)?;
        }
        let (view, revision) = self.revision_to_send(from.filter(|_| dry_run.enabled))?;
        let known = remote
            .as_ref()
            .map(RemoteView::identities)
            .unwrap_or_default();
        let current = remote.as_ref().and_then(|remote| remote.current);
        let is_known = view
            .revision(revision)
            .is_some_and(|it| known.contains(&it.subvolume.stream_uuid()));
        if is_known && current == Some(revision) {
            output.status(format_args!(
                "{name}: revision {revision} is already current on {host}"
            ));
            return Ok(());
        }
        let known = if full { Vec::new() } else { known };
        let parent = common_parent(&view, revision, &known);
        let extent = extent(parent, remote.as_ref(), full);
        if dry_run.enabled {
            return self.plan_push(from, revision, &extent, &known);
        }
        output.status(format_args!("{name}: sending revision {revision} {extent}"));
        let intent = match current {
            Some(_) => Intent::Upgrade,
            None => Intent::Add,
        };
        self.send(revision, known, intent)?;
        output.status(format_args!(
            "{name}: revision {revision} is now current on {host}"
        ));
        if !self.volume.has_content_manifest(name, revision) {
            report_no_manifest(name, revision, "there", output);
        }
        Ok(())
    }

    /// Returns the current revision, or the one that would be created from a subvolume.
    fn revision_to_send(self, from: Option<&Path>) -> Result<(MachineView, Revision), Failure> {
        let name = self.name;
        if let Some(from) = from {
            let source = Source::WorkingSubvolume(from.to_owned());
            let plan = self
                .volume
                .plan_ingest(intent(self.volume, name), name, &source)?;
            let view = self.volume.view(name);
            let view = view.unwrap_or_else(|_| MachineView::new(name.clone()));
            return Ok((view, plan.revision));
        }
        let view = self.volume.view(name)?;
        if let Some(revision) = view.current {
            return Ok((view, revision));
        }
        let text = format!(
            "machine `{name}` is not in service here; `buildhost status {name}` shows the reason"
        );
        Err(Failure::new(ExitStatus::NotFound, text))
    }

    /// Creates the next revision, with its content manifest, from a working subvolume.
    fn create_next(self, from: &Path) -> Result<(), Failure> {
        let (name, output) = (self.name, self.output);
        let intent = intent(self.volume, name);
        let source = Source::WorkingSubvolume(from.to_owned());
        self.volume.plan_ingest(intent, name, &source)?;
        output.status(format_args!(
            "{name}: writing the content manifest of {}",
            from.display()
        ));
        let plan = self.volume.ingest(intent, name, source)?;
        output.status(format_args!(
            "{name}: revision {} is now current here",
            plan.revision
        ));
        Ok(())
    }

    fn plan_push(
        self,
        from: Option<&Path>,
        revision: Revision,
        extent: &str,
        known: &[Uuid],
    ) -> Result<(), Failure> {
        let (name, host, output) = (self.name, &self.remote.host, self.output);
        let mut size = String::new();
        if let Some(from) = from {
            let from = from.display();
            output.plan(format_args!(
                "create revision {revision} of {name} from {from}"
            ))?;
        } else if let Ok(bytes) = self.volume.estimate_size(name, Some(revision), known) {
            size = format!(", about {}", mebibytes(bytes));
        }
        output.plan(format_args!(
            "send revision {revision} of {name} to {host} {extent}{size}"
        ))?;
        if let Some(keep) = self.retention.keep {
            output.plan(format_args!(
                "keep the newest {keep} revisions of {name} on {host}"
            ))?;
        }
        Ok(())
    }

    fn send(self, revision: Revision, known: Vec<Uuid>, intent: Intent) -> Result<(), Failure> {
        let outgoing = self.volume.send(self.name, Some(revision), &known)?;
        let (volume, name) = (self.volume.clone(), self.name.clone());
        let progress = Progress::start(self.output, move || {
            volume.estimate_size(&name, Some(revision), &known).ok()
        });
        let mut passed = |bytes| progress.passed.store(bytes, Ordering::Relaxed);
        let keep = self.retention.keep;
        self.remote
            .ingest(intent, self.name, outgoing.stream, keep, &mut passed)?;
        Ok(())
    }

    /// Fetches the current revision of the remote host.
    pub(super) fn pull(self, dry_run: DryRun) -> Result<(), Failure> {
        let (name, output) = (self.name, self.output);
        let host = &self.remote.host;
        let remote = self.remote.view(name)?;
        let Some(revision) = remote.and_then(|remote| remote.current) else {
            let text = format!("machine `{name}` is not in service on {host}");
            return Err(Failure::new(ExitStatus::NotFound, text));
        };
        let here = self.volume.view(name).ok().and_then(|view| view.current);
        if let Some(current) = here
            && revision <= current
        {
            output.status(format_args!(
                "{name}: already up to date; revision {current} is current here, {revision} on {host}"
            ));
            return Ok(());
        }
        let known = self.volume.identities(name);
        if dry_run.enabled {
            let size = match self.remote.estimate_size(name, revision, &known) {
                Ok(bytes) => format!(", about {}", mebibytes(bytes)),
                Err(_) => String::new(),
            };
            output.plan(format_args!(
                "fetch revision {revision} of {name} from {host}{size}"
            ))?;
            return self.retention.plan(self.volume, name, revision, output);
        }
        self.fetch(revision, &known)?;
        output.status(format_args!("{name}: revision {revision} is now current"));
        if !self.volume.has_content_manifest(name, revision) {
            report_no_manifest(name, revision, "here", output);
        }
        self.retention.apply(self.volume, name, output);
        Ok(())
    }

    fn fetch(self, revision: Revision, known: &[Uuid]) -> Result<(), Failure> {
        let (name, remote, output) = (self.name, self.remote, self.output);
        let (host, machine, parents) = (remote.clone(), name.clone(), known.to_vec());
        let progress = Progress::start(output, move || {
            host.estimate_size(&machine, revision, &parents).ok()
        });
        let counter = Arc::clone(&progress.passed);
        let stream = remote.fetch(name, Some(revision), known, counter)?;
        let extent = if stream.header().parent.is_some() {
            "incrementally"
        } else {
            "in full"
        };
        output.status(format_args!(
            "{name}: fetching revision {revision} {extent}"
        ));
        let intent = intent(self.volume, name);
        let received = self.volume.ingest(intent, name, Source::Stream(stream));
        drop(progress);
        received?;
        Ok(())
    }
}

/// Describes how much of a revision is sent, with the reason if it is everything.
fn extent(parent: Option<Revision>, remote: Option<&RemoteView>, full: bool) -> String {
    let newest = remote.and_then(|remote| remote.revisions.last());
    let newest = match (parent, newest) {
        (Some(parent), _) => return format!("as the difference from revision {parent}"),
        (None, None) => return "in full".to_owned(),
        (None, Some(_)) if full => return "in full, as requested".to_owned(),
        (None, Some(newest)) => newest,
    };
    let number = newest.revision;
    let reason = if !newest.complete {
        format!("revision {number} there is writable: incomplete, or modified by hand")
    } else if newest.is_received() {
        "no revision there is identical to one here".to_owned()
    } else {
        format!("revision {number} there is not as received: created or modified by hand")
    };
    format!("in full, because {reason}")
}
