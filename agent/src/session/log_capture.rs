//! Records what a guest prints, up to a limit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tracing::warn;

/// How long we wait when a connection cannot be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// Where what a guest prints is recorded.
#[derive(Debug, Clone)]
pub struct CaptureFiles {
    /// Its serial console.
    pub console: PathBuf,
    /// The log of its worker.
    pub log: PathBuf,
    /// The size that neither file passes.
    pub bytes_max: u64,
}

/// Copies a stream to the end of a file, until the stream ends. What goes beyond
/// `bytes_max` is read and dropped, so that the guest does not stand still.
pub async fn follow(stream: impl AsyncRead + Unpin, path: PathBuf, bytes_max: u64) {
    if let Some(file) = open(&path).await {
        copy(stream, file, &path, bytes_max).await;
    }
}

/// Copies what comes through connections, one after the other, to the end of a file,
/// for ever; all of them together up to `bytes_max`.
pub async fn listen(listener: TcpListener, path: PathBuf, bytes_max: u64) {
    let mut left = bytes_max;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, perhaps: the next one may fare better.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Some(file) = open(&path).await else {
            return;
        };
        left = copy(stream, file, &path, left).await;
    }
}

async fn open(path: &Path) -> Option<File> {
    let opened = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .await;
    opened.inspect_err(|error| complain(path, error)).ok()
}

fn complain(path: &Path, error: &std::io::Error) {
    warn!(path = %path.display(), %error, "cannot record what a guest prints");
}

/// Copies a stream to a file; returns how much more the file may hold.
async fn copy(
    mut stream: impl AsyncRead + Unpin,
    mut file: File,
    path: &Path,
    mut left: u64,
) -> u64 {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let kept = usize::try_from(left).unwrap_or(usize::MAX).min(count);
        left -= kept as u64;
        let written = match file.write_all(&buffer[..kept]).await {
            Ok(()) => file.flush().await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            complain(path, &error);
            left = 0;
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_record_stops_at_its_limit_and_the_stream_is_read_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let content = vec![b'x'; 40_000];
        let mut rest: &[u8] = &content;
        follow(&mut rest, path.clone(), 20_000).await;
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 20_000);
        assert!(rest.is_empty());
    }
}
