//! The serial ports between a machine and its host, and the way on which the host
//! sees the log while it grows: such a port, or a connection where there is none.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// What may wait for a host that reads slowly; beyond it, pieces are left out.
const WAITING_MAX: usize = 256 * 1024;
/// How long the end of a log may wait for a host that reads slowly.
const FINISH: Duration = Duration::from_secs(1);

/// How long the host may take to name its ports.
const NAMING: Duration = Duration::from_millis(100);

/// How long the host may take to let us connect, in its own network.
const CONNECT: Duration = Duration::from_millis(500);

/// Where the kernel tells the names of its ports.
pub const CLASSES: &str = "/sys/class/virtio-ports";

/// The device of the port that has this name, if the machine has one: `classes` is
/// [`CLASSES`], `devices` is `/dev`. The kernel hears the names of ports from the
/// host a moment after it has started: that long we wait.
pub fn device(name: &str, classes: &Path, devices: &Path) -> Option<PathBuf> {
    let until = Instant::now() + NAMING;
    loop {
        match look_for(name, classes).ok()? {
            Some(entry) => return Some(devices.join(entry)),
            None if Instant::now() >= until => return None,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// A port to the host. Writing to it never waits and never fails: the whole log
/// goes to the host at the end in any case.
#[derive(Debug)]
pub struct Port {
    device: File,
    /// Where to connect again when the host has been away.
    address: Option<SocketAddr>,
    waiting: Vec<u8>,
    left_out: u64,
}

impl Port {
    /// Opens the port that has this name, as [`device`] finds it.
    pub fn find(name: &str, classes: &Path, devices: &Path) -> Option<Self> {
        let device = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(device(name, classes, devices)?)
            .ok()?;
        Some(Self {
            device,
            address: None,
            waiting: Vec::new(),
            left_out: 0,
        })
    }

    /// Connects to the host, if it listens there.
    pub fn connect(address: SocketAddr) -> Option<Self> {
        Some(Self {
            device: connect(address)?,
            address: Some(address),
            waiting: Vec::new(),
            left_out: 0,
        })
    }

    /// Sends these bytes, or keeps them for the next time.
    pub fn send(&mut self, bytes: &[u8]) {
        if self.waiting.len() + bytes.len() > WAITING_MAX {
            self.left_out += bytes.len() as u64;
        } else {
            self.mend();
            self.waiting.extend_from_slice(bytes);
        }
        self.flush();
    }

    /// Sends what waits, as far as the host takes it.
    pub fn flush(&mut self) {
        while !self.waiting.is_empty() {
            match self.device.write(&self.waiting) {
                Ok(0) => return,
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    if let Some(device) = self.address.and_then(connect) {
                        self.device = device;
                    }
                    return;
                }
            }
        }
    }

    /// Gives the host a moment to take the rest.
    pub fn finish(mut self) {
        self.mend();
        self.flush();
        let until = Instant::now() + FINISH;
        while !self.waiting.is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
            self.flush();
        }
    }

    /// Says what was left out, where it was.
    fn mend(&mut self) {
        if self.left_out > 0 {
            let words = format!("\n[{} bytes are only in the full log]\n", self.left_out);
            self.waiting.extend_from_slice(words.as_bytes());
            self.left_out = 0;
        }
    }
}

fn connect(address: SocketAddr) -> Option<File> {
    let stream = TcpStream::connect_timeout(&address, CONNECT).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(File::from(OwnedFd::from(stream)))
}

/// The entry of `classes` whose port has this name; fails on a machine without ports.
fn look_for(name: &str, classes: &Path) -> io::Result<Option<OsString>> {
    let is_it = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("name")).is_ok_and(|text| text.trim_end() == name)
    };
    let found = fs::read_dir(classes)?.flatten().find(is_it);
    Ok(found.map(|entry| entry.file_name()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_port_is_found_by_its_name() {
        let place = tempfile::tempdir().unwrap();
        let (classes, devices) = (place.path().join("class"), place.path().join("dev"));
        fs::create_dir(&devices).unwrap();
        for (device, name) in [("vport1p1", "another\n"), ("vport1p2", "buildhost.log\n")] {
            fs::create_dir_all(classes.join(device)).unwrap();
            let mut file = File::create(classes.join(device).join("name")).unwrap();
            file.write_all(name.as_bytes()).unwrap();
            File::create(devices.join(device)).unwrap();
        }
        assert!(Port::find("none", &classes, &devices).is_none());
        let mut port = Port::find("buildhost.log", &classes, &devices).unwrap();
        port.send(b"a line\n");
        port.finish();
        let sent = fs::read_to_string(devices.join("vport1p2")).unwrap();
        assert_eq!(sent, "a line\n");
    }

    #[test]
    fn without_a_port_it_connects_and_again_when_the_host_was_away() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut port = Port::connect(listener.local_addr().unwrap()).unwrap();
        port.send(b"one\n");
        let (first, _) = listener.accept().unwrap();
        drop(first);
        let mut heard = String::new();
        listener.set_nonblocking(true).unwrap();
        while heard.is_empty() {
            port.send(b"two\n");
            if let Ok((mut second, _)) = listener.accept() {
                port.send(b"three\n");
                second.set_nonblocking(false).unwrap();
                port = Port::connect(listener.local_addr().unwrap()).unwrap();
                second.read_to_string(&mut heard).unwrap();
            }
        }
        assert!(heard.ends_with("two\nthree\n"), "{heard}");
    }

    #[test]
    fn a_machine_without_ports_has_none() {
        let nowhere = Path::new("/nonexistent");
        assert!(Port::find("buildhost.log", nowhere, nowhere).is_none());
    }
}
