//! Pull: fetches the newest revision of a machine from the hosts that have it.
//!
//! All hosts are asked at the same time, each over one connection. The newest revision that is
//! current on any of them is fetched from the first one that has it. If that one fails, the next
//! one continues, behind what has arrived if its stream is the same.

mod choose;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use config::canary::Decider;
use config::{MachineName, Revision};

use crate::ingest::PartialRevision;
use crate::send::session::Request;
use crate::send::{RemoteHost, RemoteSession, RemoteView};
use crate::{
    ContentIdentity, MachineView, Note, Publication, Refusal, RefusalKind, Result, Source,
    StoreError, Uuid, Volume,
};
use btrfs::stream::SendStream;
use choose::choose;

/// The refusal to pull a revision.
#[derive(Debug, thiserror::Error)]
pub enum PullRefusal {
    /// The machine is not in service on any of the hosts.
    #[error("machine `{machine}` is not in service on {hosts}{}", reason.as_ref().map(|it| format!(": {it}")).unwrap_or_default())]
    NotInService {
        /// The machine.
        machine: MachineName,
        /// The hosts that have answered.
        hosts: String,
        /// The fault of its current link on the only host.
        reason: Option<String>,
    },
    /// This host has other content under the number of the revision.
    #[error(
        "revision {revision} of {machine} has other content on {host} than here; push its content under a higher number there, with `buildhost push {machine} HOST --from SUBVOLUME`"
    )]
    OtherContent {
        /// The machine.
        machine: MachineName,
        /// The revision.
        revision: Revision,
        /// The host.
        host: String,
    },
    /// The revision does not fit on the disk.
    #[error(
        "revision {revision} of {machine} needs about {} MiB, and {} MiB are free beside what stays free; `buildhost prune` deletes old revisions", bytes >> 20, free >> 20
    )]
    Full {
        /// The machine.
        machine: MachineName,
        /// The revision.
        revision: Revision,
        /// The size of the rest of the stream.
        bytes: u64,
        /// The free space beside the reserve.
        free: u64,
    },
}

impl Refusal for PullRefusal {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::NotInService { .. } => RefusalKind::NotFound,
            Self::OtherContent { .. } => RefusalKind::Exists,
            Self::Full { .. } => RefusalKind::Full,
        }
    }
}

/// An event of a pull that people may want to know of.
#[derive(Debug)]
pub enum PullEvent<'a> {
    /// A host could not be asked. Others were.
    Unavailable {
        /// The host.
        host: &'a str,
        /// The reason.
        error: &'a StoreError,
    },
    /// A host has other content under the number of the fetched revision.
    OtherContent {
        /// The host.
        host: &'a str,
        /// The revision.
        revision: Revision,
    },
    /// A host sends the revision.
    Fetching(Fetch<'a>),
    /// A host has failed to send the revision. The next one is asked.
    Failed {
        /// The host.
        host: &'a str,
        /// The reason.
        error: &'a StoreError,
    },
}

/// A transfer from a host.
#[derive(Debug)]
pub struct Fetch<'a> {
    /// The host.
    pub host: &'a str,
    /// The revision.
    pub revision: Revision,
    /// True if the stream builds on an earlier revision.
    pub incremental: bool,
    /// The bytes that have arrived in an earlier transfer.
    pub bytes_arrived: u64,
    /// The approximate number of bytes of the whole stream, if it was requested and is known.
    pub bytes: Option<u64>,
    /// The bytes that have arrived in this transfer.
    pub counter: Arc<AtomicU64>,
}

/// A planned pull, with the connections to its sources.
#[derive(Debug)]
pub struct Pull {
    /// The machine.
    pub machine: MachineName,
    /// The revision to fetch.
    pub revision: Revision,
    /// The current revision here.
    pub current: Option<Revision>,
    /// The decider of the trial of the revision; `None` to make it current at once.
    pub trial: Option<Decider>,
    /// The bytes of the disk that stay free. With more than none, a revision that does not fit is refused
    /// before it is fetched.
    pub reserve_bytes: u64,
    /// The note on the revision.
    note: Note,
    sources: Vec<PullSource>,
}

/// A host that can send the revision.
#[derive(Debug)]
struct PullSource {
    session: RemoteSession,
    known: Vec<Uuid>,
}

impl PullSource {
    fn host(&self) -> &str {
        self.session.host()
    }
}

impl Pull {
    /// Returns the first source.
    pub fn host(&self) -> &str {
        self.sources.first().map_or("", PullSource::host)
    }

