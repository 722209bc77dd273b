//! A worker for a machine that builds tasks of a controller, as build2's works: it shares no code
//! with this host, neither for manifests nor for transfers.
//!
//! usage: `bbot-worker [--bootstrap | --startup] [--tftp-host ADDRESS[:PORT]]`
//!
//! `--bootstrap` prints the bootstrap manifest. `--startup` starts the build, as a program of its
//! own. Without either, the task `task.manifest` is fetched and built in the current directory. The
//! value `requires` of the task says what happens: see [`Order`]. The exit status is 2 after an
//! abnormal end whose result was put.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::io::{self, Error, Write as _};
use std::net::UdpSocket;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;
use std::time::Duration;

use lz4_flex::frame::FrameEncoder;

/// The address at which a worker of build2 asks.
const HOST: &str = "196.254.111.222";
/// The option of the block size that curl requests.
const BLOCK_SIZE: usize = 1468;
/// The repetitions of a packet without an answer.
const TRIES: u32 = 10;
/// The time of a slow build.
const SLOW: Duration = Duration::from_secs(10);
/// The characters of a line of a result, without the backslash at its end.
const COLUMNS: usize = 76;

/// The order to a worker of the tests, in the value `requires` of the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// A build without warnings, and its uploads.
    Success,
    /// The same after some seconds.
    Slow,
    /// A build with a warning.
    Warning,
    /// A result without compression, in the older form of values with several lines.
    Old,
    /// An abnormal end.
    Abnormal,
    /// A log that is larger than a controller takes.
    Long,
}

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let has = |option: &str| arguments.iter().any(|it| it == option);
    let host = arguments
        .iter()
        .skip_while(|it| *it != "--tftp-host")
        .nth(1);
    let host = host.map_or(HOST, String::as_str);
    if has("--bootstrap") {
        io::stdout().write_all(
            b": 1\nbbot-version: 0.17.0\nlibbbot-version: 0.17.0\nlibbpkg-version: 0.17.0\n\
              libbutl-version: 0.17.0\n",
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    if has("--startup") {
        // The build has the environment that the start has made.
        let mut build = sys::command::prepare(env::current_exe()?);
        build
            .args(["--tftp-host", host])
            .env("BBOT_ENVIRONMENT", "default");
        return Err(build.exec());
    }
    build(host)
}

/// Builds the task of a host.
fn build(host: &str) -> io::Result<ExitCode> {
    let bytes = transfer(host, Request::Fetch("task.manifest"))?;
    let text = String::from_utf8(bytes).map_err(Error::other)?;
    let task = values(&text);
    let value = |name: &str| task.get(name).cloned().unwrap_or_default();
    let order = match value("requires").as_str() {
        "slow" => Order::Slow,
        "warning" => Order::Warning,
        "old" => Order::Old,
        "abnormal" => Order::Abnormal,
        "long" => Order::Long,
        _ => Order::Success,
    };
    if order == Order::Slow {
        std::thread::sleep(SLOW);
    }
    if matches!(order, Order::Success | Order::Slow | Order::Warning) {
        let archive = archive(&text, &value("target"))?;
        transfer(host, Request::Put("upload.tar", &archive))?;
    }
    let result = result(order, &value("name"), &value("version"), &text);
    if order == Order::Old {
        transfer(host, Request::Put("result.manifest", result.as_bytes()))?;
    } else {
        let mut encoder = FrameEncoder::new(Vec::new());
        encoder.write_all(result.as_bytes())?;
        let packed = encoder.finish().map_err(Error::other)?;
        transfer(host, Request::Put("result.manifest.lz4", &packed))?;
    }
    Ok(match order {
        Order::Abnormal => ExitCode::from(2),
        _ => ExitCode::SUCCESS,
    })
}

/// Returns the values of a task that have one line, which may be continued.
fn values(text: &str) -> BTreeMap<String, String> {
    let text = text.replace("\r\n", "\n").replace("\\\n", "");
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

/// Returns the archive of the files for the controller: the task as it arrived, for two instances.
fn archive(task: &str, target: &str) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in [
        ("upload/bindist/archive/hello.tar.xz", "archive"),
        ("upload/bindist/debian/hello.deb", "package"),
        ("upload/bindist/debian/bindist-result.manifest", task),
        ("upload/bindist/debian/target/name.txt", target),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content.as_bytes())?;
    }
    archive.into_inner()
}

/// Returns a result in the style of build2's serializer.
fn result(order: Order, name: &str, version: &str, task: &str) -> String {
    let (status, update) = match order {
        Order::Success | Order::Slow | Order::Old | Order::Long => ("success", "success"),
        Order::Warning => ("warning", "warning"),
        Order::Abnormal => ("abnormal", "abnormal"),
    };
    let mut log = format!("the task has {} bytes\n", task.len());
    log += "hello.cxx:12:5: warning: a message that is so long that it does not fit into one line";
    log += " of a manifest\npath is C:\\dir\\\n";
    if order == Order::Long {
        while log.len() < 15_900_000 {
            log += "a line of a log that is larger than any controller takes\n";
        }
    }
    log += "last line";
    let mut text = format!(": 1\nname: {name}\nversion: {version}\nstatus: {status}\n");
    let _ = write!(text, "configure-status: success\nupdate-status: {update}\n");
    text += "configure-log: configured\n";
    text += if order == Order::Old {
        "update-log:\\\n"
    } else {
        "update-log:\n\\\n"
    };
    for line in log.lines() {
        push_wrapped(&mut text, line);
    }
    text + "\\\nworker-checksum: 1\ndependency-checksum: c0ffee\n"
}

