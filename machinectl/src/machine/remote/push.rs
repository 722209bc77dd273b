//! The sending of a revision to a remote host.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use config::{MachineName, Revision};
use store::ingest::PartialRevision;
use store::send::session::Announcement;
use store::send::{RemoteHost, RemoteRevision, RemoteSession, RemoteView};
use store::{
    ContentIdentity, IngestPlan, Intent, MachineView, Note, Publication, Source, Uuid, Volume,
};

use crate::exit_code::{ExitStatus, Failure};
use crate::machine::ingest::report_no_manifest;
use crate::machine::note::{NoteOption, author};
use crate::machine::retention::Retention;
use crate::machine::trial::{TrialOption, published};
use crate::options::DryRun;
use crate::output::{Output, Progress, mebibytes};

/// The identities of a machine's complete revisions here.
type Contents = BTreeMap<Revision, ContentIdentity>;

/// The two ends of a push.
#[derive(Clone, Copy)]
pub(super) struct Push<'a> {
    pub(super) volume: &'a Volume,
    pub(super) name: &'a MachineName,
    pub(super) remote: &'a RemoteHost,
    pub(super) trial: TrialOption,
    pub(super) retention: Retention,
    pub(super) output: &'a Output,
}

impl Push<'_> {
    /// Sends a revision to the remote host.
    pub(super) fn run(
        self,
        from: Option<&Path>,
        full: bool,
        note: &NoteOption,
        dry_run: DryRun,
    ) -> Result<(), Failure> {
        let (name, output) = (self.name, self.output);
        let host = &self.remote.host;
        // The remote host is asked first: if it is unreachable, nothing changes here either.
        let session = self
            .remote
            .connect_to_send(name, self.retention.keep, self.trial.terms())?;
        let remote = session.greeting().machine.clone();
        let newest = remote.as_ref().and_then(|it| it.revisions.last());
        let source = from.map(|from| Source::WorkingSubvolume {
            path: from.to_owned(),
            after: newest.map(|it| it.revision),
        });
        let revision = match source {
            Some(source) if dry_run.enabled => self.plan_next(&source)?.revision,
            Some(source) => self.create_next(source, note)?,
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
        let note = self.sent_note(revision, note);
        self.send(session, revision, &known, intent, note)?;
        let published = published(revision, self.trial.begins(current));
        output.status(format_args!("{name}: {published} on {host}"));
        if !has_manifest {
            report_no_manifest(name, revision, "there", false, output);
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
            let is_unchanged = || self.volume.has_recorded_content(self.name, *revision);
            let accepts = || content().any(|it| it.accepts_stream(parent, manifest));
            let may_accept = || content().any(|it| it.may_accept_stream(parent, manifest));
            *revision != sent && (accepts() || (may_accept() && is_unchanged()))
        })
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
        let (volume, name) = (self.volume, self.name);
        if volume.is_same_content(name, revision, here, &there.content) {
            return Ok(());
        }
        let host = &self.remote.host;
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
        let intent = self.volume.intent(self.name);
        Ok(self.volume.plan_ingest(intent, self.name, source)?)
    }

    /// Creates the next revision, with its content manifest, from a working subvolume.
    fn create_next(self, source: Source, note: &NoteOption) -> Result<Revision, Failure> {
        let (name, output) = (self.name, self.output);
        self.plan_next(&source)?;
        let mut from = String::new();
        if let Source::WorkingSubvolume { path, .. } = &source {
            from = path.display().to_string();
            output.status(format_args!(
                "{name}: writing the content manifest of {}",
                path.display()
            ));
        }
        let intent = self.volume.intent(name);
        let note = note.note(from);
        let publication = Publication {
            note: Some(&note),
            trial: None,
        };
        let created = self.volume.ingest_with(intent, name, source, publication);
        let revision = created?.revision;
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
        if let Some(terms) = self.trial.terms() {
            output.plan(format_args!(
                "put revision {revision} of {name} on trial ({terms}) on {host}"
            ))?;
        }
        if let Some(keep) = self.retention.keep {
            output.plan(format_args!(
                "keep the newest {keep} revisions of {name} on {host}"
            ))?;
        }
        Ok(())
    }

    /// Returns the note that goes along with a revision: that on the revision here, with the
    /// requested text, from the person who pushes it.
    fn sent_note(self, revision: Revision, option: &NoteOption) -> Note {
        let pusher = author();
        let here = self.volume.note(self.name, revision);
        let mut note = here.unwrap_or_else(|| option.note(String::new()));
        if let Some(text) = option.text() {
            text.clone_into(&mut note.text);
        }
        note.source = pusher;
        note
    }

    fn send(
        self,
        session: RemoteSession,
        revision: Revision,
        known: &[Uuid],
        intent: Intent,
        note: Note,
    ) -> Result<(), Failure> {
        let (volume, name) = (self.volume.clone(), self.name.clone());
        let greeting = session.greeting();
        let (version, partial) = (greeting.stream_version, greeting.partial.clone());
        let sent = volume.send_rest(version, &name, revision, known, partial.as_ref());
        let (outgoing, continues) = sent?;
        let partial = partial.filter(|_| continues);
        if let Some(partial) = &partial {
            let arrived = mebibytes(partial.length());
            self.output.status(format_args!(
                "{name}: {arrived} of revision {revision} have arrived before"
            ));
        }
        let (parents, arrived) = (
            known.to_vec(),
            partial.as_ref().map_or(0, PartialRevision::length),
        );
        let progress = Progress::start(self.output, move || {
            let size = volume.estimate_size(&name, Some(revision), &parents).ok()?;
            Some(size.saturating_sub(arrived))
        });
        let mut passed = |bytes| progress.passed.store(bytes, Ordering::Relaxed);
        let announcement = Announcement::new(intent, partial, Some(note));
        Ok(session.send(&announcement, outgoing.stream, &mut passed)?)
    }
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
