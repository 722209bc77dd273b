//! Guests in scopes of systemd, and their registration with systemd-machined, so that systemd's own
//! `machinectl` shows and ends them.
//!
//! All of it is optional: on a host without systemd, D-Bus or machined nothing happens. Every call has
//! a limit of time, and no failure here is a failure of a guest.

use std::path::Path;
use std::time::Duration;

mod bus;
mod names;
pub mod scope;

pub use bus::{Bus, BusError, Guest, Jobs};

/// The time in which systemd and machined must answer.
const LIMIT: Duration = Duration::from_secs(1);
/// The directory that exists while systemd is the first process of the host.
const SYSTEMD: &str = "/run/systemd/system";
/// The socket of the system bus.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// The file by which the bus starts machined.
const MACHINED: &str = "/usr/share/dbus-1/system-services/org.freedesktop.machine1.service";

/// Returns true on a host with systemd, the system bus and machined.
pub fn is_present() -> bool {
    [SYSTEMD, SYSTEM_BUS, MACHINED]
        .iter()
        .all(|path| Path::new(path).exists())
}
