//! One command of a driven guest: its process, its streams and its end.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use config::exec::{Command, CommandEnd, DATA_BYTES_MAX, Frame, WINDOW};
use rustix::process::Signal;

use super::connection::Connection;
use super::log_lines::LogLines;
use super::running::{Place, Running};
use super::{Context, Event, account};

/// The time for which the output of a command's children is read after it has ended.
const ORPHAN_OUTPUT_MAX: Duration = Duration::from_secs(2);
/// The time between the two signals that end a command whose client has left.
const TERMINATE_MAX: Duration = Duration::from_secs(5);
/// The interval at which its end is looked for.
const POLL: Duration = Duration::from_millis(50);

/// The exit statuses of a command that cannot be started, as a shell has them.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// The connection of a command, to which several threads send.
#[derive(Clone)]
struct Client {
    connection: Arc<Mutex<Connection>>,
    /// Set when the command has ended: nothing follows its last frame.
    has_ended: Arc<AtomicBool>,
    /// The number of threads that wait for the client to take a frame.
    sending: Arc<AtomicUsize>,
}

impl Client {
    fn send(&self, frame: &Frame) -> io::Result<()> {
        self.sending.fetch_add(1, Ordering::SeqCst);
        let sent = self.send_in_turn(frame);
        self.sending.fetch_sub(1, Ordering::SeqCst);
        sent
    }

    fn send_in_turn(&self, frame: &Frame) -> io::Result<()> {
        let mut connection = self.lock();
        if self.has_ended.load(Ordering::SeqCst) {
            return Err(ErrorKind::BrokenPipe.into());
        }
        connection.send(frame)
    }

