//! The capture of a guest's output in files, up to a limit.
//!
//! Output is written to its file before viewers are shown it, so that a file has all that a
//! person has seen, even after a crash of the agent.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use config::secrets::{Mask, MaskedStream};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::line_times::LineTimes;

/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The time after the end of a guest in which its last output becomes readable, if its stream
/// does not end.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);

/// The files that receive a guest's output.
#[derive(Debug, Clone)]
pub struct CaptureFiles {
    /// The output of its serial console.
    pub console: PathBuf,
    /// The log of its worker.
    pub log: PathBuf,
    /// The times at which the log arrived, see [`super::line_times`].
    pub log_times: PathBuf,
    /// The maximum size of each file.
    pub bytes_max: u64,
}

/// The capture of output in one file. Bytes beyond its limit are dropped, so that the guest is
/// never blocked.
#[derive(Debug)]
pub(super) struct Capture {
    path: PathBuf,
    times: Option<PathBuf>,
    bytes_max: u64,
    mask: Mask,
    drain: CancellationToken,
}

impl Capture {
    /// Describes a capture. Once `drain` is canceled, because the guest has ended, the capture
    /// ends as soon as nothing is left to read.
    pub(super) fn new(path: PathBuf, bytes_max: u64, drain: CancellationToken) -> Self {
        Self {
            path,
            times: None,
            bytes_max,
            mask: Mask::default(),
            drain,
        }
    }

    /// Records the times of arrival in another file.
    pub(super) fn with_times(mut self, path: PathBuf) -> Self {
        self.times = Some(path);
        self
    }

    /// Masks secrets in the output.
    pub(super) fn with_mask(mut self, mask: Mask) -> Self {
        self.mask = mask;
        self
    }

    /// Appends a stream to the file until the stream ends. `on_output` is called with each piece
    /// after it was written.
    pub(super) async fn stream(
        self,
        stream: impl AsyncRead + Unpin,
        mut on_output: impl FnMut(&[u8]),
    ) {
        let mut file = self.open().await;
        file.append(stream, &self.drain, &mut on_output).await;
    }

    /// Appends the streams of all connections, one after the other, to the file; for ever.
    /// However many connections a guest opens, one is accepted at a time. It has no deadline,
    /// because a worker may be quiet for long; a guest that holds it withholds only its own log.
    pub(super) async fn connections(self, listener: TcpListener, mut on_output: impl FnMut(&[u8])) {
        let mut file = self.open().await;
        while let Some(accepted) = unless_drained(&self.drain, listener.accept()).await {
            match accepted {
                Ok((stream, _)) => file.append(stream, &self.drain, &mut on_output).await,
                // The agent may be out of descriptors for a while.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    async fn open(&self) -> CaptureFile {
        let file = open(&self.path).await;
        // A file of a guest that was adopted has content.
        let size = match &file {
            Some(file) => file.metadata().await.map_or(0, |metadata| metadata.len()),
            None => 0,
        };
        let times = match &self.times {
            Some(path) => open(path).await.map(|file| TimesFile {
                file,
                path: path.clone(),
                times: LineTimes::default(),
            }),
            None => None,
        };
        CaptureFile {
            file,
            path: self.path.clone(),
            times,
            size,
            bytes_max: self.bytes_max,
            mask: self.mask.stream(),
        }
    }
}

/// Opens a file to append to; logs a failure.
#[expect(
    clippy::disallowed_methods,
    reason = "the path is in a directory that only root may change"
)]
async fn open(path: &Path) -> Option<File> {
    let mut options = OpenOptions::new();
    let opened = options.create(true).append(true).open(path).await;
    opened.inspect_err(|error| log_error(path, error)).ok()
}

/// Waits for input. Returns `None` if nothing arrives shortly after the guest has ended.
async fn unless_drained<T>(drain: &CancellationToken, input: impl Future<Output = T>) -> Option<T> {
    let drained = async {
        drain.cancelled().await;
        tokio::time::sleep(DRAIN_PAUSE).await;
    };
    tokio::select! {
        biased;
        input = input => Some(input),
        () = drained => None,
    }
}

/// The file that receives the times of lines.
struct TimesFile {
    file: File,
    path: PathBuf,
    times: LineTimes,
}

/// A file that receives output.
struct CaptureFile {
    path: PathBuf,
    /// None after an error, from which on output is dropped.
    file: Option<File>,
    times: Option<TimesFile>,
    size: u64,
    bytes_max: u64,
    mask: MaskedStream,
}

