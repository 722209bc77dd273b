//! Transfers: the logs, artifacts and images of this host that a farm wants, and the images that this
//! host fetches.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::os::unix::net;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::builds::{Build, SOCKET};
use config::canary::{Decider, FarmTrial};
use config::uri::percent_encode;
use config::{BuildId, MachineName};
use controllers::farm::{FarmError, FarmKey, Supply, SupplyBody, Upgraded};
use farm_core::transfers::{TransferId, TransferOrder, Wanted};
use farm_core::{Lease, Published};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use records::RecordsError;
use serde_json::{Value, json};
use state::AgentState;
use store::send::{RemoteSession, provide};
use store::stream::TimeoutReader;
use store::{StoreError, Volume};
use sys::blocking::blocking;
use tokio::io::copy_bidirectional;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use super::{Farm, lease, offer};

/// The time for which a transfer is known that has begun. Coordinators repeat it for a shorter one.
const KNOWN_FOR: Duration = Duration::from_mins(5);
/// The time within which both ends of a connection are closed when one has ended.
const CLOSE_MAX: Duration = Duration::from_mins(1);
/// The name of the other host in messages, which only the coordinator knows.
const SOURCE: &str = "a host of the farm";

/// A failure of a transfer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    /// The farm.
    #[error(transparent)]
    Farm(#[from] FarmError),
    /// The records.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The volume.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The agent does not answer itself.
    #[error("the agent does not answer at its own socket")]
    Agent(#[source] Box<dyn Error + Send + Sync>),
    /// No volume of this host has or takes the machine.
    #[error("this host has no volume for machine {0}")]
    NoVolume(MachineName),
    /// The host that sends has other content than the farm has published.
    #[error("the host that sends revision {1} of {0} has other content than the published one")]
    OtherContent(MachineName, config::Revision),
    /// This host has other content under the number of a revision on trial.
    #[error("revision {1} of {0} has other content here than the one on trial in the farm")]
    OtherContentHere(MachineName, config::Revision),
    /// The trial of a revision that the farm has published could not be ended.
    #[error("cannot promote revision {1} of {0}, which is on trial")]
    NotPromoted(MachineName, config::Revision),
    /// The connection.
    #[error("cannot connect a transfer")]
    Connection(#[from] io::Error),
}

/// The transfers that have begun.
#[derive(Debug, Default)]
pub(super) struct Begun(BTreeMap<TransferId, Instant>);

impl Begun {
    /// Returns the orders that are new.
    pub(super) fn new_ones(&mut self, orders: Vec<TransferOrder>) -> Vec<TransferOrder> {
        self.0.retain(|_, since| since.elapsed() < KNOWN_FOR);
        let mut new = orders;
        new.retain(|it| self.0.insert(it.id.clone(), Instant::now()).is_none());
        new
    }
}

/// Sends what a coordinator wants.
pub(super) async fn send(
    agent: Arc<AgentState>,
    farm: Arc<Farm>,
    key: Arc<FarmKey>,
    order: TransferOrder,
) {
    let sent = match &order.wanted {
        Wanted::Log {
            lease,
            offset,
            follow,
        } => {
            let path = format!("log?offset={offset}&follow={follow}");
            send_file(&agent, &farm, &key, &order, *lease, &path).await
        }
        Wanted::Artifacts { lease } => send_list(&agent, &farm, &key, &order, *lease).await,
        Wanted::Provenance { lease, signed } => {
            let path = if *signed {
                "provenance/signed"
            } else {
                "provenance"
            };
            send_file(&agent, &farm, &key, &order, *lease, path).await
        }
        Wanted::Artifact { lease, name } => {
            let path = format!("artifacts/{}", percent_encode(name.as_str()));
            send_file(&agent, &farm, &key, &order, *lease, &path).await
        }
        Wanted::Image { machine, .. } => send_image(&agent, &farm, &key, &order, machine).await,
    };
    if let Err(failure) = sent {
        let error = &failure as &dyn Error;
        warn!(controller = %farm.rules.name, wanted = ?order.wanted, error, "a transfer has failed");
    }
}

async fn send_file(
    agent: &AgentState,
    farm: &Farm,
    key: &FarmKey,
    order: &TransferOrder,
    held: Lease,
    path: &str,
) -> Result<(), TransferError> {
    let (name, session) = (farm.rules.name.clone(), lease::session(held));
    // A build that was deleted has no number here: the agent says that it does not exist.
    let build = agent.records.build_of_session(name, session).await?;
    let build = build.unwrap_or(BuildId(0));
    let answer = ask(agent, &format!("/api/v1/builds/{build}/{path}")).await;
    let (parts, body) = answer.map_err(TransferError::Agent)?.into_parts();
    let supply = Supply {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: SupplyBody::wrap(body),
    };
    Ok(farm.client.supply(key, order, supply).await?)
}

/// Sends the list of a build's artifacts, which is a part of its record.
async fn send_list(
    agent: &AgentState,
    farm: &Farm,
    key: &FarmKey,
    order: &TransferOrder,
    held: Lease,
) -> Result<(), TransferError> {
    let (name, session) = (farm.rules.name.clone(), lease::session(held));
    let record = match agent.records.build_of_session(name, session).await? {
        Some(build) => agent.records.get(build).await?,
        None => None,
    };
    let (status, list) = list_of(record.as_ref());
    let json = header::HeaderValue::from_static("application/json");
    let supply = Supply {
        status,
        headers: [(header::CONTENT_TYPE, json)].into_iter().collect(),
        body: SupplyBody::from(list.to_string()),
    };
    Ok(farm.client.supply(key, order, supply).await?)
}

/// Returns the answer about the artifacts of a build, with its status.
fn list_of(record: Option<&Build>) -> (u16, Value) {
    match record {
        Some(build) => (200, json!(build.artifacts)),
        None => (
            404,
            json!({ "error": "its host does not have the build any more" }),
        ),
    }
}

/// Asks the agent itself, so that a farm sees exactly what clients of this host see.
async fn ask(
    agent: &AgentState,
    path: &str,
) -> Result<Response<Incoming>, Box<dyn Error + Send + Sync>> {
    let socket = UnixStream::connect(agent.settings().paths.run.join(SOCKET)).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    // It ends with the body of the answer.
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, "agent");
    Ok(sender
        .send_request(request.body(Empty::<Bytes>::new())?)
        .await?)
}

async fn send_image(
    agent: &Arc<AgentState>,
    farm: &Farm,
    key: &FarmKey,
    order: &TransferOrder,
    machine: &MachineName,
) -> Result<(), TransferError> {
    let connection = farm.client.join(key, order).await?;
    let (end, bridge) = bridge(connection)?;
    let (agent, machine) = (Arc::clone(agent), machine.clone());
    let provided = blocking(move || {
        let volume = volume_of(&agent, &machine)?;
        let input = TimeoutReader::pipe(&end)?;
        Ok(provide(volume, &machine, input, &mut &end)?)
    });
    let provided = provided.await;
    close(bridge).await;
    provided
}

/// Transfers a revision from another host, and makes it current or puts it on trial for the farm. Returns
/// false if this host has it, or a newer one.
pub(super) async fn transfer(
    agent: &Arc<AgentState>,
    farm: &Farm,
    key: &FarmKey,
    machine: &MachineName,
    published: &Published,
    trial: Option<FarmTrial>,
) -> Result<bool, TransferError> {
    let wanted = offer::revision(published.revision);
    let connection = farm.client.fetch(key, machine, published.revision).await?;
    let (end, bridge) = bridge(connection)?;
    let (own, name) = (Arc::clone(agent), machine.clone());
    let content = published.content.clone();
    let fetched = blocking(move || {
        let volume = volume_of(&own, &name)?;
        let session = RemoteSession::over(end, SOURCE.to_owned())?;
        let offered = session.greeting().machine.as_ref();
        let offered = offered.and_then(|it| it.revision(wanted));
        let manifest = offered.and_then(|it| it.content.content_manifest.clone());
        if manifest.is_some() && content.is_some() && manifest != content {
            return Err(TransferError::OtherContent(name, wanted));
        }
        let mut pull = volume.plan_fetch(&name, Some(wanted), vec![session], &mut |_| {})?;
        if pull.is_up_to_date() {
            return Ok(false);
        }
        pull.trial = trial.map(Decider::Farm);
        pull.reserve_bytes = own.settings().paths.reserve_bytes.max(1);
        volume.pull(pull, false, &mut |_| {})?;
        if !volume.has_content_manifest(&name, wanted) {
            // The content is known by a record then, which is compared with the published one.
            volume.record(&name, wanted)?;
        }
        Ok(true)
    });
    let fetched = fetched.await;
    close(bridge).await;
    fetched
}

/// Returns the volume that has a machine, or the first one for a new machine. Blocks.
pub(super) fn volume_of<'a>(
    agent: &'a AgentState,
    machine: &MachineName,
) -> Result<&'a Volume, TransferError> {
    let located = agent.volumes.of_machine(machine)?;
    let volume = match located {
        Some(located) => agent.volumes.get(located.volume),
        None => agent.volumes.iter().next(),
    };
    volume.ok_or_else(|| TransferError::NoVolume(machine.clone()))
}

