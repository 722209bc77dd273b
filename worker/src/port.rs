//! Lines to and from the host, over a virtio-serial port or a connection.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// The pause while the host is not connected.
const DISCONNECTED_PAUSE: Duration = Duration::from_millis(2);
/// The size of one read.
const PIECE: usize = 4096;

/// Opens a virtio-serial port.
///
/// # Errors
/// The port cannot be opened.
pub(crate) fn open(device: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(device)
}

/// Lines over a port that does not block. A read of no bytes means that the host is not
/// connected.
pub(crate) struct Lines {
    port: File,
    received: Vec<u8>,
    bytes_max: usize,
}

impl fmt::Debug for Lines {
    /// Leaves out the bytes: they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lines").field(&self.port).finish()
    }
}

impl Lines {
    /// Returns the lines of a port, of at most so many bytes.
    pub(crate) fn new(port: File, bytes_max: usize) -> Self {
        Self {
            port,
            received: Vec::new(),
            bytes_max,
        }
    }

    /// Allows lines of so many bytes.
    pub(crate) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Writes a line.
    ///
    /// # Errors
    /// The line cannot be written now.
    pub(crate) fn write(&mut self, line: &str) -> io::Result<()> {
        self.port.write_all(format!("{line}\n").as_bytes())
    }

    /// Reads a line. Returns `None` if no line arrives before `deadline`, which may have
    /// passed.
    ///
    /// # Errors
    /// The line is too long and is dropped, or the port fails.
    pub(crate) fn read(&mut self, deadline: Instant) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line = self.received.drain(..=end).collect::<Vec<_>>();
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            if self.received.len() > self.bytes_max {
                self.received.clear();
                return Err(io::Error::other("the host sent too long a line"));
            }
            let mut buffer = [0; PIECE];
            let read = self.port.read(&mut buffer);
            let left = deadline.saturating_duration_since(Instant::now());
            match read {
                Ok(0) if left.is_zero() => return Ok(None),
                Ok(0) => std::thread::sleep(DISCONNECTED_PAUSE.min(left)),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if left.is_zero() {
                        return Ok(None);
                    }
                    self.wait_readable(left)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the port is readable, for at most `timeout`.
    fn wait_readable(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match poll(
            &mut [PollFd::new(&self.port, PollFlags::IN)],
            Some(&timeout),
        ) {
            Err(rustix::io::Errno::INTR) => Ok(()),
            polled => Ok(polled.map(|_| ())?),
        }
    }
}
