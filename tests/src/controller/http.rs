//! The connections of a test controller: HTTP/1.1 with one request each.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;

use super::message::{Answer, Request};
use super::protocol;
use super::{Misbehavior, RequestKind, State};

/// The largest body that is read.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// Answers one request.
pub(super) fn serve(stream: &TcpStream, state: &Mutex<State>, base: &str) {
    let Some(request) = read(stream) else {
        return;
    };
    let kind = match request.query.first().map(|(name, _)| name.as_str()) {
        Some("build-task") => RequestKind::Task,
        Some("upload") => RequestKind::Upload,
        _ => RequestKind::Result,
    };
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let misbehavior = state.misbehavior.get_mut(&kind);
    let misbehavior = misbehavior.and_then(std::collections::VecDeque::pop_front);
    match &misbehavior {
        Some(Misbehavior::LostRequest) => return,
        Some(Misbehavior::Status(status)) => return write(stream, &(*status, "trouble".into())),
        Some(Misbehavior::Garbage) => return write(stream, &(200, "<html>\n\0".into())),
        Some(Misbehavior::Slow(_) | Misbehavior::LostAnswer) | None => {}
    }
    let answer = protocol::answer(&mut state, kind, &request, base);
    if answer.0 >= 400 {
        state.bad_requests.push(answer.1.clone());
    }
    drop(state);
    match misbehavior {
        Some(Misbehavior::LostAnswer) => return,
        Some(Misbehavior::Slow(time)) => sleep(time),
        _ => {}
    }
    write(stream, &answer);
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let target = line.split(' ').nth(1)?.to_owned();
    let headers = headers(&mut reader)?;
    let length: u64 = headers.get("content-length")?.parse().ok()?;
    let mut body = Vec::new();
    reader
        .take(length.min(BODY_BYTES_MAX))
        .read_to_end(&mut body)
        .ok()?;
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), value.to_owned())
    });
    Some(Request {
        query: pairs.collect(),
        content_type: headers.get("content-type").cloned().unwrap_or_default(),
        body,
    })
}

fn headers(reader: &mut impl BufRead) -> Option<BTreeMap<String, String>> {
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Some(headers);
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}

fn write(mut stream: &TcpStream, (status, body): &Answer) {
    let head = format!(
        "HTTP/1.1 {status} x\r\nContent-Type: text/manifest;charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    // The agent may have been killed.
    let _ = stream.write_all(&[head.as_bytes(), body.as_bytes()].concat());
}
