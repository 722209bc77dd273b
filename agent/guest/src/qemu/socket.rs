//! Connections to the listening sockets that QEMU was started with.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// The time in which QEMU must accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connects to a socket of QEMU, which accepts from its main loop.
pub(crate) fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let stream = UnixStream::from(socket);
    // The kernel limits the connection by the time limit of writes.
    stream.set_write_timeout(Some(CONNECT_LIMIT))?;
    connect(&stream, &SocketAddrUnix::new(path)?)?;
    stream.set_write_timeout(None)?;
    Ok(stream)
}
