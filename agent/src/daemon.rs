//! The life cycle of the agent: start-up, recovery from earlier agents, operation and
//! shutdown.

use std::error::Error;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cache::Caches;
use config::settings::Settings;
use nix::unistd::geteuid;
use prserv::listen::listen_on_port;
use records::Records;
use rustix::fs::Mode;
use session::{BitBakeServices, hash_service, pr_service};
use store::toolchains::Toolchains;
use store::{RefusalKind, Volume};
use sys::blocking::blocking;
use telemetry::Telemetry;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::{info, warn};

use crate::api;
use crate::housekeeping::{disk_pressure, machined, retention};
use crate::log::LogFilter;
use crate::scheduler::{self, log_cleaning};
use crate::service_manager;
use crate::settings_file::SettingsFile;
use crate::triggers::controllers;
use crate::triggers::fs_watch::Watch;
use crate::triggers::layers;
use crate::triggers::pull;
use crate::triggers::{feeds, notifications, problems};
use jobs::{self, build, hold};
use state::AgentState;
use state::maintenance;
use state::paths::StatePaths;

/// The time in which running builds must end when the agent stops.
const STOP_LIMIT: Duration = Duration::from_mins(1);
/// The time in which connections and the PR service must end then.
const CLOSE_LIMIT: Duration = Duration::from_secs(15);
/// The time in which threads that block, such as on a disk that does not answer, must end then.
const BLOCKING_LIMIT: Duration = Duration::from_secs(10);
/// The marker in the run directory that an agent has started since the host booted.
const STARTED: &str = "started";

/// The reason for which the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host lacks a requirement; the text names the remedy.
    #[error("{0}")]
    Refused(String),
    /// An action failed.
    #[error("cannot {action}")]
    Failed {
        /// The action that failed.
        action: String,
        /// The failure.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Adds the failed action to an error.
trait ErrorContext<T> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T, StartError>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> ErrorContext<T> for Result<T, E> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T, StartError> {
        self.map_err(|error| StartError::Failed {
            action: action(),
            source: error.into(),
        })
    }
}

/// Runs the agent until a signal stops it.
///
/// # Errors
/// The agent cannot start.
pub fn run(settings: Settings, file: SettingsFile, log: LogFilter) -> Result<(), StartError> {
    sys::descriptors::close_on_exec()
        .context(|| "close the descriptors of the agent's parent to guests".to_owned())?;
    // Only root may open what the agent makes; its administration socket has a mode of its own.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context(|| "start the agent's threads".to_owned())?;
    let stopped = runtime.block_on(run_async(settings, file, log));
    runtime.shutdown_timeout(BLOCKING_LIMIT);
    stopped.map(drop)
}

/// Returns the locks of the directories, which must outlive the threads that use these.
async fn run_async(
    settings: Settings,
    file: SettingsFile,
    log: LogFilter,
) -> Result<[File; 2], StartError> {
    let mut signals = Signals::new().context(|| "listen for signals".to_owned())?;
    check_host()?;
    let locks = [
        lock(&settings.paths.run, "run", "paths.run")?,
        lock(&settings.paths.state, "state", "paths.state")?,
    ];
    let agent = Arc::new(open_state(settings, &file)?);
    warn_of_old_programs().await;
    let members = controller_members(&agent).await?;
    recover(&agent).await?;
    let watch = Watch::new(&agent).context(|| "watch directories".to_owned())?;
    let api = api::bind(&agent)
        .await
        .context(|| "open the administration socket".to_owned())?;
    let pr = serve_pr(&agent).await?;
    let hashserv = serve_hashserv(&agent).await?;
    let served = tokio::spawn(api::serve(Arc::clone(&agent), api));
    let scheduler = tokio::spawn(scheduler::run(Arc::clone(&agent), watch));
    let retention = tokio::spawn(retention::run(Arc::clone(&agent)));
    let disk_pressure = tokio::spawn(disk_pressure::watch(Arc::clone(&agent)));
    start_triggers(&agent, members);
    info!(
        name = agent.settings().name,
        version = env!("CARGO_PKG_VERSION"),
        "the agent is ready"
    );
    service_manager::ready();
    let reload = Arc::new((file, log));
    loop {
        match signals.next().await {
            Request::Reload => {
                let (reload, agent) = (Arc::clone(&reload), Arc::clone(&agent));
                blocking(move || reload.0.reload(&agent, &reload.1)).await;
            }
            Request::Stop => {
                info!("stopping; running builds are queued again");
                break;
            }
            Request::HandOver => {
                info!("stopping; the guests of builds keep running for the next agent");
                agent.leaving.cancel();
                break;
            }
        }
    }
    service_manager::stopping();
    agent.stopping.cancel();
    agent.tasks.close();
    let work = async {
        let _ = tokio::join!(scheduler, retention, disk_pressure);
        // No other task starts a job.
        agent.tasks.wait().await;
        jobs::ready::discard_all(&agent).await;
    };
    if timeout(STOP_LIMIT, work).await.is_err() {
        warn!("some guests did not end in time; the next start cleans up");
    }
    let services = async {
        let _ = served.await;
        for service in [pr, hashserv].into_iter().flatten() {
            let _ = service.await;
        }
        agent.bitbake.close().await;
    };
    if timeout(CLOSE_LIMIT, services).await.is_err() {
        warn!("the connections and the PR service did not end in time");
    }
    info!("the agent has stopped");
    Ok(locks)
}

