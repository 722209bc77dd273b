//! The virtio-serial ports between a machine and its host.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The time that the host has to name its ports.
const NAMES_MAX: Duration = Duration::from_millis(100);
/// The interval at which the names are looked at.
const POLL: Duration = Duration::from_millis(5);

/// The directory in which the kernel lists the ports.
pub const CLASSES: &str = "/sys/class/virtio-ports";

/// Returns the device of the port that has this name, if the machine has one. `classes` is
/// [`CLASSES`], `devices` is `/dev`. Waits a moment, because the kernel learns the names
/// from the host shortly after its start.
pub fn device(name: &str, classes: &Path, devices: &Path) -> Option<PathBuf> {
    let deadline = Instant::now() + NAMES_MAX;
    loop {
        match find(name, classes).ok()? {
            Some(entry) => return Some(devices.join(entry)),
            None if Instant::now() >= deadline => return None,
            None => std::thread::sleep(POLL),
        }
    }
}

/// Returns the entry of the port that has this name. Fails on a machine without ports.
fn find(name: &str, classes: &Path) -> io::Result<Option<OsString>> {
    let is_it = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|text| text.trim_end() == name)
    };
    let found = fs::read_dir(classes)?.flatten().find(is_it);
    Ok(found.map(|entry| entry.file_name()))
}
