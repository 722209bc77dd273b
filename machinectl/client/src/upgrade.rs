//! Turns a connection with the agent into one with a guest's console.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use config::builds::{CONSOLE_PROTOCOL, Problem};

use super::{ANSWER_LIMIT, ClientError};

/// A connection with a console, and what has come through it already.
#[derive(Debug)]
pub struct Line {
    /// The connection.
    pub stream: UnixStream,
    /// What has come.
    pub heard: Vec<u8>,
}

/// No answer of the agent has a longer head.
const HEAD_MAX: usize = 16 * 1024;

/// Asks for a path whose connection becomes a console.
pub(super) fn ask(socket: &Path, method: &str, path: &str) -> Result<Line, ClientError> {
    let mut stream = UnixStream::connect(socket).map_err(|source| ClientError::NoAgent {
        socket: socket.to_owned(),
        source: source.into(),
    })?;
    let head = format!(
        "{method} /api/v1/{path} HTTP/1.1\r\nHost: agent\r\nConnection: upgrade\r\n\
         Upgrade: {CONSOLE_PROTOCOL}\r\nContent-Length: 0\r\n\r\n"
    );
    let mut talk = || -> io::Result<Answer> {
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(head.as_bytes())?;
        let answer = read(&mut stream)?;
        stream.set_read_timeout(None)?;
        Ok(answer)
    };
    let answer = talk().map_err(ClientError::Console)?;
    match answer.status {
        101 => Ok(Line {
            stream,
            heard: answer.body,
        }),
        status => {
            let text = String::from_utf8_lossy(&answer.body);
            let problem = serde_json::from_str::<Problem>(&text);
            let detail = problem.map_or_else(|_| format!("status {status}"), |it| it.detail);
            Err(ClientError::Refused { status, detail })
        }
    }
}

/// An answer; of one that becomes a connection, what has come of that so far.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

fn read(stream: &mut impl Read) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > HEAD_MAX || !more(stream, &mut bytes)? {
            return Err(io::ErrorKind::InvalidData.into());
        }
    };
    let mut body = bytes.split_off(end + 4);
    let head = String::from_utf8_lossy(&bytes);
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = lengths
        .next()
        .and_then(|(_, text)| text.trim().parse().ok());
    let wanted = if status == 101 {
        0
    } else {
        length.unwrap_or(0)
    };
    while body.len() < wanted && body.len() <= HEAD_MAX && more(stream, &mut body)? {}
    Ok(Answer { status, body })
}

/// Reads on; false at the end.
fn more(stream: &mut impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = [0; 1024];
    let count = stream.read(&mut piece)?;
    into.extend_from_slice(&piece[..count]);
    Ok(count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_console_a_refusal_or_nonsense() {
        let read = |text: &str| read(&mut text.as_bytes()).ok();
        let answer = |status, body: &str| {
            Some(Answer {
                status,
                body: body.into(),
            })
        };
        let upgraded = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nlogin: ";
        assert_eq!(read(upgraded), answer(101, "login: "));
        let refused = "HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(read(refused), answer(409, "{}"));
        for nonsense in ["", "HTTP/1.1 x\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }
}
