//! A revision's way from one host to another: `push` and `pull`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use config::{MachineName, Revision};
use store::send::{FarSide, FarView, common_parent};
use store::stream::Stream;
use store::{Intent, MachineView, RefusalKind, Source, StoreError, Uuid, Volume};

use super::progress::{Progress, mebibytes};
use crate::machine::revisions::Retention;
use crate::{Ending, Failure, Voice};

/// A revision that goes from one host to another.
#[derive(Clone, Copy)]
pub(super) struct Trip<'a> {
    pub(super) volume: &'a Volume,
    pub(super) name: &'a MachineName,
    pub(super) far: &'a FarSide,
    pub(super) retention: Retention,
    pub(super) voice: &'a Voice,
}

impl Trip<'_> {
    pub(super) fn push(
        self,
        from: Option<&Path>,
        full: bool,
        rehearsed: bool,
    ) -> Result<(), Failure> {
        let (name, far, voice) = (self.name, self.far, self.voice);
        // Without the other side nothing changes here either.
        let there = far.look(name)?;
        if let Some(from) = from
            && !rehearsed
        {
            self.prepare(from)?;
        }
        let (view, revision) = self.next(from.filter(|_| rehearsed))?;
        let known = there.as_ref().map(FarView::identities).unwrap_or_default();
        let current = there.as_ref().and_then(|there| there.current);
        let same = view
            .revision(revision)
            .is_some_and(|it| known.contains(&it.subvolume.stream_uuid()));
        if same && current == Some(revision) {
            voice.say(format!(
                "{name}: revision {revision} is current on {} already",
                far.host
            ));
            return Ok(());
        }
        let known = if full { Vec::new() } else { known };
        let parent = common_parent(&view, revision, &known);
        let how = how(parent, there.as_ref(), full);
        if rehearsed {
            return self.rehearse_push(from, revision, &how, &known);
        }
        voice.say(format!("{name}: sending revision {revision} {how}"));
        let intent = if current.is_some() {
            Intent::Upgrade
        } else {
            Intent::Add
        };
        self.send_there(revision, known, intent)?;
        voice.say(format!(
            "{name}: revision {revision} is current on {}",
            far.host
        ));
        Ok(())
    }

    /// What is to be sent: the current revision, or the one that would be made.
    fn next(self, from: Option<&Path>) -> Result<(MachineView, Revision), Failure> {
        let name = self.name;
        if let Some(from) = from {
            let (intent, source) = self.work(from);
            let plan = self.volume.plan_arrival(intent, name, &source)?;
            let view = self.volume.look(name);
            let view = view.unwrap_or_else(|_| MachineView::new(name.clone()));
            return Ok((view, plan.revision()));
        }
        let view = self.volume.look(name)?;
        if let Some(revision) = view.current {
            return Ok((view, revision));
        }
        let text =
            format!("machine `{name}` is not in service here; `machinectl status {name}` says why");
        Err(Failure::new(Ending::NotFound, text))
    }

    fn work(self, from: &Path) -> (Intent, Source) {
        let there = self.volume.look(self.name).is_ok_and(|it| it.has_link());
        let intent = if there { Intent::Upgrade } else { Intent::Add };
        (intent, Source::Work(from.to_owned()))
    }

    /// The next revision, with a record of its content, of a working subvolume.
    fn prepare(self, from: &Path) -> Result<(), Failure> {
        let (name, voice) = (self.name, self.voice);
        let (intent, source) = self.work(from);
        self.volume.plan_arrival(intent, name, &source)?;
        voice.say(format!(
            "{name}: recording the content of {}",
            from.display()
        ));
        let arrival = self.volume.bring_in(intent, name, source)?;
        voice.say(format!(
            "{name}: revision {} is current here",
            arrival.plan.revision()
        ));
        Ok(())
    }

    fn rehearse_push(
        self,
        from: Option<&Path>,
        revision: Revision,
        how: &str,
        known: &[Uuid],
    ) -> Result<(), Failure> {
        let (name, host, voice) = (self.name, &self.far.host, self.voice);
        let mut size = String::new();
        if let Some(from) = from {
            let from = from.display();
            voice.would(format!("make revision {revision} of {name} from {from}"))?;
        } else if let Ok(bytes) = self.volume.measure(name, Some(revision), known) {
            size = format!(", about {}", mebibytes(bytes));
        }
        voice.would(format!(
            "send revision {revision} of {name} to {host} {how}{size}"
        ))?;
        if let Some(keep) = self.retention.keep {
            voice.would(format!(
                "keep the newest {keep} revisions of {name} on {host}"
            ))?;
        }
        Ok(())
    }

    fn send_there(
        self,
        revision: Revision,
        known: Vec<Uuid>,
        intent: Intent,
    ) -> Result<(), Failure> {
        let parting = self.volume.send(self.name, Some(revision), &known)?;
        let stream = match Stream::open(parting.stream) {
            Ok(stream) => stream,
            Err(error) => {
                parting.sender.finish().map_err(StoreError::from)?;
                return Err(StoreError::from(error).into());
            }
        };
        let (volume, name) = (self.volume.clone(), self.name.clone());
        let measure = move || volume.measure(&name, Some(revision), &known).ok();
        let progress = Progress::start(self.voice, measure);
        let keep = self.retention.keep;
        let mut passed = |bytes| progress.passed.store(bytes, Ordering::Relaxed);
        let sent = self
            .far
            .bring_in(intent, self.name, stream, keep, &mut passed);
        drop(progress);
        match sent {
            Err(error) if error.kind() == Some(RefusalKind::BadStream) => {
                parting.sender.finish().map_err(StoreError::from)?;
                Err(error.into())
            }
            sent => Ok(sent.map(|_| ())?),
        }
    }

    pub(super) fn pull(self, rehearsed: bool) -> Result<(), Failure> {
        let (name, far, voice) = (self.name, self.far, self.voice);
        let there = far.look(name)?;
        let Some(revision) = there.as_ref().and_then(|there| there.current) else {
            let text = format!("machine `{name}` is not in service on {}", far.host);
            return Err(Failure::new(Ending::NotFound, text));
        };
        let here = self.volume.look(name).ok();
        if let Some(current) = here.as_ref().and_then(|view| view.current)
            && revision <= current
        {
            voice.say(format!(
                "{name}: revision {current} is current here, {revision} there"
            ));
            return Ok(());
        }
        let known = self.volume.identities(name);
        if rehearsed {
            let size = far.measure(name, revision, &known);
            let size =
                size.map_or_else(|_| String::new(), |it| format!(", about {}", mebibytes(it)));
            let host = &far.host;
            voice.would(format!(
                "fetch revision {revision} of {name} from {host}{size}"
            ))?;
            return self.retention.rehearse(self.volume, name, revision, voice);
        }
        let live = here.is_some_and(|view| view.has_link());
        let intent = if live { Intent::Upgrade } else { Intent::Add };
        self.fetch(revision, known, intent)?;
        voice.say(format!("{name}: revision {revision} is current"));
        self.retention.apply(self.volume, name, voice);
        Ok(())
    }

    fn fetch(self, revision: Revision, known: Vec<Uuid>, intent: Intent) -> Result<(), Failure> {
        let (name, far, voice) = (self.name, self.far, self.voice);
        let (running, input) = far.send(name, Some(revision), &known)?;
        let (side, machine) = (far.clone(), name.clone());
        let measure = move || side.measure(&machine, revision, &known).ok();
        let progress = Progress::start(voice, measure);
        let stream = match Stream::open(input.counted(Arc::clone(&progress.passed))) {
            Ok(stream) => stream,
            Err(error) => {
                far.sent(running)?;
                return Err(StoreError::from(error).into());
            }
        };
        let how = if stream.header().parent.is_some() {
            "as what differs"
        } else {
            "in full"
        };
        voice.say(format!("{name}: fetching revision {revision} {how}"));
        let arrived = self.volume.bring_in(intent, name, Source::Stream(stream));
        drop(progress);
        match arrived {
            Err(error) if error.kind() == Some(RefusalKind::BadStream) => {
                // Why the other side stopped says more.
                far.sent(running)?;
                Err(error.into())
            }
            arrived => Ok(arrived.map(|_| ())?),
        }
    }
}

/// How a revision is sent, and why in full.
fn how(parent: Option<Revision>, there: Option<&FarView>, full: bool) -> String {
    let newest = there.and_then(|there| there.revisions.last());
    match (parent, newest) {
        (Some(parent), _) => format!("as what differs from revision {parent}"),
        (None, None) => "in full".to_owned(),
        (None, Some(_)) if full => "in full, as you asked".to_owned(),
        (None, Some(newest)) => {
            let number = newest.revision;
            let why = if !newest.complete {
                format!("revision {number} there is writable: half done, or changed by hand")
            } else if newest.is_received() {
                "no revision there is the same as one here".to_owned()
            } else {
                format!(
                    "revision {number} there is not as it was received: it was changed or made by hand"
                )
            };
            format!("in full, because {why}")
        }
    }
}
