//! Lets guests begin: answers those that wait for their task, as
//! [`config::task::CONTROL_PORT`] has it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use config::task::{READY, StartMessage};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tracing::warn;

/// No line of a guest that means well is longer.
const LINE_MAX: usize = 64;
/// How long one may take to hear a line.
const LIMIT: Duration = Duration::from_secs(5);

/// What a guest's readiness means to us.
#[derive(Debug)]
pub enum Manner {
    /// It may begin whenever it is ready.
    Answer,
    /// It was ready when it was frozen: it may begin at once.
    Wake,
    /// It must not begin: it is to be frozen. We are told that it is ready.
    Hold(oneshot::Sender<()>),
}

/// Attends to one guest until it is gone, or says what we do not understand.
pub async fn attend(mut stream: UnixStream, manner: Manner) {
    let mut tell = match manner {
        Manner::Answer => None,
        Manner::Wake => {
            answer(&mut stream).await;
            None
        }
        Manner::Hold(ready) => Some(ready),
    };
    let held = tell.is_some();
    let mut heard = Vec::new();
    let mut buffer = [0; LINE_MAX];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        heard.extend_from_slice(&buffer[..count]);
        while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<_> = heard.drain(..=end).collect();
            if line.trim_ascii() != READY.as_bytes() {
                continue;
            }
            match tell.take() {
                // Nobody waits for it any more when the receiver is gone.
                Some(ready) => drop(ready.send(())),
                None if held => {}
                None => answer(&mut stream).await,
            }
        }
        if heard.len() > LINE_MAX {
            return warn!("the guest says what is no word of a worker on its control port");
        }
    }
}

/// Tells the time and a secret. A guest that does not hear it asks again.
async fn answer(stream: &mut UnixStream) {
    let line = match go() {
        Ok(go) => go.print(),
        Err(error) => return warn!(%error, "cannot draw random bytes for a guest"),
    };
    let told = tokio::time::timeout(LIMIT, stream.write_all(line.as_bytes())).await;
    if !matches!(told, Ok(Ok(()))) {
        warn!("the guest does not listen on its control port");
    }
}

fn go() -> std::io::Result<StartMessage> {
    let mut random = [0; 64];
    // So few bytes come whole.
    let drawn = getrandom(&mut random[..], GetRandomFlags::empty())?;
    if drawn < random.len() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    let time = time.map_err(std::io::Error::other)?;
    Ok(StartMessage { time, random })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;

    #[tokio::test]
    async fn a_guest_that_is_ready_may_begin_and_each_with_other_bytes() {
        let (ours, guests) = UnixStream::pair().unwrap();
        let attending = tokio::spawn(attend(ours, Manner::Wake));
        let mut guest = BufReader::new(guests);
        let mut lines = Vec::new();
        for _ in 0..2 {
            let mut line = String::new();
            guest.read_line(&mut line).await.unwrap();
            lines.push(StartMessage::parse(&line).unwrap());
            guest.write_all(b"hello\nready\n").await.unwrap();
        }
        assert_ne!(lines[0].random, lines[1].random);
        drop(guest);
        attending.await.unwrap();
    }

    #[tokio::test]
    async fn one_that_is_to_be_frozen_is_told_of_and_not_answered() {
        let (ours, mut guest) = UnixStream::pair().unwrap();
        let (sender, ready) = oneshot::channel();
        let attending = tokio::spawn(attend(ours, Manner::Hold(sender)));
        guest.write_all(b"ready\nready\n").await.unwrap();
        ready.await.unwrap();
        // What never ends its line is not listened to any longer.
        guest.write_all(&[b'x'; 500]).await.unwrap();
        attending.await.unwrap();
        let mut heard = Vec::new();
        // The rest that was not read makes this an error; nothing was said before.
        let _ = guest.read_to_end(&mut heard).await;
        assert_eq!(heard, b"");
    }
}