/// The request of a signal.
enum Request {
    /// Reads the settings again.
    Reload,
    /// Stops the agent and ends all guests.
    Stop,
    /// Stops the agent and leaves the guests of builds for the next one to adopt.
    HandOver,
}

/// The signals that the agent handles.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    hand_over: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            hand_over: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.terminate.recv() => Request::Stop,
            _ = self.interrupt.recv() => Request::Stop,
            _ = self.hang_up.recv() => Request::Reload,
            _ = self.hand_over.recv() => Request::HandOver,
        }
    }
}

/// Starts the tasks that ask others for work, and the one that answers machined.
fn start_triggers(agent: &Arc<AgentState>, members: controllers::Members) {
    tokio::spawn(machined::run(Arc::clone(agent)));
    tokio::spawn(pull::run(Arc::clone(agent)));
    tokio::spawn(layers::run(Arc::clone(agent)));
    notifications::run(agent);
    problems::run(agent, problems::Pace::USUAL);
    feeds::run(agent, feeds::EXPIRY);
    let controllers = controllers::run(Arc::clone(agent), members);
    agent.tasks.spawn(controllers);
}

/// Logs that programs of the host are outdated.
async fn warn_of_old_programs() {
    if let Some(outdated) = blocking(store::btrfs_progs::outdated).await {
        warn!(error = &outdated as &dyn Error, "btrfs-progs are outdated");
    }
}

/// Returns the controllers of the settings.
async fn controller_members(agent: &Arc<AgentState>) -> Result<controllers::Members, StartError> {
    let agent = Arc::clone(agent);
    let members = blocking(move || controllers::members(&agent)).await;
    members.context(|| "use the settings of the controllers".to_owned())
}

/// Checks the user of the agent.
fn check_host() -> Result<(), StartError> {
    if geteuid().is_root() {
        Ok(())
    } else {
        Err(StartError::Refused("the agent must run as root".to_owned()))
    }
}

/// Creates a directory of the agent, closes it to other users, and locks it until the returned
/// file is dropped. `kind` and `setting` name it in a refusal.
#[expect(
    clippy::disallowed_methods,
    reason = "the file is in a directory that only root may change"
)]
fn lock(directory: &Path, kind: &str, setting: &str) -> Result<File, StartError> {
    create_directory(directory)?;
    let path = directory.join("lock");
    let file = File::create(&path).context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {
            sys::file::close_tree(directory)
                .context(|| format!("close {} to other users", directory.display()))?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(StartError::Refused(format!(
            "another agent runs with the {kind} directory {}, whose file `lock` it holds; stop it first, or give this one a {setting} of its own",
            directory.display()
        ))),
        Err(TryLockError::Error(error)) => {
            Err(error).context(|| format!("lock {}", path.display()))
        }
    }
}

fn create_directory(path: &Path) -> Result<(), StartError> {
    std::fs::create_dir_all(path).context(|| format!("create the directory {}", path.display()))
}

/// Checks that the agent can use its settings on this host.
///
/// # Errors
/// A volume cannot be opened.
pub fn check(settings: &Settings) -> Result<(), StartError> {
    let mut volumes = settings.paths.volumes.iter();
    volumes.try_for_each(|path| open_volume(path).map(drop))
}

/// Opens a volume. A new host has none, so that the refusal names the first steps.
fn open_volume(path: &Path) -> Result<Volume, StartError> {
    Volume::open(path).map_err(|error| match error.kind() {
        Some(RefusalKind::NoVolume) => StartError::Refused(format!(
            "{error}. The steps on a new host: 1. `buildhost init {0}`, 2. `buildhost toolchain add default DIRECTORY`, 3. `systemctl start buildhost-agent`",
            path.display()
        )),
        _ => StartError::Failed {
            action: format!("open the volume {}", path.display()),
            source: error.into(),
        },
    })
}