impl CaptureFile {
    async fn append(
        &mut self,
        mut stream: impl AsyncRead + Unpin,
        drain: &CancellationToken,
        on_output: &mut impl FnMut(&[u8]),
    ) {
        let mut buffer = vec![0; 16 * 1024];
        while let Some(Ok(count @ 1..)) = unless_drained(drain, stream.read(&mut buffer)).await {
            let piece = self.mask.push(&buffer[..count]);
            self.write(&piece).await;
            on_output(&piece);
        }
        let rest = self.mask.finish();
        if !rest.is_empty() {
            self.write(&rest).await;
            on_output(&rest);
        }
    }

    /// Writes as much as the limit leaves room for.
    async fn write(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let left = self.bytes_max.saturating_sub(self.size);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(left)];
        if bytes.is_empty() {
            return;
        }
        if let Err(error) = write_through(file, bytes).await {
            log_error(&self.path, &error);
            self.file = None;
        }
        let offset = self.size;
        self.size += bytes.len() as u64;
        if let Some(file) = &mut self.times
            && let Some(entry) = file.times.entry(offset, SystemTime::now())
            && let Err(error) = write_through(&mut file.file, entry.as_bytes()).await
        {
            log_error(&file.path, &error);
            self.times = None;
        }
    }
}

/// Writes bytes to the operating system: tokio's files return from a write before it is done.
async fn write_through(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes).await?;
    file.flush().await
}

fn log_error(path: &Path, error: &io::Error) {
    warn!(path = %path.display(), %error, "cannot capture the output of a guest");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_is_read_to_its_end_beyond_the_limit_of_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let content = vec![b'x'; 40_000];
        let mut rest: &[u8] = &content;
        let mut shown = 0;
        let capture = Capture::new(path.clone(), 20_000, CancellationToken::new());
        capture
            .stream(&mut rest, |piece| shown += piece.len())
            .await;
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 20_000);
        assert!(rest.is_empty());
        assert_eq!(shown, 40_000);
    }

    #[tokio::test]
    async fn secrets_are_masked_in_the_file_and_for_viewers_across_pieces() {
        use config::secrets::SecretValue;
        use tokio::io::AsyncReadExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        let mut shown = Vec::new();
        let output = (&b"login hunt"[..]).chain(&b"er2-hunter2\nhunter2"[..]);
        let value = SecretValue::new(b"hunter2-hunter2".to_vec()).unwrap();
        Capture::new(path.clone(), 1 << 20, CancellationToken::new())
            .with_mask(Mask::new([&value]))
            .stream(output, |piece| shown.extend_from_slice(piece))
            .await;
        assert_eq!(shown, b"login ***\nhunter2");
        assert_eq!(std::fs::read(&path).unwrap(), shown);
    }

    #[tokio::test]
    async fn one_connection_of_many_is_open() {
        use tokio::net::TcpStream;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let capture = Capture::new(path.clone(), 1 << 20, CancellationToken::new());
        let captured = tokio::spawn(capture.connections(listener, |_| ()));
        let first = TcpStream::connect(address).await.unwrap();
        let mut others = Vec::new();
        for number in 0..50_u8 {
            let mut other = TcpStream::connect(address).await.unwrap();
            other.write_all(&[b'a' + number % 26]).await.unwrap();
            others.push(other);
        }
        assert_eq!(std::fs::read(&path).unwrap_or_default(), b"");
        drop((first, others));
        while std::fs::read(&path).unwrap_or_default().len() < 50 {
            tokio::task::yield_now().await;
        }
        captured.abort();
    }

    #[tokio::test]
    async fn output_is_in_its_file_when_it_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        let mut shown = Vec::new();
        let output = b"one\n".chain(&b"two\n"[..]);
        let capture = Capture::new(path.clone(), 1 << 20, CancellationToken::new());
        let show = |piece: &[u8]| {
            shown.extend_from_slice(piece);
            assert_eq!(std::fs::read(&path).unwrap(), shown);
        };
        capture.stream(output, show).await;
        assert_eq!(shown, b"one\ntwo\n");
    }

    #[tokio::test]
    async fn what_a_guest_sent_before_its_end_is_captured_though_its_streams_stay_open() {
        use tokio::net::TcpStream;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(listener.local_addr().unwrap())
                .await
                .unwrap();
            stream.write_all(&vec![b'x'; 100_000]).await.unwrap();
            streams.push(stream);
        }
        let drain = CancellationToken::new();
        drain.cancel();
        let capture = Capture::new(path.clone(), 1 << 20, drain);
        capture.connections(listener, |_| ()).await;
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 300_000);
    }
}