/// Connects a connection of the farm with a socket, whose other end programs can use that block.
fn bridge(mut connection: Upgraded) -> Result<(net::UnixStream, JoinHandle<()>), TransferError> {
    let (own, end) = net::UnixStream::pair()?;
    own.set_nonblocking(true)?;
    let mut own = UnixStream::from_std(own)?;
    let bridge = tokio::spawn(async move {
        // An end that is cut is noticed by the dialogue.
        let _ = copy_bidirectional(&mut own, &mut connection).await;
    });
    Ok((end, bridge))
}

/// Waits until the other end has everything.
async fn close(mut bridge: JoinHandle<()>) {
    if timeout(CLOSE_MAX, &mut bridge).await.is_err() {
        bridge.abort();
    }
}

#[cfg(test)]
mod tests {
    use farm_core::Revision;

    use super::*;

    #[test]
    fn an_order_that_is_repeated_begins_once() {
        let order = TransferOrder {
            id: TransferId("a".to_owned()),
            coordinator: "http://c".to_owned(),
            wanted: Wanted::Image {
                machine: "linux".parse().unwrap(),
                revision: Revision(1),
            },
        };
        let mut begun = Begun::default();
        assert_eq!(begun.new_ones(vec![order.clone()]).len(), 1);
        assert!(begun.new_ones(vec![order]).is_empty());
    }

    #[test]
    fn a_build_that_was_deleted_has_no_list_of_artifacts() {
        let (status, answer) = list_of(None);
        assert_eq!(status, 404);
        assert!(answer["error"].as_str().unwrap().contains("any more"));
    }
}