fn open_state(settings: Settings, file: &SettingsFile) -> Result<AgentState, StartError> {
    let paths = &settings.paths;
    let volumes = paths.volumes.iter().map(|path| open_volume(path));
    let volumes = volumes.collect::<Result<_, _>>()?;
    create_directory(&paths.toolchains)?;
    let toolchains =
        Toolchains::open(&paths.toolchains).context(|| "open the toolchains".to_owned())?;
    let telemetry = Telemetry::default();
    let records = Records::open(&paths.state.join("records.sqlite3"), telemetry.clone())
        .context(|| "open the records".to_owned())?;
    let bitbake =
        BitBakeServices::open(&settings).context(|| "start the services for BitBake".to_owned())?;
    let directory = StatePaths::new(&paths.state).caches();
    let (rules, reserve) = (&settings.caches, paths.reserve_bytes);
    let caches = Caches::open(&directory, rules, reserve, &telemetry.metrics);
    let caches = caches.context(|| "open the caches".to_owned())?;
    let agent = AgentState::new(
        settings, volumes, toolchains, records, caches, telemetry, bitbake,
    );
    // The first and only time.
    let _ = agent.settings_file.set(file.path().to_owned());
    for directory in [
        agent.paths.sources(),
        agent.paths.bootstraps(),
        agent.paths.builds(),
    ] {
        create_directory(&directory)?;
    }
    agent
        .catalog
        .prepare()
        .context(|| "open the catalog of layers".to_owned())?;
    agent
        .mirrors
        .prepare()
        .context(|| "prepare the mirrors of repositories".to_owned())?;
    layers::load_fixtures(&agent);
    let prepared = agent.secrets.prepare();
    prepared.context(|| "prepare the directory of the secrets".to_owned())?;
    create_directory(&session::guests_directory(&agent.settings().paths.run))?;
    maintenance::load(&agent).context(|| "read whether the host is drained".to_owned())?;
    Ok(agent)
}

/// Recovers from earlier agents: records the results of their builds, adopts running guests,
/// ends orphans, and cleans the volumes at the first start since the host booted.
async fn recover(agent: &Arc<AgentState>) -> Result<(), StartError> {
    let running = build::recover(agent)
        .await
        .context(|| "recover the builds of an earlier agent".to_owned())?;
    let holds = hold::recover(agent)
        .await
        .context(|| "read the holds of an earlier agent".to_owned())?;
    let auxiliaries = running.iter().flat_map(build::auxiliary_tags);
    let kept = running
        .iter()
        .chain(&holds)
        .map(|build| build.id.to_string())
        .chain(auxiliaries.map(|tag| tag.to_string()))
        .collect();
    session::end_orphans(&agent.guests, &kept).await;
    let shared = Arc::clone(agent);
    let adopted = running.iter().map(|build| build.id).collect();
    blocking(move || {
        shared.caches.drop_orphans(&adopted);
        clean(&shared)
    })
    .await?;
    for build in running {
        jobs::adopt_build(agent, build).await;
    }
    for build in holds {
        hold::adopt(agent, build).await;
    }
    Ok(())
}

/// Deletes the files of earlier debug sessions and, at the first start since the host booted,
/// cleans the volumes. Blocks.
#[expect(
    clippy::disallowed_methods,
    reason = "the file is in a directory that only root may change"
)]
fn clean(agent: &AgentState) -> Result<(), StartError> {
    let debug_sessions = agent.paths.debug_sessions();
    sys::file::fresh_directory(&debug_sessions)
        .context(|| format!("create the directory {}", debug_sessions.display()))?;
    let marker = agent.settings().paths.run.join(STARTED);
    if marker.exists() {
        return Ok(());
    }
    info!("cleaning the volumes: first start since boot");
    for volume in &agent.volumes {
        log_cleaning(&volume.clean_after_boot());
    }
    File::create(&marker).context(|| format!("create {}", marker.display()))?;
    Ok(())
}

/// A service on the network, until the agent stops.
type Serving = tokio::task::JoinHandle<std::io::Result<()>>;

/// Serves the PR service on the network if the settings say so.
async fn serve_pr(agent: &Arc<AgentState>) -> Result<Option<Serving>, StartError> {
    let Some(address) = &agent.settings().pr.listen else {
        return Ok(None);
    };
    let listeners = listen_on_port(address).await;
    let listeners = listeners.context(|| format!("listen on {address} for the PR service"))?;
    let server = pr_service::server(agent.bitbake.pr.clone(), &agent.settings().pr)
        .context(|| "read the tokens of the setting pr.token_file".to_owned())?;
    let serve = |listener, stopped| server.clone().serve(listener, stopped);
    Ok(Some(serve_all(agent, listeners, serve)))
}

/// Serves the hash equivalence service on the network if the settings say so.
async fn serve_hashserv(agent: &Arc<AgentState>) -> Result<Option<Serving>, StartError> {
    let settings = agent.settings();
    let settings = &settings.hashserv;
    let Some((address, service)) = settings.listen.as_ref().zip(agent.bitbake.hashserv.clone())
    else {
        return Ok(None);
    };
    let listeners = listen_on_port(address).await;
    let listeners =
        listeners.context(|| format!("listen on {address} for the hash equivalence service"))?;
    let server = hash_service::server(service, settings);
    let serve = |listener, stopped| server.clone().serve(listener, stopped);
    Ok(Some(serve_all(agent, listeners, serve)))
}

/// Serves a service on all of its sockets until the agent stops.
fn serve_all<F>(
    agent: &AgentState,
    listeners: Vec<TcpListener>,
    serve: impl Fn(TcpListener, WaitForCancellationFutureOwned) -> F,
) -> Serving
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let mut serving = JoinSet::new();
    for listener in listeners {
        serving.spawn(serve(listener, agent.stopping.clone().cancelled_owned()));
    }
    tokio::spawn(async move { serving.join_all().await.into_iter().collect() })
}
