//! The logs of builds for controllers that want them while the builds run. What a controller has is in a
//! file beside the log, so that the next agent continues there.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::BuildId;
use config::builds::Build;
use controllers::TraceAnswer;
use controllers::gitlab::{FinalState, JobState, Progress, ReportStep};
use records::{Lease, RecordsError};
use state::paths::log_in;
use state::{AgentState, LeaseEnd};
use sys::blocking::blocking;
use tokio::time::sleep;
use tracing::warn;

use super::{Member, leases};

/// The time between two looks at the logs.
const PERIOD: Duration = Duration::from_secs(1);
/// The file in the directory of a build with the progress of its report.
const PROGRESS: &str = "log-progress.json";
/// The largest number of pieces of one log that are sent without a pause.
const PIECES_MAX: usize = 1000;

/// Sends the logs of a controller's unfinished builds until the agent stops.
pub(super) async fn run(agent: &Arc<AgentState>, member: &Member) {
    let mut steps = BTreeMap::new();
    while !agent.stopping.is_cancelled() {
        if let Err(error) = round(agent, member, &mut steps).await {
            let error = &error as &dyn Error;
            warn!(controller = %member.rules.name, error, "cannot send the logs of builds");
        }
        tokio::select! {
            () = agent.stopping.cancelled() => return,
            () = sleep(PERIOD) => {}
        }
    }
}

/// Sends what is due. `steps` has the time of the last step of each build.
async fn round(
    agent: &Arc<AgentState>,
    member: &Member,
    steps: &mut BTreeMap<BuildId, Instant>,
) -> Result<(), RecordsError> {
    let mut open = agent.records.open_leases().await?;
    open.retain(|(lease, build)| {
        lease.controller == member.rules.name && build.has_script() && build.outcome.is_none()
    });
    steps.retain(|id, _| open.iter().any(|(lease, _)| lease.build == *id));
    for (lease, build) in open {
        let last = *steps.entry(build.id).or_insert_with(Instant::now);
        let (client, directory) = (Arc::clone(&member.client), agent.paths.build(build.id));
        let step = move || {
            let mut report = Report::open(&directory)?;
            match report.next(JobState::Open, last.elapsed())? {
                Next::None => Ok(None),
                Next::Send(piece) => report.send(&*client, &lease, piece.as_ref()).map(Some),
            }
        };
        match blocking(step).await {
            Ok(None) => continue,
            Ok(Some(TraceAnswer::Over(reason))) => {
                leases::end(agent, build.id, LeaseEnd::Withdrawn(reason)).await;
            }
            Ok(Some(TraceAnswer::Continue { .. } | TraceAnswer::Retry(_))) => {}
            Err(error) => {
                let error = &error as &dyn Error;
                warn!(build = %build.id, error, "cannot read the log of a build");
            }
        }
        steps.insert(build.id, Instant::now());
    }
    Ok(())
}

/// Sends the rest of the log of a build that has ended.
///
/// # Errors
/// The reason for which it is sent again later.
pub(super) async fn finish(
    agent: &AgentState,
    member: &Member,
    lease: &Lease,
    build: &Build,
) -> Result<(), String> {
    let (client, directory) = (Arc::clone(&member.client), agent.paths.build(build.id));
    let lease = lease.clone();
    blocking(move || {
        let mut report = Report::open(&directory).map_err(|error| error.to_string())?;
        // Any final state: the pieces are the same.
        let ended = JobState::Ended(FinalState::Success);
        for _ in 0..PIECES_MAX {
            let next = report.next(ended, Duration::ZERO);
            let Next::Send(Some(piece)) = next.map_err(|error| error.to_string())? else {
                return Ok(());
            };
            let answer = report.send(&*client, &lease, Some(&piece));
            match answer.map_err(|error| error.to_string())? {
                TraceAnswer::Continue { .. } => {}
                TraceAnswer::Retry(failure) => return Err(failure),
                // It says so again to the final state.
                TraceAnswer::Over(_) => return Ok(()),
            }
        }
        Err("the controller does not store the log".to_owned())
    })
    .await
}

/// The report of a build's log. Its functions block.
struct Report<'d> {
    directory: &'d Path,
    progress: Progress,
}

/// The next step for a log.
enum Next {
    None,
    /// A piece, or a sign of life without one.
    Send(Option<Range<u64>>),
}

impl<'d> Report<'d> {
    fn open(directory: &'d Path) -> io::Result<Self> {
        let progress = match sys::trusted::read(directory.join(PROGRESS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Progress::default(),
            // GitLab tells its place again.
            text => serde_json::from_slice(&text?).unwrap_or_default(),
        };
        Ok(Self {
            directory,
            progress,
        })
    }

    fn next(&self, state: JobState, quiet: Duration) -> io::Result<Next> {
        let length = match std::fs::symlink_metadata(log_in(self.directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            metadata => metadata?.len(),
        };
        Ok(match self.progress.next_step(state, length, &[], quiet) {
            ReportStep::Piece(piece) => Next::Send(Some(piece)),
            ReportStep::Touch => Next::Send(None),
            ReportStep::Wait(_) | ReportStep::Archive(_) | ReportStep::Finish(_) => Next::None,
        })
    }

    fn send(
        &mut self,
        client: &dyn controllers::Controller,
        lease: &Lease,
        piece: Option<&Range<u64>>,
    ) -> io::Result<TraceAnswer> {
        let answer = match piece {
            Some(piece) => {
                let bytes = self.read(piece)?;
                client.send_log(&lease.terms, Some((piece, bytes)))
            }
            None => client.send_log(&lease.terms, None),
        };
        self.progress.note(&answer);
        let text = serde_json::to_vec(&self.progress).map_err(io::Error::other)?;
        sys::file::replace(&self.directory.join(PROGRESS), &text)?;
        Ok(answer)
    }

    fn read(&self, piece: &Range<u64>) -> io::Result<Vec<u8>> {
        let length = usize::try_from(piece.end - piece.start).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        let file = sys::trusted::open(log_in(self.directory))?;
        file.read_exact_at(&mut bytes, piece.start)?;
        Ok(bytes)
    }
}
