//! The secrets of a build: requested from the host, and stored as files in memory.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use config::SecretName;
use config::secrets::{
    DIRECTORY, MESSAGE_BYTES_MAX, Mask, RECEIVED, REQUEST, SecretMessage, SecretValue, TCP_PORT,
};
use config::task;
use rustix::fs::{FsWord, statfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::cli::Settings;
use crate::handshake::ControlPort;
use crate::port::{self, Lines};
use crate::{WorkerError, virtio_port};

/// The time that the host has to send all secrets.
const TIMEOUT: Duration = Duration::from_mins(1);
/// The time after which they are requested again: another agent may listen by then.
const REQUEST_INTERVAL: Duration = Duration::from_secs(5);
/// The pause after a failed connection.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);
/// The time that the host has to accept a connection.
const CONNECT_MAX: Duration = Duration::from_millis(500);

/// The magic numbers of the file systems that are in memory: tmpfs and ramfs.
const IN_MEMORY: [FsWord; 2] = [0x0102_1994, 0x8584_58f6];
/// The options of the file system of the secrets. The first of them that the kernel knows is used:
/// older kernels do not know `noswap`.
const OPTIONS: [&std::ffi::CStr; 2] = [c"mode=0700,size=1m,noswap", c"mode=0700,size=1m"];

/// The values of secrets.
type Values = BTreeMap<SecretName, SecretValue>;

/// Requests the secrets of a task and stores them in [`DIRECTORY`]. Returns the mask for the
/// output. `port` is the control port, if the worker has it open: it cannot be opened twice.
///
/// # Errors
/// The host does not send them, or this machine has no file system in memory for them.
pub fn receive(
    settings: &Settings,
    names: &[SecretName],
    port: Option<&mut ControlPort>,
) -> Result<Mask, WorkerError> {
    if names.is_empty() {
        return Ok(Mask::default());
    }
    // A core dump of this process would have the values. A program that it starts is not affected.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let directory = Path::new(DIRECTORY);
    prepare(directory).map_err(WorkerError::SecretFiles)?;
    let gateway = SocketAddr::new(settings.pr_host.ip(), TCP_PORT);
    let values = match port {
        Some(port) => {
            let lines = port.lines(MESSAGE_BYTES_MAX);
            request(|| request_once(lines, names))
        }
        None => request(|| {
            let mut lines = Lines::new(open(gateway)?, MESSAGE_BYTES_MAX);
            request_once(&mut lines, names)
        }),
    };
    let values = values.map_err(WorkerError::Secrets)?;
    write(directory, &values).map_err(WorkerError::SecretFiles)?;
    Ok(Mask::new(values.values()))
}

/// Opens the control port, or connects to the host.
fn open(gateway: SocketAddr) -> io::Result<File> {
    let classes = Path::new(virtio_port::CLASSES);
    if let Some(device) = virtio_port::device(task::CONTROL_PORT, classes, Path::new("/dev")) {
        return port::open(&device);
    }
    let stream = TcpStream::connect_timeout(&gateway, CONNECT_MAX)?;
    stream.set_nonblocking(true)?;
    Ok(File::from(OwnedFd::from(stream)))
}

/// Requests secrets until all have arrived.
fn request(mut once: impl FnMut() -> io::Result<Option<Values>>) -> io::Result<Values> {
    let deadline = Instant::now() + TIMEOUT;
    let mut failure = io::Error::from(ErrorKind::TimedOut);
    while Instant::now() < deadline {
        match once() {
            Ok(Some(values)) => return Ok(values),
            Ok(None) => {}
            Err(error) => {
                failure = error;
                std::thread::sleep(CONNECT_PAUSE);
            }
        }
    }
    Err(failure)
}

/// Requests secrets once. Returns `None` if not all arrive in time.
fn request_once(lines: &mut Lines, names: &[SecretName]) -> io::Result<Option<Values>> {
    lines.write(REQUEST)?;
    let again = Instant::now() + REQUEST_INTERVAL;
    let mut values = BTreeMap::new();
    while let Some(line) = lines.read(again)? {
        // Before them there may be more start messages, and the end of a line that was cut.
        if let Ok(Some(message)) = SecretMessage::parse(&line)
            && names.contains(&message.name)
        {
            values.insert(message.name, message.value);
        }
        if values.len() == names.len() {
            lines.write(RECEIVED)?;
            return Ok(Some(values));
        }
    }
    Ok(None)
}

/// Makes the directory, in memory: with a file system of its own, or in a container, which may
/// not mount one, in that of its `/run`.
fn prepare(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)?;
    if let Err(error) = mount_in_memory(directory)
        && !is_in_memory(directory)?
    {
        return Err(io::Error::other(format!(
            "{DIRECTORY} is on a disk, and no file system in memory can be mounted there: {error}"
        )));
    }
    fs::set_permissions(directory, Permissions::from_mode(0o700))
}

fn mount_in_memory(directory: &Path) -> rustix::io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mut mounted = Err(Errno::INVAL);
    for options in OPTIONS {
        if mounted == Err(Errno::INVAL) {
            mounted = mount("secrets", directory, "tmpfs", flags, options);
        }
    }
    mounted
}

fn is_in_memory(directory: &Path) -> io::Result<bool> {
    Ok(IN_MEMORY.contains(&statfs(directory)?.f_type))
}

/// Writes the files, which only root may read.
fn write(directory: &Path, values: &Values) -> io::Result<()> {
    for (name, value) in values {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o400)
            .open(directory.join(name))?;
        file.write_all(value.bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn name(text: &str) -> SecretName {
        text.parse().unwrap()
    }

    fn message(text: &str) -> SecretMessage {
        SecretMessage {
            name: name(text),
            value: SecretValue::new(format!("password {text}").into()).unwrap(),
        }
    }

    #[test]
    fn secrets_are_requested_and_their_arrival_is_confirmed() {
        let (guest, host) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        let answering = std::thread::spawn(move || {
            let mut lines = BufReader::new(host.try_clone().unwrap()).lines();
            assert_eq!(lines.next().unwrap().unwrap(), REQUEST);
            let answer = format!(
                "Zm9v\ngo 1.000000000 00\n{}{}{}",
                &*message("other").print(),
                &*message("one").print(),
                &*message("two").print()
            );
            for piece in answer.as_bytes().chunks(7) {
                (&host).write_all(piece).unwrap();
            }
            assert_eq!(lines.next().unwrap().unwrap(), RECEIVED);
        });
        let names = [name("two"), name("one")];
        // The worker has the control port open already.
        let mut port = ControlPort::new(File::from(OwnedFd::from(guest)));
        let lines = port.lines(MESSAGE_BYTES_MAX);
        let values = request_once(lines, &names).unwrap().unwrap();
        let received: Vec<_> = values.keys().cloned().collect();
        assert_eq!(received, [name("one"), name("two")]);
        answering.join().unwrap();
    }

    #[test]
    fn the_files_are_for_root_alone_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let message = message("key");
        let values = BTreeMap::from([(message.name, message.value)]);
        write(directory.path(), &values).unwrap();
        let path = directory.path().join("key");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o400);
        assert_eq!(fs::read(&path).unwrap(), b"password key");
        write(directory.path(), &values).unwrap_err();
    }
}
