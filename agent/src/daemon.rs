//! The life of the agent: takes its places, cleans up after whoever was there
//! before, runs, and leaves nothing half done.

use std::error::Error;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::settings::Settings;
use nix::unistd::{User, geteuid};
use store::Volume;
use store::toolchains::Toolchains;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::housekeeping::{disk_pressure, retention};
use crate::jobs::{self, build, hold};
use crate::records::Records;
use crate::scheduler::{self, log_cleaning};
use crate::state::AgentState;
use crate::state::maintenance;
use crate::triggers::fs_watch::Watch;
use crate::{api, blocking, pr_service, session};

/// The time in which running builds must end when the agent stops.
const STOP_LIMIT: Duration = Duration::from_mins(1);
/// The mark in the run directory that says: an agent has started since the boot.
const STARTED: &str = "started";

/// The reason for which the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host is not as it must be; the words say the way out.
    #[error("{0}")]
    Refused(String),
    /// Something failed us.
    #[error("cannot {action}")]
    Failed {
        /// The action that failed.
        action: String,
        /// The failure.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// The error with everything that caused it.
pub fn words(error: &StartError) -> String {
    sys::error_report::chain(error)
}

/// Says what we were doing when something failed.
trait Doing<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, StartError>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, StartError> {
        self.map_err(|error| StartError::Failed {
            action: action(),
            source: error.into(),
        })
    }
}

/// Runs the agent until it is told to stop.
///
/// # Errors
/// When it cannot start.
pub fn run(settings: Settings) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime
        .doing(|| "start the agent's threads".to_owned())?
        .block_on(live(settings))
}

async fn live(settings: Settings) -> Result<(), StartError> {
    let mut signals = Signals::new().doing(|| "listen for signals".to_owned())?;
    let guest_user = check_host(&settings)?;
    let _lock = lock(&settings)?;
    let agent = Arc::new(open(settings, guest_user)?);
    if let Some(outdated) = blocking(store::btrfs_progs::outdated).await {
        warn!("{outdated}");
    }
    recover(&agent).await?;
    let watch = Watch::new(&agent).doing(|| "watch directories".to_owned())?;
    let socket = api::bind(&agent)
        .await
        .doing(|| "open the administration socket".to_owned())?;
    let pr = serve_pr(&agent).await?;
    let served = tokio::spawn(api::serve(Arc::clone(&agent), socket));
    let reconciled = tokio::spawn(scheduler::run(Arc::clone(&agent), watch));
    let retained = tokio::spawn(retention::run(Arc::clone(&agent)));
    let watched = tokio::spawn(disk_pressure::watch(Arc::clone(&agent)));
    info!(
        name = agent.settings.name,
        version = env!("CARGO_PKG_VERSION"),
        "the agent is ready"
    );
    match signals.next().await {
        Told::Stop => info!("the agent stops; running builds go back into the queue"),
        Told::Leave => {
            info!("the agent stops; guests of builds run on for the next one");
            agent.leaving.cancel();
        }
    }
    agent.stopping.cancel();
    agent.tasks.close();
    let _ = (reconciled.await, retained.await, watched.await);
    if timeout(STOP_LIMIT, agent.tasks.wait()).await.is_err() {
        warn!("some guests did not end in time; the next start cleans up after them");
    }
    let _ = served.await;
    if let Some(pr) = pr {
        let _ = pr.await;
    }
    agent.pr.close().await;
    info!("the agent has stopped");
    Ok(())
}

/// The meaning of a signal.
enum Told {
    /// Stop, with everything that we started.
    Stop,
    /// Stop, so that another agent can go on.
    Leave,
}

/// The signals that mean something to us.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hang_up.recv() => Told::Leave,
        }
    }
}

/// Refuses a host on which no guest could run. Returns the guests' user and group.
fn check_host(settings: &Settings) -> Result<(u32, u32), StartError> {
    if !geteuid().is_root() {
        return Err(StartError::Refused("the agent must run as root".to_owned()));
    }
    let name = &settings.guests.user;
    match User::from_name(name).doing(|| format!("look up the user {name}"))? {
        Some(user) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        None => Err(StartError::Refused(format!(
            "there is no user {name} for guests to run as; make one with \
             `useradd --system --no-create-home --shell /usr/sbin/nologin {name}`, \
             or name another one in the setting guests.user"
        ))),
    }
}