/// Adds a line of a value, continued where it is too long, but never behind a backslash.
fn push_wrapped(text: &mut String, line: &str) {
    let mut column = 0;
    let mut last = ' ';
    for character in line.chars() {
        if column >= COLUMNS && last != '\\' {
            text.push_str("\\\n");
            column = 0;
        }
        text.push(character);
        (column, last) = (column + 1, character);
    }
    text.push_str(if last == '\\' { "\\\n" } else { "\n" });
}

/// A transfer by TFTP.
#[derive(Clone, Copy)]
enum Request<'a> {
    Fetch(&'a str),
    Put(&'a str, &'a [u8]),
}

/// Transfers a file as curl does: in binary mode, with the options `tsize`, `blksize` and
/// `timeout`, one block after the other. Returns the file if it was fetched.
fn transfer(host: &str, request: Request<'_>) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    let address = match host.split_once(':') {
        Some(_) => host.to_owned(),
        None => format!("{host}:69"),
    };
    let (opcode, name, size) = match request {
        Request::Fetch(name) => (1, name, 0),
        Request::Put(name, content) => (2, name, content.len()),
    };
    let mut first = vec![0, opcode];
    let (size, block_size) = (size.to_string(), BLOCK_SIZE.to_string());
    let fields = [
        name,
        "octet",
        "tsize",
        &size,
        "blksize",
        &block_size,
        "timeout",
        "6",
    ];
    for field in fields {
        first.extend(field.as_bytes());
        first.push(0);
    }
    match request {
        Request::Fetch(_) => fetch(&socket, &address, &first),
        Request::Put(_, content) => put(&socket, &address, &first, content).map(|()| Vec::new()),
    }
}

/// Sends a packet until an answer arrives that `is_answer` accepts. The first answer to a request
/// connects the socket to the port of the transfer.
fn ask(
    socket: &UdpSocket,
    packet: &[u8],
    to: Option<&str>,
    is_answer: impl Fn(&[u8]) -> bool,
) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 4 + BLOCK_SIZE];
    for _ in 0..TRIES {
        match to {
            Some(address) => socket.send_to(packet, address)?,
            None => socket.send(packet)?,
        };
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer = &buffer[..length];
            if answer.starts_with(&[0, 5]) {
                let message = String::from_utf8_lossy(answer.get(4..).unwrap_or_default());
                return Err(Error::other(format!("the host refuses: {message}")));
            }
            if is_answer(answer) {
                if to.is_some() {
                    socket.connect(from)?;
                }
                return Ok(answer.to_owned());
            }
        }
    }
    Err(Error::other("the host does not answer"))
}

fn packet(opcode: u8, number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    vec![0, opcode, high, low]
}

/// Returns the size of blocks that an acknowledgment of options states.
fn block_size(answer: &[u8]) -> io::Result<usize> {
    let fields: Vec<_> = answer[2..].split(|byte| *byte == 0).collect();
    let size = fields
        .chunks(2)
        .find(|pair| pair[0].eq_ignore_ascii_case(b"blksize"));
    let size = size.and_then(|pair| String::from_utf8_lossy(pair.get(1)?).parse().ok());
    size.ok_or_else(|| Error::other("the host does not know the option blksize"))
}

fn fetch(socket: &UdpSocket, address: &str, first: &[u8]) -> io::Result<Vec<u8>> {
    let options = ask(socket, first, Some(address), |answer| {
        answer.starts_with(&[0, 6])
    })?;
    let block_size = block_size(&options)?;
    let (mut content, mut number) = (Vec::new(), 0_u16);
    loop {
        let next = packet(3, number.wrapping_add(1));
        let block = ask(socket, &packet(4, number), None, |it| it.starts_with(&next))?;
        number = number.wrapping_add(1);
        content.extend(&block[4..]);
        if block.len() < 4 + block_size {
            socket.send(&packet(4, number))?;
            return Ok(content);
        }
    }
}

fn put(socket: &UdpSocket, address: &str, first: &[u8], content: &[u8]) -> io::Result<()> {
    let options = ask(socket, first, Some(address), |answer| {
        answer.starts_with(&[0, 6])
    })?;
    let block_size = block_size(&options)?;
    let (mut number, mut rest) = (0_u16, content);
    loop {
        let (block, after) = rest.split_at(rest.len().min(block_size));
        number = number.wrapping_add(1);
        let mut data = packet(3, number);
        data.extend(block);
        let expected = packet(4, number);
        ask(socket, &data, None, |answer| answer == expected)?;
        if block.len() < block_size {
            return Ok(());
        }
        rest = after;
    }
}