    /// Returns true if a pull would change nothing.
    pub fn is_up_to_date(&self) -> bool {
        self.current.is_some_and(|current| self.revision <= current)
    }

    /// Asks the first source for the approximate number of bytes of the stream.
    pub fn measure(self) -> Option<u64> {
        let source = self.sources.into_iter().next()?;
        let request = Request {
            measures: true,
            streams: false,
            ..Request::new(self.revision, source.known)
        };
        let reply = source.session.request(&request, Arc::default());
        reply.ok()?.0.bytes
    }
}

impl Volume {
    /// Asks hosts for the newest current revision of a machine, and plans to fetch it. Changes
    /// nothing.
    ///
    /// # Errors
    /// No host can be reached, the machine is not in service on any of them, or there is other
    /// content here under the number of the revision.
    pub fn plan_pull(
        &self,
        machine: &MachineName,
        hosts: &[RemoteHost],
        report: &mut dyn FnMut(PullEvent<'_>),
    ) -> Result<Pull> {
        let sessions = connect(machine, hosts, report)?;
        self.plan_fetch(machine, None, sessions, report)
    }

    /// Plans to fetch a revision from hosts to which connections are open: this one, or by default the
    /// newest that is current on any of them. Changes nothing.
    ///
    /// # Errors
    /// None of the hosts has it, or there is other content here under its number.
    pub fn plan_fetch(
        &self,
        machine: &MachineName,
        wanted: Option<Revision>,
        sessions: Vec<RemoteSession>,
        report: &mut dyn FnMut(PullEvent<'_>),
    ) -> Result<Pull> {
        let answers: Vec<Option<RemoteView>> = sessions
            .iter()
            .map(|it| it.greeting().machine.clone())
            .collect();
        let view = self.view(machine);
        let view = view.unwrap_or_else(|_| MachineView::new(machine.clone()));
        let here = self.content_identities(&view);
        let Some(choice) = choose(&answers, &here, wanted) else {
            return Err(not_in_service(machine, &sessions).into());
        };
        let revision = choice.revision;
        let host = |index: usize| sessions.get(index).map_or("", RemoteSession::host);
        for other in choice.others {
            let host = host(other);
            report(PullEvent::OtherContent { host, revision });
        }
        if !self.has_content(machine, revision, &here, &choice.content) {
            let host = choice.sources.first().map_or("", |it| host(it.host));
            return Err(PullRefusal::OtherContent {
                machine: machine.clone(),
                revision,
                host: host.to_owned(),
            }
            .into());
        }
        let mut sessions: Vec<_> = sessions.into_iter().map(Some).collect();
        let sources = choice.sources.into_iter().filter_map(|it| {
            let session = sessions.get_mut(it.host)?.take()?;
            let known = it.known;
            Some(PullSource { session, known })
        });
        Ok(Pull {
            machine: machine.clone(),
            revision,
            current: view.current,
            trial: None,
            reserve_bytes: 0,
            note: choice.note.unwrap_or_default(),
            sources: sources.collect(),
        })
    }

    /// Returns true unless a revision here has other content than that on another host.
    fn has_content(
        &self,
        machine: &MachineName,
        revision: Revision,
        here: &BTreeMap<Revision, ContentIdentity>,
        there: &ContentIdentity,
    ) -> bool {
        here.get(&revision)
            .is_none_or(|it| self.is_same_content(machine, revision, it, there))
    }

    /// Fetches a revision and makes it the current one, or puts it on trial. With `measures`, the
    /// sources tell the size of their streams. Returns the host that has sent it.
    ///
    /// # Errors
    /// All sources have failed, and this is the failure of the last one; or this host cannot add
    /// the revision.
    pub fn pull(
        &self,
        pull: Pull,
        measures: bool,
        report: &mut dyn FnMut(PullEvent<'_>),
    ) -> Result<String> {
        let mut sources = pull.sources.into_iter().peekable();
        while let Some(source) = sources.next() {
            let host = source.host().to_owned();
            let note = Note {
                source: format!("pull from {host}"),
                ..pull.note.clone()
            };
            let publication = Publication {
                note: Some(&note),
                trial: pull.trial.clone(),
            };
            let (machine, revision) = (&pull.machine, pull.revision);
            let wanted = Wanted {
                machine,
                revision,
                measures: measures || pull.reserve_bytes > 0,
                reserve_bytes: pull.reserve_bytes,
            };
            match self.fetch(&wanted, publication, source, report) {
                Ok(()) => return Ok(host),
                Err(error) if sources.peek().is_some() && is_of_sender(&error) => {
                    let (host, error) = (&host, &error);
                    report(PullEvent::Failed { host, error });
                }
                Err(error) => return Err(error),
            }
        }
        // A plan has at least one source.
        Err(not_in_service(&pull.machine, &[]).into())
    }

    fn fetch(
        &self,
        wanted: &Wanted<'_>,
        publication: Publication<'_>,
        source: PullSource,
        report: &mut dyn FnMut(PullEvent<'_>),
    ) -> Result<()> {
        let (machine, revision, measures) = (wanted.machine, wanted.revision, wanted.measures);
        let host = source.host().to_owned();
        let view = self.view(machine).ok();
        let partial = view.as_ref().and_then(|it| self.partial_revision(it));
        let partial = partial.filter(|it| it.revision == revision);
        let request = Request {
            partial,
            measures,
            ..Request::new(revision, source.known)
        };
        let counter = Arc::new(AtomicU64::new(0));
        let (reply, stream) = source.session.request(&request, Arc::clone(&counter))?;
        let partial = request.partial.filter(|_| reply.continues);
        let bytes_arrived = partial.as_ref().map_or(0, PartialRevision::length);
        if wanted.reserve_bytes > 0 {
            let bytes = reply.bytes.unwrap_or_default();
            self.check_space(wanted, bytes.saturating_sub(bytes_arrived))?;
        }
        let (sender, input) = (Some(stream.sender), stream.input);
        let stream = match partial {
            Some(partial) => self.resume(machine, &partial, sender, input)?,
            None => SendStream::open_from(sender, input)?.resumable(),
        };
        report(PullEvent::Fetching(Fetch {
            host: &host,
            revision,
            incremental: stream.header().parent.is_some(),
            bytes_arrived,
            bytes: reply.bytes,
            counter,
        }));
        let intent = self.intent(machine);
        self.ingest_with(intent, machine, Source::Stream(stream), publication)?;
        Ok(())
    }
}

/// A revision to fetch.
struct Wanted<'a> {
    machine: &'a MachineName,
    revision: Revision,
    measures: bool,
    reserve_bytes: u64,
}

impl Volume {
    /// Refuses a stream that does not fit beside the reserve.
    fn check_space(&self, wanted: &Wanted<'_>, bytes: u64) -> Result<()> {
        let free = self.free()?.saturating_sub(wanted.reserve_bytes);
        if bytes <= free {
            return Ok(());
        }
        Err(PullRefusal::Full {
            machine: wanted.machine.clone(),
            revision: wanted.revision,
            bytes,
            free,
        }
        .into())
    }
}

/// Connects to all hosts at the same time. Reports those that cannot be reached, unless there is
/// only one.
fn connect(
    machine: &MachineName,
    hosts: &[RemoteHost],
    report: &mut dyn FnMut(PullEvent<'_>),
) -> Result<Vec<RemoteSession>> {
    let connected: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = hosts
            .iter()
            .map(|host| scope.spawn(move || host.connect_to_fetch(machine)))
            .collect();
        threads
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect()
    });
    let mut sessions = Vec::new();
    let mut failures = Vec::new();
    for (host, connected) in hosts.iter().zip(connected) {
        match connected {
            Ok(Ok(session)) => sessions.push(session),
            Ok(Err(error)) => failures.push((&host.host, error)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    if hosts.len() > 1 {
        for (host, error) in &failures {
            report(PullEvent::Unavailable { host, error });
        }
    }
    match failures.into_iter().next() {
        Some((_, error)) if sessions.is_empty() => Err(error),
        _ => Ok(sessions),
    }
}

fn not_in_service(machine: &MachineName, sessions: &[RemoteSession]) -> PullRefusal {
    let names: Vec<_> = sessions.iter().map(RemoteSession::host).collect();
    let reason = match sessions {
        [only] => only.greeting().machine.as_ref(),
        _ => None,
    };
    PullRefusal::NotInService {
        machine: machine.clone(),
        hosts: names.join(", "),
        reason: reason.and_then(|it| it.fault.clone()),
    }
}

/// Returns true for a failure that another sender may not have: the host is not reached, its
/// program fails, or its stream is cut, damaged or not accepted.
fn is_of_sender(error: &StoreError) -> bool {
    matches!(
        error.kind(),
        Some(
            RefusalKind::Unreachable
                | RefusalKind::Remote(_)
                | RefusalKind::BadStream
                | RefusalKind::NoParent
                | RefusalKind::Differs
                | RefusalKind::WrongName
        )
    )
}
