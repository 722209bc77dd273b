//! The files that a build's guest fetches and puts, and the files that receive its output.

use std::io;
use std::path::Path;
use std::sync::Arc;

use config::builds::Build;
use config::task::{self, BreakpointState, GivenScript, Task};
use session::log_capture;
use sys::blocking::blocking;
use tftp::server::{DeferredFile, Namespace};

use super::{auxiliary_task, cache, hashserv};
use state::AgentState;
use state::paths::{ARTIFACTS, CONSOLE, GIVEN_TASK, LIVE_LOG, LOG_TIMES};

/// The names under which a guest may put its result.
pub const RESULTS: [&str; 2] = [task::RESULT, task::RESULT_LZ4];
/// The size limit of a result, packed or not, in bytes: those of build2's workers hold
/// their logs.
pub(super) const RESULT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The number of artifacts that a guest may put in a build.
pub(super) const FILES_MAX: usize = 10_000;

/// Returns the files of a build's guest, and registers how it is resumed at a breakpoint.
pub(super) async fn namespace(agent: &Arc<AgentState>, build: &Build) -> io::Result<Namespace> {
    let (task_agent, build) = (Arc::clone(agent), build.clone());
    let id = build.id;
    let (map, resume) = blocking(move || {
        let directory = task_agent.paths.build(build.id);
        let map = map(&task_agent, &task(&task_agent, &build), &directory);
        let (mut map, resume) = map?;
        if build.controller.is_some() {
            offer_given_task(&mut map, &directory, &build)?;
        }
        Ok::<_, io::Error>((map, resume))
    })
    .await?;
    agent.jobs.with(|jobs| {
        if let Some(job) = jobs.builds.get_mut(&id) {
            job.resume = resume;
        }
    });
    Ok(map)
}

/// Offers the task of a controller. One with auxiliary machines does not exist for the guest until
/// all of these have put their environments.
fn offer_given_task(map: &mut Namespace, directory: &Path, build: &Build) -> io::Result<()> {
    if build.has_script() {
        map.offer(task::SCRIPT, given_script(directory)?.script.into_bytes());
        return Ok(());
    }
    if build.is_guarded() {
        // A build of a farm with sources has a task like those of clients.
        return Ok(());
    }
    if build.auxiliaries().next().is_none() {
        let given = sys::trusted::read(directory.join(GIVEN_TASK))?;
        map.offer(task::TASK, given);
        return Ok(());
    }
    match auxiliary_task::complete_task(directory, build) {
        Ok(complete) => map.offer(task::TASK, complete),
        Err(_) => map.offer(task::TASK, DeferredFile::default()),
    }
    Ok(())
}

/// Reads the script of a controller's task.
///
/// # Errors
/// It cannot be read.
pub(super) fn given_script(directory: &Path) -> io::Result<GivenScript> {
    let given = sys::trusted::read(directory.join(GIVEN_TASK))?;
    serde_json::from_slice(&given).map_err(io::Error::other)
}

/// Returns the task of the guest of a build.
pub fn task(agent: &AgentState, build: &Build) -> Task {
    Task {
        build: build.id,
        machine: build.machine.clone(),
        toolchain: build.toolchain.clone(),
        interactive: build.interactive.breakpoint,
        hold: build.interactive.hold || agent.settings().builds.hold_always,
        commands: build.interactive.commands.is_some(),
        script: build.has_script(),
        log_bytes_max: Some(agent.settings().builds.log_bytes_max),
        secrets: build.secrets.clone(),
        cache: cache::mode(agent, build),
        hashserv: hashserv::mode(agent, build).is_some(),
        sources: build.sources.clone(),
    }
}

/// A guest with a task fetches that and the sources, and puts what comes out into
/// `directory`. One that waits at a breakpoint continues when the text is given that is
/// returned.
pub fn map(
    agent: &AgentState,
    task: &Task,
    directory: &Path,
) -> io::Result<(Namespace, Option<DeferredFile>)> {
    let limits = &agent.settings().builds;
    let mut map = Namespace::new(limits.artifacts_bytes_max, FILES_MAX);
    map.offer(task::TASK, task.print());
    for source in &task.sources {
        let file = sys::untrusted::open(&agent.paths.sources(), source.sha256.as_str())?;
        map.offer(&format!("{}{}", task::SOURCES, source.name), Arc::new(file));
    }
    map.accept_below(
        task::ARTIFACTS,
        directory.join(ARTIFACTS),
        limits.artifacts_bytes_max,
    );
    for name in task::RESERVED_ARTIFACTS {
        map.reserve(&format!("{}{name}", task::ARTIFACTS));
    }
    let resume = task.interactive.map(|_| {
        let resume = DeferredFile::default();
        map.offer(task::RESUME, resume.clone());
        let path = directory.join(task::BREAKPOINT);
        map.accept(task::BREAKPOINT, path, RESULT_BYTES_MAX);
        resume
    });
    map.accept(task::LOG, directory.join(task::LOG), limits.log_bytes_max);
    let upload = directory.join(task::UPLOAD);
    map.accept_artifacts(task::UPLOAD, upload, limits.artifacts_bytes_max);
    for name in RESULTS {
        map.accept(name, directory.join(name), RESULT_BYTES_MAX);
    }
    Ok((map, resume))
}

/// Returns true if the guest that puts its files into `directory` has reported that it
/// waits at its breakpoint.
pub fn waits(directory: &Path) -> bool {
    let said = sys::untrusted::read_text(directory, task::BREAKPOINT, RESULT_BYTES_MAX)
        .unwrap_or_default();
    BreakpointState::parse(&said) == Ok(BreakpointState::Waiting)
}

/// Returns the files that receive the output of a guest.
pub fn record(agent: &AgentState, directory: &Path) -> log_capture::CaptureFiles {
    log_capture::CaptureFiles {
        console: directory.join(CONSOLE),
        log: directory.join(LIVE_LOG),
        log_times: directory.join(LOG_TIMES),
        bytes_max: agent.settings().builds.log_bytes_max,
    }
}
