//! Receivers of notifications: servers of webhooks that misbehave, and one for mail.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// The time limit for a request of the agent.
const LIMIT: Duration = Duration::from_mins(4);

/// A request that the server got.
#[derive(Debug)]
pub struct Received {
    /// The ID.
    pub id: String,
    /// The signature, if it has one.
    pub signature: Option<String>,
    /// The body.
    pub body: Value,
}

/// Reads a request.
pub fn read(stream: &TcpStream) -> Received {
    let mut reader = BufReader::new(stream);
    let (mut id, mut signature, mut length) = (String::new(), None, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(": ") else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "webhook-id" => value.clone_into(&mut id),
            "webhook-signature" => signature = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Received {
        id,
        signature,
        body: serde_json::from_slice(&body).unwrap(),
    }
}

/// A server that answers no request until it is told to.
#[derive(Debug)]
pub struct HangingWebhook {
    url: String,
    ids: Receiver<String>,
    gate: Sender<()>,
}

impl HangingWebhook {
    /// Starts a server on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (ids, received) = channel();
        let (gate, opened) = channel::<()>();
        thread::spawn(move || accept(&listener, &ids, opened));
        Self {
            url,
            ids: received,
            gate,
        }
    }

    /// Returns its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits for the next request, and returns its ID.
    pub fn next_id(&self) -> String {
        self.ids.recv_timeout(LIMIT).unwrap()
    }

    /// Answers the open requests and all later ones.
    pub fn answer(&self) {
        self.gate.send(()).unwrap();
    }
}

fn accept(listener: &TcpListener, ids: &Sender<String>, opened: Receiver<()>) {
    let (waiting, requests) = channel::<TcpStream>();
    // The gate is opened by a message, after which all requests are answered.
    thread::spawn(move || {
        if opened.recv().is_ok() {
            for stream in requests {
                answer(&stream);
            }
        }
    });
    for stream in listener.incoming().flatten() {
        let received = read(&stream);
        if ids.send(received.id).is_err() || waiting.send(stream).is_err() {
            return;
        }
    }
}

fn answer(mut stream: &TcpStream) {
    // The agent may have been killed meanwhile.
    let _ =
        stream.write_all(b"HTTP/1.1 204 Fine\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

/// A server for mail that accepts each message, and returns its text.
#[derive(Debug)]
pub struct MailSink {
    /// The port.
    pub port: u16,
    messages: Receiver<String>,
}

impl MailSink {
    /// Starts a server on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, messages) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(message) = converse(&stream)
                    && sender.send(message).is_err()
                {
                    return;
                }
            }
        });
        Self { port, messages }
    }

    /// Waits for the next message.
    pub fn next(&self) -> String {
        self.messages.recv_timeout(LIMIT).unwrap()
    }
}

/// Speaks SMTP with a client. Returns its message; `None` if it sends none.
fn converse(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream).lines();
    let say = |text: &str| (&*stream).write_all(format!("{text}\r\n").as_bytes()).ok();
    let mut message = None;
    say("220 sink")?;
    loop {
        let line = lines.next()?.ok()?;
        match line.split(' ').next()?.to_ascii_uppercase().as_str() {
            "DATA" => {
                say("354 end with a dot")?;
                let text: Vec<_> = lines
                    .by_ref()
                    .map_while(Result::ok)
                    .take_while(|it| it != ".")
                    .collect();
                message = Some(text.join("\n"));
                say("250 stored")?;
            }
            "QUIT" => {
                say("221 bye")?;
                return message;
            }
            _ => say("250 fine")?,
        }
    }
}

/// A server that accepts each request.
#[derive(Debug)]
pub struct Webhook {
    url: String,
    requests: Receiver<Received>,
}

impl Webhook {
    /// Starts a server on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (sender, requests) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let received = read(&stream);
                answer(&stream);
                if sender.send(received).is_err() {
                    return;
                }
            }
        });
        Self { url, requests }
    }

    /// Returns its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits for the next request.
    pub fn next(&self) -> Received {
        self.requests.recv_timeout(LIMIT).unwrap()
    }

    /// Returns the requests that have arrived and that nobody has waited for.
    pub fn rest(&self) -> Vec<Received> {
        self.requests.try_iter().collect()
    }
}
