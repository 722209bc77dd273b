//! The attempt at a build that continues as a copy of another one's guest.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use config::builds::{Build, ForkOrigin, State};
use config::task::Preload;
use guest::BootMode;
use jiff::Timestamp;
use session::{GuestCopy, GuestSecrets};
use store::Snapshot;
use sys::blocking::blocking;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Attempt, run};
use crate::build::{cache, files, hashserv, inputs};
use crate::limits;
use crate::runner::{GuestSource, JobError};
use state::{AgentState, ImageFacts};

/// Starts the guest of a copy in a snapshot of its fork point, and runs it until its result is
/// stored.
pub(in crate::build) async fn start_copy(
    agent: &Arc<AgentState>,
    build: &mut Build,
    origin: ForkOrigin,
    snapshot: Result<Arc<Snapshot>, JobError>,
    cancel: &CancellationToken,
) -> Attempt {
    let run = async {
        let snapshot = snapshot?;
        let path = snapshot.path().to_owned();
        let facts = blocking(move || ImageFacts::read(&path)).await;
        let machine = facts.machine.map_err(JobError::Manifest)?;
        let limits = limits::of_attempt(&agent.settings(), build, &machine);
        inputs::record_rights(agent, build);
        let spec = session::SessionSpec {
            tag: build.id.to_string(),
            snapshot,
            machine,
            files: files::namespace(agent, build).await?,
            durable: false,
            boot: BootMode::Restore,
            shared_memory: None,
            capture: files::record(agent, &agent.paths.build(build.id)),
            // A build with secrets is not forked.
            secrets: GuestSecrets::default(),
            cache: cache::of_new_guest(agent, build).await,
            preload: Preload::default(),
            hashserv: hashserv::of_build(agent, build),
            // A driven guest is not forked.
            commands: None,
            deadline: None,
            copy: Some(GuestCopy {
                identity: origin.identity(),
                elapsed: elapsed_before(build),
            }),
        };
        let guest = GuestSource::Start(Box::new(spec));
        run(agent, build, guest, limits, cancel).await
    };
    Attempt::from(run.await)
}

/// Returns the time for which the source of a copy had run; nothing for other builds.
pub(super) fn elapsed_before(build: &Build) -> Duration {
    let seconds = build.forked_from.map_or(0, |origin| origin.seconds);
    Duration::from_secs(seconds)
}

/// Records that the guest of a copy continues: it does not ask for its task. A record that cannot
/// be saved now is saved when the attempt ends.
pub(super) async fn enter_running(agent: &AgentState, build: &mut Build) {
    let is_starting = build.forked_from.is_some() && build.state == State::Starting;
    if !is_starting || build.enter(State::Running, Timestamp::now()).is_err() {
        return;
    }
    if let Err(error) = agent.records.save(build).await {
        let error = &error as &dyn Error;
        warn!(error, "cannot record that a copy of a guest runs");
    }
}
