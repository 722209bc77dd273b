//! Records what a guest prints, up to a limit.

use std::path::PathBuf;

use tokio::fs::OpenOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tracing::warn;

/// Where what a guest prints is recorded.
#[derive(Debug, Clone)]
pub struct Files {
    /// Its serial console.
    pub console: PathBuf,
    /// The log of its worker.
    pub log: PathBuf,
    /// The size that neither file passes.
    pub bytes_max: u64,
}

/// Copies a stream to the end of a file, until the stream ends. What goes beyond
/// `bytes_max` is read and dropped, so that the guest does not stand still.
pub async fn follow(mut stream: impl AsyncRead + Unpin, path: PathBuf, bytes_max: u64) {
    let opened = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .await;
    let mut file = match opened {
        Ok(file) => file,
        Err(error) => {
            return warn!(path = %path.display(), %error, "cannot record what a guest prints");
        }
    };
    let mut left = bytes_max;
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let kept = usize::try_from(left).unwrap_or(usize::MAX).min(count);
        left -= kept as u64;
        let written = match file.write_all(&buffer[..kept]).await {
            Ok(()) => file.flush().await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            warn!(path = %path.display(), %error, "cannot record what a guest prints");
            left = 0;
        }
    }
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