/// Takes the run directory for ourselves, until the returned file is dropped.
fn lock(settings: &Settings) -> Result<File, StartError> {
    let run = &settings.paths.run;
    make_directory(run)?;
    let path = run.join("lock");
    let file = File::create(&path).doing(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Refused(format!(
            "another agent runs with the run directory {}; stop it first, or give this one a paths.run of its own",
            run.display()
        ))),
        Err(TryLockError::Error(error)) => Err(error).doing(|| format!("lock {}", path.display())),
    }
}

fn make_directory(path: &Path) -> Result<(), StartError> {
    std::fs::create_dir_all(path).doing(|| format!("make the directory {}", path.display()))
}

fn open(settings: Settings, guest_user: (u32, u32)) -> Result<AgentState, StartError> {
    let paths = &settings.paths;
    let volumes = paths
        .volumes
        .iter()
        .map(|path| Volume::open(path).doing(|| format!("use the volume {}", path.display())))
        .collect::<Result<_, _>>()?;
    make_directory(&paths.toolchains)?;
    let toolchains =
        Toolchains::open(&paths.toolchains).doing(|| "use the toolchains".to_owned())?;
    make_directory(&paths.state)?;
    let records = Records::open(&paths.state.join("records.sqlite3"))
        .doing(|| "open the records".to_owned())?;
    let options =
        pr_service::options(&settings.pr).doing(|| "use the setting pr.proxy".to_owned())?;
    let pr = prserv::Service::open(&options)
        .doing(|| format!("open the PR service's database {}", settings.pr.database))?;
    let agent = AgentState::new(settings, volumes, toolchains, records, pr, guest_user);
    for directory in [
        agent.paths.sources(),
        agent.paths.bootstraps(),
        agent.paths.builds(),
    ] {
        make_directory(&directory)?;
    }
    make_directory(&session::guests_directory(&agent.settings.paths.run))?;
    maintenance::load(&agent).doing(|| "read whether the host is drained".to_owned())?;
    Ok(agent)
}

/// Recovers from earlier agents: settles their builds, adopts guests that still run, ends
/// everything else that they left, and cleans the volumes at the first start since boot.
async fn recover(agent: &Arc<AgentState>) -> Result<(), StartError> {
    let running = build::recover(agent)
        .await
        .doing(|| "settle the builds of an earlier agent".to_owned())?;
    let holds = hold::recover(agent)
        .await
        .doing(|| "read the holds of an earlier agent".to_owned())?;
    let kept = running
        .iter()
        .chain(&holds)
        .map(|build| build.id.to_string())
        .collect();
    session::end_orphans(&agent.guests, &kept).await;
    let debug_sessions = agent.paths.debug_sessions();
    sys::file::fresh_directory(&debug_sessions)
        .doing(|| format!("make the directory {}", debug_sessions.display()))?;
    let mark = agent.settings.paths.run.join(STARTED);
    if !mark.exists() {
        info!("first start since boot: cleaning the volumes");
        for volume in &agent.volumes {
            let volume = volume.clone();
            log_cleaning(&blocking(move || volume.clean_after_boot()).await);
        }
        File::create(&mark).doing(|| format!("make the mark {}", mark.display()))?;
    }
    for build in running {
        jobs::adopt_build(agent, build).await;
    }
    for build in holds {
        hold::adopt(agent, build).await;
    }
    Ok(())
}

/// Lets others than guests ask the PR service, if the settings say so.
async fn serve_pr(
    agent: &Arc<AgentState>,
) -> Result<Option<tokio::task::JoinHandle<std::io::Result<()>>>, StartError> {
    let Some(address) = &agent.settings.pr.listen else {
        return Ok(None);
    };
    let listener = TcpListener::bind(address).await;
    let listener = listener.doing(|| format!("listen on {address} for the PR service"))?;
    let stopping = agent.stopping.clone();
    let server = pr_service::server(agent.pr.clone(), &agent.settings.pr)
        .doing(|| "read the tokens of the setting pr.token_file".to_owned())?;
    let serve = async move { server.serve(listener, stopping.cancelled_owned()).await };
    Ok(Some(tokio::spawn(serve)))
}
