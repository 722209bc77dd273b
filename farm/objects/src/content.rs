//! The content of an object, which is verified while it is read.

use bytes::Bytes;
use config::task::Digest;
use futures_util::stream::{BoxStream, Stream, StreamExt, try_unfold};
use sha2::{Digest as _, Sha256};

use crate::error::ObjectsError;

/// The size and the hash of an object that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The size.
    pub bytes: u64,
    /// The hash.
    pub sha256: Digest,
}

/// The content of an object.
pub type Content = BoxStream<'static, Result<Bytes, ObjectsError>>;

/// The sum over content that passes by.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    bytes: u64,
    hash: Sha256,
}

impl Sum {
    pub(crate) fn add(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.hash.update(piece);
    }

    pub(crate) fn stored(self) -> Stored {
        let hash: [u8; 32] = self.hash.finalize().into();
        Stored {
            bytes: self.bytes,
            sha256: hash.into(),
        }
    }
}

/// Returns content that ends with an error unless it is the one that was stored.
pub(crate) fn checked<S>(pieces: S, stored: Stored, name: String) -> Content
where
    S: Stream<Item = Result<Bytes, ObjectsError>> + Send + Unpin + 'static,
{
    // The last piece is passed on when the next one or the end is there, so that content that differs is
    // never complete.
    let state = Some((pieces, Sum::default(), None::<Bytes>));
    let next = move |state: Option<(S, Sum, Option<Bytes>)>| {
        let (stored, name) = (stored.clone(), name.clone());
        async move {
            let Some((mut pieces, mut sum, mut last)) = state else {
                return Ok(None);
            };
            while let Some(piece) = pieces.next().await.transpose()? {
                sum.add(&piece);
                if let Some(before) = last.replace(piece) {
                    return Ok(Some((before, Some((pieces, sum, last)))));
                }
            }
            if sum.stored() == stored {
                Ok(last.map(|last| (last, None)))
            } else {
                Err(ObjectsError::Differs { name })
            }
        }
    };
    try_unfold(state, next).boxed()
}

/// Returns content from an offset on. All of it is read and verified.
pub(crate) fn from_offset(content: Content, offset: u64) -> Content {
    let skip = move |(content, left): (Content, u64)| async move {
        let (mut content, mut left) = (content, left);
        while let Some(mut piece) = content.next().await.transpose()? {
            let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            left -= skipped as u64;
            let rest = piece.split_off(skipped);
            if !rest.is_empty() {
                return Ok(Some((rest, (content, left))));
            }
        }
        Ok(None)
    };
    try_unfold((content, offset), skip).boxed()
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{TryStreamExt, iter};

    use super::*;

    fn stored(text: &str) -> Stored {
        let mut sum = Sum::default();
        sum.add(text.as_bytes());
        sum.stored()
    }

    async fn read(pieces: &[&'static str], stored: Stored, offset: u64) -> (String, bool) {
        let pieces: Vec<_> = pieces
            .iter()
            .map(|it| Ok(Bytes::from_static(it.as_bytes())))
            .collect();
        let content = checked(iter(pieces), stored, "log".to_owned());
        let mut content = from_offset(content, offset);
        let mut text = String::new();
        loop {
            match content.try_next().await {
                Ok(Some(piece)) => text.push_str(std::str::from_utf8(&piece).unwrap()),
                Ok(None) => return (text, true),
                Err(_) => return (text, false),
            }
        }
    }

    #[tokio::test]
    async fn content_that_differs_is_never_complete() {
        let whole = ("one two".to_owned(), true);
        assert_eq!(
            read(&["one", " ", "two"], stored("one two"), 0).await,
            whole
        );
        assert_eq!(read(&[], stored(""), 0).await, (String::new(), true));
        let cut = read(&["one", " "], stored("one two"), 0).await;
        assert_eq!(cut, ("one".to_owned(), false));
        let other = read(&["one", " twe"], stored("one two"), 0).await;
        assert_eq!(other, ("one".to_owned(), false));
        let longer = read(&["one", " two", "!"], stored("one two"), 0).await;
        assert!(!longer.1, "{longer:?}");
    }

    #[tokio::test]
    async fn a_part_of_content_is_verified_with_all_of_it() {
        let part = |offset| read(&["one", " two"], stored("one two"), offset);
        assert_eq!(part(2).await, ("e two".to_owned(), true));
        assert_eq!(part(5).await, ("wo".to_owned(), true));
        assert_eq!(part(7).await, (String::new(), true));
        assert_eq!(part(9).await, (String::new(), true));
        let other = read(&["ane", " two"], stored("one two"), 5).await;
        assert_eq!(other, (String::new(), false));
    }
}
