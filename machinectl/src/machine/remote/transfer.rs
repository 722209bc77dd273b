//! The transfer of a revision between this host and a remote one.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use config::{MachineName, Revision};
use store::ingest::PartialRevision;
use store::send::session::{Announcement, Greeting};
use store::send::{OutgoingStream, RemoteHost, RemoteRevision, RemoteSession, RemoteView};
use store::{ContentIdentity, IngestPlan, Intent, MachineView, Source, Uuid, Volume};

use crate::exit_code::{ExitStatus, Failure};
use crate::machine::ingest::{intent, report_no_manifest};
use crate::machine::retention::Retention;
use crate::options::DryRun;
use crate::output::{Output, Progress, mebibytes};

/// The identities of a machine's complete revisions here.
type Contents = BTreeMap<Revision, ContentIdentity>;

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
        let session = self.remote.connect(name, self.retention.keep)?;
        let remote = session.greeting().machine.clone();
        let newest = remote.as_ref().and_then(|it| it.revisions.last());
        let source = from.map(|from| Source::WorkingSubvolume {
            path: from.to_owned(),
            after: newest.map(|it| it.revision),
        });
        let revision = match source {
            Some(source) if dry_run.enabled => self.plan_next(&source)?.revision,
            Some(source) => self.create_next(source)?,
            None => self.current()?,
        };
        let here = self.volume.content_identities(&self.view());
        let current = remote.as_ref().and_then(|remote| remote.current);
        if let Some(current) = remote.as_ref().and_then(|it| it.revision(it.current?)) {
            self.report_unknown(revision, &here, current);
        }
        let there = remote.as_ref().and_then(|it| it.revision(revision));
        if let Some(there) = there {
            self.check_same_content(revision, &here, there)?;
            if current == Some(revision) {
                output.status(format_args!(
                    "{name}: revision {revision} is already current on {host}"
                ));
                return Ok(());
            }
        }
        let has_manifest = from.is_some() || self.volume.has_content_manifest(name, revision);
        let parent = if full {
            None
        } else {
            self.common_parent(&here, revision, remote.as_ref())
        };
        let extent = extent(parent.map(|it| it.0), &here, remote.as_ref(), full);
        let known: Vec<_> = parent.iter().map(|(_, it)| it.stream_uuid()).collect();
        if dry_run.enabled {
            return self.plan_push(from, revision, &extent, &known);
        }
        output.status(format_args!("{name}: sending revision {revision} {extent}"));
        let intent = match &remote {
            Some(remote) if remote.has_link() => Intent::Upgrade,
            _ => Intent::Add,
        };
        if let Some(fault) = remote.as_ref().and_then(|it| it.fault.as_ref()) {
            output.status(format_args!(
                "{name}: not in service on {host}: {fault}; revision {revision} replaces the link"
            ));
        }
        self.send(session, revision, &known, intent)?;
        output.status(format_args!(
            "{name}: revision {revision} is now current on {host}"
        ));
        if !has_manifest {
            report_no_manifest(name, revision, "there", output);
        }
        Ok(())
    }

    /// Returns the machine here; an empty view if it cannot be read.
    fn view(self) -> MachineView {
        let view = self.volume.view(self.name);
        view.unwrap_or_else(|_| MachineView::new(self.name.clone()))
    }

    /// Reports a remote revision that is replaced and was never here.
    fn report_unknown(self, revision: Revision, here: &Contents, there: &RemoteRevision) {
        let is_known = here
            .values()
            .any(|it| it.may_have_same_content(&there.content));
        if !is_known && there.revision < revision {
            let (name, host, current) = (self.name, &self.remote.host, there.revision);
            self.output.status(format_args!(
                "{name}: revision {current} on {host} is not here; revision {revision} replaces it without its changes"
            ));
        }
    }

    /// Returns the newest revision here on top of which the remote host accepts a stream.
    fn common_parent<'a>(
        self,
        here: &'a Contents,
        sent: Revision,
        remote: Option<&RemoteView>,
    ) -> Option<(Revision, &'a ContentIdentity)> {
        let there: Vec<_> = remote?.revisions.iter().filter(|it| it.complete).collect();
        let manifest = here.get(&sent).and_then(|it| it.content_manifest.as_ref());
        let mut newest_first = here.iter().rev().map(|(revision, it)| (*revision, it));
        newest_first.find(|(revision, parent)| {
            let content = || there.iter().map(|it| &it.content);
            let is_unchanged = || self.is_unchanged(*revision);
            let accepts = || content().any(|it| it.accepts_stream(parent, manifest));
            let may_accept = || content().any(|it| it.may_accept_stream(parent, manifest));
            *revision != sent && (accepts() || (may_accept() && is_unchanged()))
        })
    }

    /// Returns true if a revision has the content that its manifest names.
    fn is_unchanged(self, revision: Revision) -> bool {
        let (volume, name) = (self.volume, self.name);
        volume.is_as_recorded(name, revision) || volume.verify(name, Some(revision)).is_ok()
    }

    /// Fails unless a revision has the same content here and on the remote host.
    fn check_same_content(
        self,
        revision: Revision,
        here: &Contents,
        there: &RemoteRevision,
    ) -> Result<(), Failure> {
        let Some(here) = here.get(&revision) else {
            return Ok(());
        };
        if here.has_same_content(&there.content) {
            return Ok(());
        }
        if here.may_have_same_content(&there.content) && self.is_unchanged(revision) {
            return Ok(());
        }
        let (name, host) = (self.name, &self.remote.host);
        let text = format!(
            "revision {revision} of {name} has other content on {host} than here; `buildhost push {name} {host} --from SUBVOLUME` sends the content under a higher number"
        );
        Err(Failure::new(ExitStatus::Exists, text))
    }

    /// Returns the current revision.
    fn current(self) -> Result<Revision, Failure> {
        let name = self.name;
        if let Some(revision) = self.volume.view(name)?.current {
            return Ok(revision);
        }
        let text = format!(
            "machine `{name}` is not in service here; `buildhost status {name}` shows the reason"
        );
        Err(Failure::new(ExitStatus::NotFound, text))
    }

    fn plan_next(self, source: &Source) -> Result<IngestPlan, Failure> {
        let intent = intent(self.volume, self.name);
        Ok(self.volume.plan_ingest(intent, self.name, source)?)
    }

    /// Creates the next revision, with its content manifest, from a working subvolume.
    fn create_next(self, source: Source) -> Result<Revision, Failure> {
        let (name, output) = (self.name, self.output);
        self.plan_next(&source)?;
        if let Source::WorkingSubvolume { path, .. } = &source {
            output.status(format_args!(
                "{name}: writing the content manifest of {}",
                path.display()
            ));
        }
        let intent = intent(self.volume, name);
        let revision = self.volume.ingest(intent, name, source)?.revision;
        output.status(format_args!(
            "{name}: revision {revision} is now current here"
        ));
        Ok(revision)
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

    /// Starts the stream of a revision: the rest of it, if a part has arrived before.
    fn start(
        self,
        greeting: &Greeting,
        revision: Revision,
        known: &[Uuid],
    ) -> Result<(OutgoingStream, Option<PartialRevision>), Failure> {
        let (volume, name, version) = (self.volume, self.name, greeting.stream_version);
        let mut outgoing = volume.send_to(version, name, Some(revision), known)?;
        let header = outgoing.stream.header();
        let parent = header.parent.map(|it| it.uuid);
        let Some(partial) = &greeting.partial else {
            return Ok((outgoing, None));
        };
        if (partial.uuid, partial.parent) != (header.uuid, parent) {
            return Ok((outgoing, None));
        }
        if !outgoing.stream.skip(&partial.parts)? {
            // Something has changed at one end.
            let whole = volume.send_to(version, name, Some(revision), known)?;
            return Ok((whole, None));
        }
        let arrived = mebibytes(partial.length());
        self.output.status(format_args!(
            "{name}: {arrived} of revision {revision} have arrived before"
        ));
        Ok((outgoing, Some(partial.clone())))
    }

    fn send(
        self,
        session: RemoteSession,
        revision: Revision,
        known: &[Uuid],
        intent: Intent,
    ) -> Result<(), Failure> {
        let (outgoing, partial) = self.start(session.greeting(), revision, known)?;
        let (volume, name) = (self.volume.clone(), self.name.clone());
        let (parents, arrived) = (
            known.to_vec(),
            partial.as_ref().map_or(0, PartialRevision::length),
        );
        let progress = Progress::start(self.output, move || {
            let size = volume.estimate_size(&name, Some(revision), &parents).ok()?;
            Some(size.saturating_sub(arrived))
        });
        let mut passed = |bytes| progress.passed.store(bytes, Ordering::Relaxed);
        let announcement = Announcement::new(intent, partial);
        Ok(session.send(&announcement, outgoing.stream, &mut passed)?)
    }

    /// Fetches the current revision of the remote host.
    pub(super) fn pull(self, dry_run: DryRun) -> Result<(), Failure> {
        let (name, output) = (self.name, self.output);
        let host = &self.remote.host;
        let remote = self.remote.view(name)?;
        let found = remote
            .as_ref()
            .and_then(|remote| remote.revision(remote.current?));
        let Some(sent) = found else {
            let fault = remote.and_then(|it| it.fault);
            let reason = fault.map_or_else(String::new, |fault| format!(": {fault}"));
            let text = format!("machine `{name}` is not in service on {host}{reason}");
            return Err(Failure::new(ExitStatus::NotFound, text));
        };
        let revision = sent.revision;
        let view = self.view();
        let here = self.volume.content_identities(&view);
        self.check_same_content(revision, &here, sent)?;
        if let Some(current) = view.current
            && revision <= current
        {
            output.status(format_args!(
                "{name}: already up to date; revision {current} is current here, {revision} on {host}"
            ));
            return Ok(());
        }
        let known = common_ancestor(&here, sent, remote.as_ref());
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

/// Returns the newest revision on the remote host on top of which a stream is accepted here, as
/// the list of UUIDs that the remote host may use.
fn common_ancestor(
    here: &Contents,
    sent: &RemoteRevision,
    remote: Option<&RemoteView>,
) -> Vec<Uuid> {
    let manifest = sent.content.content_manifest.as_ref();
    let there = remote.into_iter().flat_map(|remote| &remote.revisions);
    let mut common = there
        .filter(|parent| parent.complete && parent.revision != sent.revision)
        .filter(|parent| {
            let mut here = here.values();
            here.any(|it| it.accepts_stream(&parent.content, manifest))
        });
    let newest = common.next_back();
    newest
        .map(|it| it.content.stream_uuid())
        .into_iter()
        .collect()
}

/// Describes how much of a revision is sent, with the reason if it is everything.
fn extent(
    parent: Option<Revision>,
    here: &Contents,
    remote: Option<&RemoteView>,
    full: bool,
) -> String {
    let newest = remote.and_then(|remote| remote.revisions.last());
    let newest = match (parent, newest) {
        (Some(parent), _) => return format!("as the difference from revision {parent}"),
        (None, None) => return "in full".to_owned(),
        (None, Some(_)) if full => return "in full, as requested".to_owned(),
        (None, Some(newest)) => newest,
    };
    let number = newest.revision;
    let mut named_alike = here
        .iter()
        .filter(|(_, parent)| newest.content.is_named_like(parent));
    let reason = if !newest.complete {
        format!("revision {number} there is writable: incomplete, or modified by hand")
    } else if let Some((other, _)) = named_alike.next() {
        format!(
            "revision {number} there may differ from revision {other} here, which was relayed or modified"
        )
    } else if newest.content.received_uuid.is_some() {
        "no revision there is identical to one here".to_owned()
    } else {
        format!("revision {number} there is not as received: created or modified by hand")
    };
    format!("in full, because {reason}")
}
