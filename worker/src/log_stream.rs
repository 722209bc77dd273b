//! The live stream of the log to the host: over a virtio-serial port, or over TCP in a guest
//! without such a port.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::virtio_port;

/// The bytes that may wait for a slow host. With more, the program waits a moment; then output
/// is dropped.
const PENDING_MAX: usize = 256 * 1024;
/// The time for which a program waits for a slow host. The host reads all output, so that only
/// one that hangs takes so long.
const ROOM_MAX: Duration = Duration::from_secs(2);
/// The time for which the end of a log may wait for a slow host.
const FINISH_MAX: Duration = Duration::from_secs(1);
/// The interval at which it is sent again.
const FINISH_POLL: Duration = Duration::from_millis(5);
/// The time that the host has to accept a connection.
const CONNECT_MAX: Duration = Duration::from_millis(500);

/// A stream to the host. Writing to it neither fails nor blocks for long; lost output is not
/// missed, because the worker puts the whole log at the end.
#[derive(Debug)]
pub struct LogStream {
    device: File,
    /// The address to reconnect to after a failure.
    address: Option<SocketAddr>,
    pending: Vec<u8>,
    dropped: u64,
    /// The bytes that were waiting when the host took none for [`ROOM_MAX`]. Until it takes
    /// some, nobody waits for it again.
    hangs: Option<usize>,
}

impl LogStream {
    /// Opens the virtio-serial port that has this name, as [`virtio_port::device`] finds it.
    pub fn open(name: &str, classes: &Path, devices: &Path) -> Option<Self> {
        let device = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(virtio_port::device(name, classes, devices)?)
            .ok()?;
        Some(Self::new(device, None))
    }

    /// Connects to the host, if it listens.
    pub fn connect(address: SocketAddr) -> Option<Self> {
        Some(Self::new(connect(address)?, Some(address)))
    }

    fn new(device: File, address: Option<SocketAddr>) -> Self {
        Self {
            device,
            address,
            pending: Vec::new(),
            dropped: 0,
            hangs: None,
        }
    }

    /// Sends these bytes, or keeps them until the next call.
    pub fn send(&mut self, bytes: &[u8]) {
        self.wait_for_room(bytes.len());
        if self.pending.len() + bytes.len() > PENDING_MAX {
            self.dropped += bytes.len() as u64;
        } else {
            self.mark_dropped();
            self.pending.extend_from_slice(bytes);
        }
        self.flush();
    }

    /// Waits until there is room for more bytes, unless the host hangs.
    fn wait_for_room(&mut self, bytes: usize) {
        let is_full = |stream: &Self| stream.pending.len() + bytes > PENDING_MAX;
        if !is_full(self) {
            return;
        }
        self.flush();
        if self
            .hangs
            .is_some_and(|waiting| self.pending.len() >= waiting)
        {
            return;
        }
        let deadline = Instant::now() + ROOM_MAX;
        while is_full(self) && Instant::now() < deadline {
            std::thread::sleep(FINISH_POLL);
            self.flush();
        }
        self.hangs = is_full(self).then_some(self.pending.len());
    }

    /// Sends the pending bytes as far as the host takes them.
    pub fn flush(&mut self) {
        while !self.pending.is_empty() {
            match self.device.write(&self.pending) {
                Ok(0) => return,
                Ok(count) => drop(self.pending.drain(..count)),
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

    /// Sends the rest, for which the host has a moment.
    pub fn finish(mut self) {
        self.mark_dropped();
        self.flush();
        let deadline = Instant::now() + FINISH_MAX;
        while !self.pending.is_empty() && Instant::now() < deadline {
            std::thread::sleep(FINISH_POLL);
            self.flush();
        }
    }

    /// Marks the place of dropped output.
    fn mark_dropped(&mut self) {
        if self.dropped > 0 {
            let mark = format!("\n[{} bytes are only in the full log]\n", self.dropped);
            self.pending.extend_from_slice(mark.as_bytes());
            self.dropped = 0;
        }
    }
}

fn connect(address: SocketAddr) -> Option<File> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_MAX).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(File::from(OwnedFd::from(stream)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_found_by_its_name() {
        let place = tempfile::tempdir().unwrap();
        let (classes, devices) = (place.path().join("class"), place.path().join("dev"));
        fs::create_dir(&devices).unwrap();
        for (device, name) in [("vport1p1", "another\n"), ("vport1p2", "buildhost.log\n")] {
            fs::create_dir_all(classes.join(device)).unwrap();
            let mut file = File::create(classes.join(device).join("name")).unwrap();
            file.write_all(name.as_bytes()).unwrap();
            File::create(devices.join(device)).unwrap();
        }
        assert!(LogStream::open("none", &classes, &devices).is_none());
        let mut stream = LogStream::open("buildhost.log", &classes, &devices).unwrap();
        stream.send(b"a line\n");
        stream.finish();
        let sent = fs::read_to_string(devices.join("vport1p2")).unwrap();
        assert_eq!(sent, "a line\n");
    }

    #[test]
    fn a_broken_connection_is_reopened() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = LogStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.send(b"one\n");
        let (first, _) = listener.accept().unwrap();
        drop(first);
        let mut received = String::new();
        listener.set_nonblocking(true).unwrap();
        while received.is_empty() {
            stream.send(b"two\n");
            if let Ok((mut second, _)) = listener.accept() {
                stream.send(b"three\n");
                second.set_nonblocking(false).unwrap();
                stream = LogStream::connect(listener.local_addr().unwrap()).unwrap();
                second.read_to_string(&mut received).unwrap();
            }
        }
        assert!(received.ends_with("two\nthree\n"), "{received}");
    }

    #[test]
    fn a_machine_without_ports_has_no_stream() {
        let nowhere = Path::new("/nonexistent");
        assert!(LogStream::open("buildhost.log", nowhere, nowhere).is_none());
    }
}