    /// Sends the last frame.
    fn end(&self, end: CommandEnd) {
        let mut connection = self.lock();
        self.has_ended.store(true, Ordering::SeqCst);
        // A client that has left does not need it.
        let _ = connection.send(&Frame::Ended(end));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a command for the client at the other end of a connection.
pub(super) fn run(command: &Command, connection: Connection, context: &Context, place: Place) {
    let shown = context.mask.text(&shown(command));
    let line = |text: String| {
        // The log is gone when the guest stops.
        let _ = context.events.send(Event::Line(text));
    };
    line(format!("$ {shown}"));
    let Ok(sender) = connection.sender() else {
        return;
    };
    let client = Client {
        connection: Arc::new(Mutex::new(sender)),
        has_ended: Arc::default(),
        sending: Arc::default(),
    };
    let mut unused = None;
    let end = match spawn(command, context) {
        Ok(child) => serve(child, connection, &client, command, context),
        Err((code, message)) => {
            line(message.clone());
            let _ = client.send(&Frame::Stderr(format!("{message}\n").into_bytes()));
            unused = Some(connection);
            CommandEnd::Exited(code)
        }
    };
    line(format!("{end}: {shown}"));
    client.end(end);
    drop(place);
    if let Some(connection) = unused {
        connection.drain();
    }
}

/// Returns the command for people.
fn shown(command: &Command) -> String {
    command.command.join(" ")
}

/// Starts a command in a process group of its own.
///
/// # Errors
/// The exit status and the message of a command that cannot be started.
#[expect(
    clippy::disallowed_methods,
    reason = "`sys::command` collects output, but this command's is sent as it comes"
)]
fn spawn(command: &Command, context: &Context) -> Result<Child, (u8, String)> {
    let surroundings = &context.surroundings;
    let directory = command.cwd.as_ref().map(PathBuf::from);
    let directory = directory.unwrap_or_else(|| surroundings.work.clone());
    if !directory.is_dir() {
        let text = format!("there is no directory {}", directory.display());
        return Err((NOT_EXECUTABLE, text));
    }
    let Some((program, arguments)) = command.command.split_first() else {
        return Err((NOT_FOUND, "the command is empty".to_owned()));
    };
    let mut process = std::process::Command::new(program);
    process
        .args(arguments)
        .current_dir(directory)
        .envs(surroundings.environment.iter().map(|(n, value)| (n, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(user) = &command.user {
        let passwd = fs::read_to_string(Path::new("/etc/passwd")).unwrap_or_default();
        let Some(account) = account::find(&passwd, user) else {
            return Err((NOT_EXECUTABLE, format!("there is no user {user}")));
        };
        process.uid(account.user).gid(account.group);
        if let Some((name, home)) = account.names {
            process.envs([("USER", &name), ("LOGNAME", &name), ("HOME", &home)]);
        }
    }
    process.envs(command.env.iter().map(|(name, value)| (&name.0, value)));
    process.spawn().map_err(|error| {
        let code = match error.kind() {
            ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        };
        (code, format!("cannot run {program}: {error}"))
    })
}

/// Connects a process with its client until the process has ended.
fn serve(
    mut child: Child,
    connection: Connection,
    client: &Client,
    command: &Command,
    context: &Context,
) -> CommandEnd {
    let leader = child.id();
    let group = context.running.add(leader);
    if let Some(stdin) = child.stdin.take() {
        let (client, running) = (client.clone(), context.running.clone());
        std::thread::spawn(move || read_input(connection, stdin, &client, &running, leader));
    }
    let (done, outputs) = mpsc::channel();
    let logged = |events| (!command.unlogged).then_some((LogLines::new(&context.mask), events));
    if let Some(stdout) = child.stdout.take() {
        let log = logged(context.events.clone());
        copy_output(stdout, Frame::Stdout, client.clone(), log, done.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        let log = logged(context.events.clone());
        copy_output(stderr, Frame::Stderr, client.clone(), log, done.clone());
    }
    drop(done);
    let status = child.wait();
    drop(group);
    wait_for_output(&outputs, client);
    status.map_or(CommandEnd::Lost, end_of)
}

/// Waits until all output of a command that has ended is sent. A client may be slow; output of
/// children that go on is waited for only a moment.
fn wait_for_output(outputs: &mpsc::Receiver<()>, client: &Client) {
    let mut deadline = Instant::now() + ORPHAN_OUTPUT_MAX;
    loop {
        match outputs.recv_timeout(POLL) {
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) if client.sending.load(Ordering::SeqCst) > 0 => {
                deadline = Instant::now() + ORPHAN_OUTPUT_MAX;
            }
            Ok(()) | Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => return,
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn end_of(status: ExitStatus) -> CommandEnd {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.code(), status.signal()) {
        (Some(code), _) => CommandEnd::Exited(byte(code)),
        (None, Some(signal)) => CommandEnd::Signal(byte(signal)),
        (None, None) => CommandEnd::Lost,
    }
}

/// Sends the output of a command to its client and to the log, in a thread of its own.
fn copy_output(
    mut from: impl Read + Send + 'static,
    frame: fn(Vec<u8>) -> Frame,
    client: Client,
    mut log: Option<(LogLines, mpsc::SyncSender<Event>)>,
    done: Sender<()>,
) {
    std::thread::spawn(move || {
        let mut piece = vec![0; DATA_BYTES_MAX];
        loop {
            match from.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    if let Some((lines, events)) = &mut log {
                        add(events, lines.push(&piece[..count]));
                    }
                    if client.send(&frame(piece[..count].to_vec())).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if let Some((lines, events)) = log {
            add(&events, lines.finish());
        }
        // The command may have been given up.
        let _ = done.send(());
    });
}

fn add(events: &mpsc::SyncSender<Event>, lines: Vec<u8>) {
    if !lines.is_empty() {
        // The log is gone when the guest stops.
        let _ = events.send(Event::Output(lines));
    }
}

/// Receives the input of a command until the connection ends, and ends the command then.
fn read_input(
    mut connection: Connection,
    stdin: ChildStdin,
    client: &Client,
    running: &Running,
    leader: u32,
) {
    let (input, pieces) = mpsc::channel::<Vec<u8>>();
    let waiting = Arc::new(AtomicUsize::new(0));
    let taken = Arc::clone(&waiting);
    let to = client.clone();
    std::thread::spawn(move || write_input(stdin, &pieces, &taken, &to));
    let mut input = Some(input);
    loop {
        match connection.receive() {
            Ok(Some(Frame::Stdin(bytes))) => {
                let before = waiting.fetch_add(bytes.len(), Ordering::SeqCst);
                if before + bytes.len() > WINDOW {
                    break;
                }
                if let Some(input) = &input {
                    // The writer ends only with this sender.
                    let _ = input.send(bytes);
                }
            }
            Ok(Some(Frame::StdinEnd)) => input = None,
            Ok(_) | Err(_) => break,
        }
    }
    drop(input);
    terminate(running, leader);
}

/// Writes the input of a command, and tells the client how much was taken. Input that the command
/// does not read any more is taken, too.
fn write_input(
    stdin: ChildStdin,
    pieces: &mpsc::Receiver<Vec<u8>>,
    waiting: &AtomicUsize,
    client: &Client,
) {
    let mut stdin = Some(stdin);
    while let Ok(bytes) = pieces.recv() {
        if let Some(pipe) = &mut stdin
            && pipe.write_all(&bytes).is_err()
        {
            stdin = None;
        }
        waiting.fetch_sub(bytes.len(), Ordering::SeqCst);
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // The reader notices the end of the connection.
        let _ = client.send(&Frame::Taken(count));
    }
}

/// Ends the process group of a command: SIGTERM, and SIGKILL after [`TERMINATE_MAX`].
fn terminate(running: &Running, leader: u32) {
    running.signal(leader, Signal::TERM);
    let deadline = Instant::now() + TERMINATE_MAX;
    while running.has(leader) && Instant::now() < deadline {
        std::thread::sleep(POLL);
    }
    running.signal(leader, Signal::KILL);
}
