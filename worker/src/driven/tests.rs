use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

use config::exec::{COMMANDS_MAX, Command, CommandEnd, Decoder, WINDOW};

use super::*;

/// The host of a worker that waits for commands.
struct Host {
    listener: TcpListener,
    events: Receiver<Event>,
    place: tempfile::TempDir,
}

/// The connection of a command, as the agent sees it.
struct Client {
    stream: TcpStream,
    decoder: Decoder,
}

impl Host {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // As many as the tests' commands need: the log must not make them wait.
        let (sender, events) = mpsc::sync_channel(1000);
        let context = Arc::new(Context {
            surroundings: Surroundings {
                title: "build 7 on linux".into(),
                program: PathBuf::new(),
                sources: PathBuf::new(),
                out: PathBuf::new(),
                work: place.path().to_owned(),
                environment: vec![("BUILDHOST_BUILD", "7".into())],
            },
            mask: Mask::default(),
            events: sender,
            running: Running::default(),
        });
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || wait_for_commands(address, &context));
        Self {
            listener,
            events,
            place,
        }
    }

    fn waiting(&self) -> Client {
        Client {
            stream: self.listener.accept().unwrap().0,
            decoder: Decoder::default(),
        }
    }

    fn start(&self, script: &str) -> Client {
        let mut client = self.waiting();
        client.send(&Frame::Start(Box::new(Command {
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            ..Command::default()
        })));
        client
    }

    /// Returns the log up to the line of the worker with this text.
    fn log_until(&self, text: &str) -> String {
        let mut log = String::new();
        loop {
            match self.events.recv_timeout(Duration::from_mins(1)).unwrap() {
                Event::Output(bytes) => log.push_str(&String::from_utf8_lossy(&bytes)),
                Event::Line(line) if line.contains(text) => return log,
                Event::Line(_) => {}
                Event::Stop(_) => panic!("nobody stops it"),
            }
        }
    }
}

impl Client {
    fn send(&mut self, frame: &Frame) {
        self.stream.write_all(&frame.to_bytes()).unwrap();
    }

    /// Returns the next frame; `None` at the end of the connection.
    fn receive(&mut self) -> Option<Frame> {
        let mut piece = [0; 4096];
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            match self.stream.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.decoder.push(&piece[..count]),
            }
        }
    }

    /// Returns both outputs and the end.
    fn finish(mut self) -> (Vec<u8>, Vec<u8>, CommandEnd) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.receive().unwrap() {
                Frame::Stdout(bytes) => stdout.extend(bytes),
                Frame::Stderr(bytes) => stderr.extend(bytes),
                Frame::Taken(_) => {}
                Frame::Ended(end) => return (stdout, stderr, end),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_command_has_three_streams_and_an_end() {
    let host = Host::new();
    let mut client = host.start("cat; printf 'x\\0\\377' >&2; pwd; exit 3");
    client.send(&Frame::Stdin(b"in\0".to_vec()));
    client.send(&Frame::StdinEnd);
    let (stdout, stderr, end) = client.finish();
    let expected = format!("in\0{}\n", host.place.path().display());
    assert_eq!(String::from_utf8_lossy(&stdout), expected);
    assert_eq!(stderr, b"x\0\xff");
    assert_eq!(end, CommandEnd::Exited(3));
    let log = host.log_until("exit status 3");
    assert!(log.contains(&expected), "{log:?}");
    let (_, _, end) = host.start("kill -TERM $$").finish();
    assert_eq!(end, CommandEnd::Signal(15));
}

#[test]
fn a_command_that_cannot_start_ends_as_in_a_shell() {
    let host = Host::new();
    for (program, cwd, user, code) in [
        ("/nonexistent", None, None, 127),
        ("/", None, None, 126),
        ("true", Some("/nonexistent"), None, 126),
        ("true", None, Some("no-such-user"), 126),
    ] {
        let mut client = host.waiting();
        client.send(&Frame::Start(Box::new(Command {
            command: vec![program.into()],
            cwd: cwd.map(Into::into),
            user: user.map(Into::into),
            ..Command::default()
        })));
        let (_, stderr, end) = client.finish();
        assert_eq!(end, CommandEnd::Exited(code), "{program}");
        assert!(!stderr.is_empty());
    }
}

#[test]
fn the_end_of_a_command_that_cannot_start_is_not_lost_while_its_input_comes() {
    let host = Host::new();
    let mut client = host.waiting();
    client.send(&Frame::Start(Box::new(Command {
        command: vec!["/nonexistent".into()],
        ..Command::default()
    })));
    host.log_until("exit status 127");
    for _ in 0..100 {
        client.send(&Frame::Stdin(vec![0; 2048]));
    }
    client.send(&Frame::StdinEnd);
    let (_, _, end) = client.finish();
    assert_eq!(end, CommandEnd::Exited(127));
}

#[test]
fn a_command_ends_with_its_connection_though_it_reads_no_input() {
    let host = Host::new();
    let gone = host.place.path().join("gone");
    let script = format!(
        "trap 'echo end >{}; exit 0' TERM; echo up; while :; do sleep 0.05; done",
        gone.display()
    );
    let mut client = host.start(&script);
    assert_eq!(client.receive(), Some(Frame::Stdout(b"up\n".to_vec())));
    // As much as the window allows waits for it.
    for _ in 0..WINDOW / 32_768 {
        client.send(&Frame::Stdin(vec![0; 32_768]));
    }
    drop(client);
    host.log_until("exit status 0");
    assert!(gone.exists());
}

#[test]
fn input_beyond_the_window_ends_the_command() {
    let host = Host::new();
    let mut client = host.start("exec sleep 1000");
    for _ in 0..WINDOW / 32_768 + 3 {
        client.send(&Frame::Stdin(vec![0; 32_768]));
    }
    let end = std::iter::from_fn(|| client.receive()).last();
    assert_eq!(end, Some(Frame::Ended(CommandEnd::Signal(15))));
}

#[test]
fn a_slow_reader_gets_all_output_of_a_command_that_has_ended() {
    let host = Host::new();
    let mut client = host.start("head -c 20000000 /dev/zero; echo end >&2");
    let mut last = None;
    let mut bytes = 0;
    while let Some(frame) = client.receive() {
        if let Frame::Stdout(piece) = &frame {
            bytes += piece.len();
        }
        if let Frame::Ended(end) = frame {
            last = Some(end);
            break;
        }
    }
    assert_eq!((bytes, last), (20_000_000, Some(CommandEnd::Exited(0))));
}

#[test]
fn as_many_commands_run_as_have_places() {
    let host = Host::new();
    let mut clients: Vec<_> = (0..COMMANDS_MAX)
        .map(|_| host.start("echo up; cat"))
        .collect();
    for client in &mut clients {
        assert_eq!(client.receive(), Some(Frame::Stdout(b"up\n".to_vec())));
    }
    host.listener.set_nonblocking(true).unwrap();
    assert!(host.listener.accept().is_err(), "no place is free");
    clients.pop().unwrap().send(&Frame::StdinEnd);
    host.listener.set_nonblocking(false).unwrap();
    let (stdout, _, _) = host.start("echo next").finish();
    assert_eq!(stdout, b"next\n");
}
