//! A scope for each guest: a unit of systemd around processes that another program has started.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};
use zbus::Connection;
use zbus::zvariant::Value;

use crate::bus::{BusError, SYSTEMD};
use crate::{LIMIT, names};

/// The time without scopes after systemd did not answer.
const AVOIDED: Duration = Duration::from_mins(5);
/// The pause between two looks at the control group of a process.
const PAUSE: Duration = Duration::from_millis(1);
/// The slice of virtual machines and containers.
const SLICE: &str = "machine.slice";
/// The unit that is stopped before the scopes of its guests.
const AGENT: &str = "buildhost-agent.service";
/// The signal of a stop, SIGCONT, which does nothing: the agent ends the guest itself. After
/// [`STOP_USEC`] systemd kills what is left.
const STOP_SIGNAL: i32 = 18;
const STOP_USEC: u64 = 20_000_000;

/// The instant until which no scope is started, because systemd did not answer.
static AVOIDED_UNTIL: Mutex<Option<Instant>> = Mutex::new(None);

/// A scope with the process of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The name of its unit.
    pub unit: String,
    /// Its path in the hierarchy of control groups (version 2). `None` if systemd uses another one.
    pub path: Option<PathBuf>,
}

/// Moves a process into a scope of its own, which is named after `group`. Returns `None` on a host without
/// machined, and when systemd refuses or does not answer in time. Blocks.
pub fn start(group: &str, pid: u32) -> Option<Scope> {
    if !crate::is_present() || AVOIDED_UNTIL.lock().is_some_and(|it| it > Instant::now()) {
        return None;
    }
    let unit = names::unit(group, pid);
    match block_on(enter(&unit, group, pid)) {
        Ok(path) => Some(Scope { unit, path }),
        Err(error) => {
            if matches!(error, BusError::Timeout) {
                *AVOIDED_UNTIL.lock() = Some(Instant::now() + AVOIDED);
            }
            let error = &error as &dyn std::error::Error;
            warn!(
                error,
                unit, "systemd gives a guest no scope: machinectl will not show it"
            );
            None
        }
    }
}

/// Returns true if systemd says that the kernel killed a process of a scope for want of memory. For a
/// scope whose control group systemd has removed already. Blocks.
pub fn ran_out_of_memory(unit: &str) -> bool {
    let result = block_on(async {
        let bus = Connection::system().await?;
        let call = SYSTEMD.call(&bus, "GetUnit", &unit).await?;
        let path: zbus::zvariant::OwnedObjectPath = call.body().deserialize()?;
        let scope = zbus::Proxy::new(
            &bus,
            SYSTEMD.service,
            path,
            "org.freedesktop.systemd1.Scope",
        );
        Ok(scope.await?.get_property::<String>("Result").await?)
    });
    match result {
        Ok(result) => result == "oom-kill",
        Err(error) => {
            // A scope that ended otherwise does not exist any more.
            debug!(
                error = &error as &dyn std::error::Error,
                unit, "the scope is gone"
            );
            false
        }
    }
}

/// Runs a dialog with systemd on this thread, for a limited time.
fn block_on<T>(dialog: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BusError::Runtime)?;
    let ended = runtime.block_on(async { timeout(LIMIT, dialog).await });
    runtime.shutdown_background();
    ended.unwrap_or(Err(BusError::Timeout))
}

async fn enter(unit: &str, group: &str, pid: u32) -> Result<Option<PathBuf>, BusError> {
    let bus = Connection::system().await?;
    let properties = vec![
        (
            "Description",
            Value::from(format!("Guest {group} of Buildhost")),
        ),
        ("Slice", Value::from(SLICE)),
        ("PIDs", Value::from(vec![pid])),
        // The agent sets the limits in a group of its own below.
        ("Delegate", Value::from(true)),
        ("KillSignal", Value::from(STOP_SIGNAL)),
        ("TimeoutStopUSec", Value::from(STOP_USEC)),
        // When the host stops, the agent ends its guests itself.
        ("Before", Value::from(vec![AGENT])),
    ];
    let auxiliary: Vec<(&str, Vec<(&str, Value<'_>)>)> = Vec::new();
    let body = (unit, "fail", properties, auxiliary);
    SYSTEMD.call(&bus, "StartTransientUnit", &body).await?;
    let file = format!("/proc/{pid}/cgroup");
    loop {
        let text = sys::trusted::read_text(&file).map_err(BusError::Process)?;
        if names::is_in_unit(&text, unit) {
            return Ok(names::path_of_unit(&text, unit).map(PathBuf::from));
        }
        sleep(PAUSE).await;
    }
}
