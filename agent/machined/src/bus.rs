//! The connection of an agent with systemd and machined.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tokio::time::timeout;
use zbus::message::Message;
use zbus::zvariant::{DynamicType, OwnedObjectPath, OwnedValue};
use zbus::{Connection, MatchRule, MessageStream};

use crate::{LIMIT, names};

/// The manager of units.
pub(crate) const SYSTEMD: Manager = Manager {
    service: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
/// The manager of machines.
const MACHINED: Manager = Manager {
    service: "org.freedesktop.machine1",
    path: "/org/freedesktop/machine1",
    interface: "org.freedesktop.machine1.Manager",
};
/// The name of the service that machined shows for guests.
const SERVICE: &str = "buildhost";
/// The error of machined about a name that is taken.
const NAME_TAKEN: &str = "org.freedesktop.machine1.MachineExists";
/// The error of machined about a process that is in no machine.
const NO_MACHINE: &str = "org.freedesktop.machine1.NoMachineForPID";
/// The signals that may wait for the agent.
const SIGNALS_MAX: usize = 1024;

/// A reason why systemd or machined did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// It did not answer in time.
    #[error("it did not answer within {} s", LIMIT.as_secs())]
    Timeout,
    /// It refused, or the connection failed.
    #[error(transparent)]
    Bus(#[from] zbus::Error),
    /// Its signal has another form than expected.
    #[error("its message cannot be read")]
    Message(#[from] zbus::zvariant::Error),
    /// The guest's process has ended, or is in no control group.
    #[error("cannot find the guest's process in its scope")]
    Process(#[source] io::Error),
    /// The thread cannot wait.
    #[error("cannot wait for an answer")]
    Runtime(#[source] io::Error),
    /// All names of a guest are taken.
    #[error("all names from {0} on are taken")]
    NamesTaken(String),
}

/// An object of D-Bus that manages others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manager {
    pub(crate) service: &'static str,
    path: &'static str,
    interface: &'static str,
}

impl Manager {
    pub(crate) async fn call(
        self,
        bus: &Connection,
        method: &str,
        body: &(impl serde::Serialize + DynamicType),
    ) -> zbus::Result<Message> {
        let (service, interface) = (Some(self.service), Some(self.interface));
        bus.call_method(service, self.path, interface, method, body)
            .await
    }
}

/// A guest as machined is told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// The name of its control group.
    pub group: String,
    /// The process whose end is its end.
    pub pid: u32,
    /// `true` for a container, `false` for a virtual machine.
    pub is_container: bool,
    /// Its directory on the host, if it is known.
    pub root: Option<PathBuf>,
}

/// The units for which systemd begins a job.
pub type Jobs = Pin<Box<dyn Stream<Item = String> + Send>>;

/// A connection with the system bus.
#[derive(Debug)]
pub struct Bus(Connection);

impl Bus {
    /// Connects.
    ///
    /// # Errors
    /// There is no bus, or it does not answer.
    pub async fn connect() -> Result<Self, BusError> {
        Ok(Self(limited(Connection::system()).await?))
    }

    /// Returns the units for which systemd begins a job from now on. The stream ends with the connection.
    ///
    /// # Errors
    /// systemd does not answer.
    pub async fn jobs(&self) -> Result<Jobs, BusError> {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(SYSTEMD.service)?
            .path(SYSTEMD.path)?
            .interface(SYSTEMD.interface)?
            .member("JobNew")?
            .build();
        let bus = &self.0;
        limited(SYSTEMD.call(bus, "Subscribe", &())).await?;
        let signals = limited(MessageStream::for_match_rule(rule, bus, Some(SIGNALS_MAX))).await?;
        let units = signals.filter_map(|signal| async move {
            let body = signal.ok()?.body();
            let (_, _, unit): (u32, OwnedObjectPath, String) = body.deserialize().ok()?;
            Some(unit)
        });
        Ok(Box::pin(units))
    }

    /// Returns true if systemd stops the host, and all units with it.
    ///
    /// # Errors
    /// systemd does not answer.
    pub async fn is_host_stopping(&self) -> Result<bool, BusError> {
        let state = self.property(SYSTEMD.path, SYSTEMD.interface, "SystemState");
        Ok(state.await?.downcast_ref::<&str>()? == "stopping")
    }

    /// Returns true if systemd stops a unit, or is about to.
    ///
    /// # Errors
    /// systemd does not answer, or does not know the unit.
    pub async fn is_stopping(&self, unit: &str) -> Result<bool, BusError> {
        let reply = limited(SYSTEMD.call(&self.0, "GetUnit", &unit)).await?;
        let path: OwnedObjectPath = reply.body().deserialize()?;
        let interface = "org.freedesktop.systemd1.Unit";
        let state = self.property(path.as_str(), interface, "ActiveState");
        if state.await?.downcast_ref::<&str>()? == "deactivating" {
            return Ok(true);
        }
        let job = self.property(path.as_str(), interface, "Job").await?;
        let (number, job): (u32, OwnedObjectPath) = job.try_into()?;
        if number == 0 {
            return Ok(false);
        }
        let kind = self.property(job.as_str(), "org.freedesktop.systemd1.Job", "JobType");
        Ok(kind.await?.downcast_ref::<&str>()? == "stop")
    }

    /// Returns a property of an object of systemd.
    async fn property(
        &self,
        path: &str,
        interface: &str,
        name: &str,
    ) -> Result<OwnedValue, BusError> {
        let properties = Some("org.freedesktop.DBus.Properties");
        let (service, body) = (Some(SYSTEMD.service), (interface, name));
        let call = self.0.call_method(service, path, properties, "Get", &body);
        Ok(limited(call).await?.body().deserialize()?)
    }

    /// Registers a guest with machined. Returns its name there, or `None` if it was registered before.
    ///
    /// # Errors
    /// machined refuses or does not answer, or all names are taken.
    pub async fn register(&self, guest: &Guest) -> Result<Option<String>, BusError> {
        match limited(MACHINED.call(&self.0, "GetMachineByPID", &guest.pid)).await {
            Ok(_) => return Ok(None),
            Err(error) if error.is(NO_MACHINE) => {}
            Err(error) => return Err(error),
        }
        let class = if guest.is_container {
            "container"
        } else {
            "vm"
        };
        let root = guest.root.as_deref().and_then(|it| it.to_str());
        let id: &[u8] = &[];
        for name in names::candidates(&guest.group) {
            let body = (
                &name,
                id,
                SERVICE,
                class,
                guest.pid,
                root.unwrap_or_default(),
            );
            match limited(MACHINED.call(&self.0, "RegisterMachine", &body)).await {
                Ok(_) => return Ok(Some(name)),
                Err(error) if error.is(NAME_TAKEN) => {}
                Err(error) => return Err(error),
            }
        }
        Err(BusError::NamesTaken(guest.group.clone()))
    }

    /// Lets systemd forget the scopes of guests that have failed. `prefix` is that of their groups.
    ///
    /// # Errors
    /// systemd refuses or does not answer.
    pub async fn forget_failed(&self, prefix: &str) -> Result<(), BusError> {
        let pattern = format!("{prefix}*.scope");
        let body = (vec!["failed"], vec![pattern.as_str()]);
        let reply = limited(SYSTEMD.call(&self.0, "ListUnitsByPatterns", &body)).await?;
        let body = reply.body();
        let units: Vec<Unit<'_>> = body.deserialize()?;
        for unit in units {
            limited(SYSTEMD.call(&self.0, "ResetFailedUnit", &unit.0)).await?;
        }
        Ok(())
    }
}

/// A unit as systemd lists it: its name, description and states, the unit that it follows, its object,
/// and its job.
type Unit<'b> = (
    &'b str,
    &'b str,
    &'b str,
    &'b str,
    &'b str,
    &'b str,
    OwnedObjectPath,
    u32,
    &'b str,
    OwnedObjectPath,
);

impl BusError {
    /// Returns true for the error with this name.
    fn is(&self, name: &str) -> bool {
        matches!(self, Self::Bus(zbus::Error::MethodError(found, _, _)) if found.as_str() == name)
    }
}

/// Waits for an answer for a limited time.
async fn limited<T>(answer: impl Future<Output = zbus::Result<T>>) -> Result<T, BusError> {
    match timeout(LIMIT, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(BusError::Timeout),
    }
}
