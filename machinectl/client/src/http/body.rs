//! The bodies of requests: documents in memory, and files.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{self, Bytes, Frame, SizeHint};

/// The size of one read of a file.
const PIECE: usize = 64 * 1024;

/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Returns a body of a document in memory.
pub(crate) fn boxed(
    body: impl body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}

/// Returns a body of a file, from its current position to its present end. `passed` counts the
/// bytes.
pub(super) fn of_file(mut file: File, passed: Arc<AtomicU64>) -> io::Result<Body> {
    let position = io::Seek::stream_position(&mut file)?;
    let left = file.metadata()?.len().saturating_sub(position);
    Ok(FileBody { file, left, passed }.boxed_unsync())
}

/// A file on its way. Reads block, which nothing else on the client's runtime minds.
struct FileBody {
    file: File,
    left: u64,
    passed: Arc<AtomicU64>,
}

impl body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        if body.left == 0 {
            return Poll::Ready(None);
        }
        let size = usize::try_from(body.left).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; size];
        Poll::Ready(Some(match body.file.read(&mut piece) {
            Ok(0) => Err(io::Error::other("the file has become shorter")),
            Ok(count) => {
                piece.truncate(count);
                body.left -= count as u64;
                body.passed.fetch_add(count as u64, Ordering::Relaxed);
                Ok(Frame::data(piece.into()))
            }
            Err(error) => Err(error),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use super::*;

    #[tokio::test]
    async fn a_file_is_sent_from_its_position_with_its_size() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 3 * PIECE]).unwrap();
        file.seek(SeekFrom::Start(10)).unwrap();
        let passed = Arc::new(AtomicU64::new(0));
        let body = of_file(file, Arc::clone(&passed)).unwrap();
        let expected = 3 * PIECE - 10;
        assert_eq!(body::Body::size_hint(&body).exact(), Some(expected as u64));
        let sent = body.collect().await.unwrap().to_bytes();
        assert_eq!(sent.len(), expected);
        assert_eq!(passed.load(Ordering::Relaxed), expected as u64);
    }

    #[tokio::test]
    async fn a_file_that_becomes_shorter_is_an_error() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        file.rewind().unwrap();
        let body = of_file(file.try_clone().unwrap(), Arc::default()).unwrap();
        file.set_len(0).unwrap();
        assert!(body.collect().await.is_err());
    }
}
