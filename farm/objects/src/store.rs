//! The object store: put, get and delete by name.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{Stream, StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
};

use crate::connector::Connector;
use crate::content::{Content, Stored, Sum, checked, from_offset};
use crate::error::{ObjectsError, PutError};
use crate::{Address, Credentials};

/// The size of a part. A smaller object is written by one request.
const PART: usize = 8 << 20;
/// The longest message of a store that is passed on.
const SHOWN_MAX: usize = 300;

/// The objects of a farm.
#[derive(Debug, Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    address: Address,
}

impl Objects {
    /// Opens a store. A bucket is not asked yet.
    ///
    /// # Errors
    /// The directory does not exist, or the settings of the bucket cannot be used.
    pub fn open(
        address: Address,
        endpoint: Option<&str>,
        region: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Self, ObjectsError> {
        let (store, prefix): (Arc<dyn ObjectStore>, _) = match &address {
            Address::Directory(path) => {
                let opened = LocalFileSystem::new_with_prefix(path);
                let opened = opened.map_err(|source| ObjectsError::Directory {
                    path: path.clone(),
                    source: Box::new(source),
                })?;
                let store = opened.with_automatic_cleanup(true).with_fsync(true);
                (Arc::new(store), Path::default())
            }
            Address::Bucket { bucket, prefix } => {
                let store = bucket_store(bucket, endpoint, region, credentials);
                let store = store.map_err(|error| failed(&address, bucket, &error))?;
                (store, Path::from(prefix.as_str()))
            }
        };
        Ok(Self {
            store,
            prefix,
            address,
        })
    }

    /// Returns the address of the store.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Puts an object. It is there as a whole when this returns, and only then.
    ///
    /// # Errors
    /// The content was cut, or the store fails. It is unknown then if the object is there.
    pub async fn put(
        &self,
        name: &str,
        content: impl Stream<Item = Result<Bytes, String>> + Send + Unpin,
    ) -> Result<Stored, PutError> {
        let path = self.path(name);
        let failed = |error: object_store::Error| self.failed(name, &error);
        let mut parts = Parts::new(content);
        let first = parts.next().await?;
        if parts.has_ended {
            let written = self.store.put(&path, PutPayload::from_bytes(first)).await;
            written.map_err(failed)?;
            return Ok(parts.sum.stored());
        }
        let mut upload = self.store.put_multipart(&path).await.map_err(failed)?;
        let sent = self.send_parts(name, first, &mut parts, &mut *upload).await;
        if let Err(error) = sent {
            // Parts of which the store cannot be told are deleted by a rule of the bucket.
            let _ = upload.abort().await;
            return Err(error);
        }
        Ok(parts.sum.stored())
    }

    async fn send_parts<S>(
        &self,
        name: &str,
        first: Bytes,
        parts: &mut Parts<S>,
        upload: &mut dyn MultipartUpload,
    ) -> Result<(), PutError>
    where
        S: Stream<Item = Result<Bytes, String>> + Send + Unpin,
    {
        let failed = |error: object_store::Error| self.failed(name, &error);
        let mut part = first;
        while !part.is_empty() {
            let sent = upload.put_part(PutPayload::from_bytes(part)).await;
            sent.map_err(failed)?;
            part = parts.next().await?;
        }
        upload.complete().await.map_err(failed)?;
        Ok(())
    }

    /// Reads an object from an offset on. What is read is verified, and ends with an error if it is not the
    /// one that was stored.
    ///
    /// # Errors
    /// There is no such object, it has another size, or the store fails.
    pub async fn get(
        &self,
        name: &str,
        stored: &Stored,
        offset: u64,
    ) -> Result<Content, ObjectsError> {
        let found = self.store.get(&self.path(name)).await;
        let found = found.map_err(|error| self.failed(name, &error))?;
        if found.meta.size != stored.bytes {
            let name = name.to_owned();
            return Err(ObjectsError::Differs { name });
        }
        let (own, shown) = (self.clone(), name.to_owned());
        let pieces = found.into_stream();
        let pieces = pieces.map_err(move |error| own.failed(&shown, &error));
        let content = checked(pieces, stored.clone(), name.to_owned());
        Ok(from_offset(content, offset))
    }

    /// Deletes an object. One that is not there is deleted already.
    ///
    /// # Errors
    /// The store fails.
    pub async fn delete(&self, name: &str) -> Result<(), ObjectsError> {
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(name, &error)),
        }
    }

    /// Returns the names of the folders in a folder.
    ///
    /// # Errors
    /// The store fails.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>, ObjectsError> {
        let path = self.path(folder);
        let found = self.store.list_with_delimiter(Some(&path)).await;
        let found = found.map_err(|error| self.failed(folder, &error))?;
        let names = found.common_prefixes.iter().filter_map(Path::filename);
        Ok(names.map(str::to_owned).collect())
    }

    /// Deletes all objects in a folder and below, and returns their number.
    ///
    /// # Errors
    /// The store fails. What was deleted stays deleted.
    pub async fn delete_folder(&self, folder: &str) -> Result<usize, ObjectsError> {
        let path = self.path(folder);
        let found = self.store.list(Some(&path)).map_ok(|it| it.location);
        let deleted = self.store.delete_stream(found.boxed());
        let counted = deleted.try_fold(0, async |count, _| Ok(count + 1)).await;
        counted.map_err(|error| self.failed(folder, &error))
    }

    fn path(&self, name: &str) -> Path {
        let parts = self.prefix.parts();
        parts.chain(Path::from(name).parts()).collect()
    }

    fn failed(&self, name: &str, error: &object_store::Error) -> ObjectsError {
        match error {
            // That of a bucket which does not exist is another failure.
            object_store::Error::NotFound { .. } if !error.to_string().contains("NoSuchBucket") => {
                ObjectsError::NotFound {
                    name: name.to_owned(),
                }
            }
            error => failed(&self.address, name, error),
        }
    }
}

/// Returns a client of a bucket.
fn bucket_store(
    bucket: &str,
    endpoint: Option<&str>,
    region: &str,
    credentials: Option<&Credentials>,
) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_http_connector(Connector)
        .with_retry(retry());
    if let Some(endpoint) = endpoint {
        builder = builder
            .with_endpoint(endpoint)
            .with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(credentials) = credentials {
        builder = builder
            .with_access_key_id(&credentials.key_id)
            .with_secret_access_key(&credentials.secret);
        if let Some(token) = &credentials.token {
            builder = builder.with_token(token);
        }
    }
    Ok(Arc::new(builder.build()?))
}

/// Returns the repetitions of a request. They are few, because uploads are repeated as a whole.
fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.,
        },
        max_retries: 2,
        retry_timeout: Duration::from_secs(20),
    }
}

fn failed(address: &Address, name: &str, error: &object_store::Error) -> ObjectsError {
    let text = error.to_string();
    let mut reason = text.split_whitespace().collect::<Vec<_>>().join(" ");
    reason.truncate(reason.floor_char_boundary(SHOWN_MAX));
    ObjectsError::Failed {
        place: address.to_string(),
        name: name.to_owned(),
        reason,
    }
}

/// Content in parts of equal size, of which the last one is smaller.
struct Parts<S> {
    content: S,
    sum: Sum,
    rest: BytesMut,
    has_ended: bool,
}

impl<S: Stream<Item = Result<Bytes, String>> + Send + Unpin> Parts<S> {
    fn new(content: S) -> Self {
        Self {
            content,
            sum: Sum::default(),
            rest: BytesMut::new(),
            has_ended: false,
        }
    }

    /// Returns the next part.
    async fn next(&mut self) -> Result<Bytes, PutError> {
        while self.rest.len() < PART && !self.has_ended {
            let piece = self.content.next().await.transpose();
            let Some(piece) = piece.map_err(PutError::Content)? else {
                self.has_ended = true;
                break;
            };
            self.sum.add(&piece);
            self.rest.extend_from_slice(&piece);
        }
        let length = self.rest.len().min(PART);
        Ok(self.rest.split_to(length).freeze())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::iter;

    use super::*;

    fn open(directory: &tempfile::TempDir) -> Objects {
        let address = Address::Directory(directory.path().to_owned());
        Objects::open(address, None, "", None).unwrap()
    }

    fn pieces(sizes: &[usize]) -> Vec<Result<Bytes, String>> {
        sizes.iter().map(|size| Ok(vec![7; *size].into())).collect()
    }

    #[tokio::test]
    async fn an_object_of_any_size_is_read_as_it_was_put() {
        let directory = tempfile::tempdir().unwrap();
        let objects = open(&directory);
        for sizes in [&[][..], &[3, 4], &[PART], &[PART, 1], &[2 * PART + 5]] {
            let stored = objects.put("a/b c", iter(pieces(sizes))).await.unwrap();
            assert_eq!(stored.bytes, sizes.iter().sum::<usize>() as u64);
            let content = objects.get("a/b c", &stored, 0).await.unwrap();
            let pieces: Vec<_> = content.try_collect().await.unwrap();
            let bytes = pieces.iter().map(Bytes::len).sum::<usize>() as u64;
            assert_eq!(bytes, stored.bytes, "{sizes:?}");
        }
    }

    #[tokio::test]
    async fn content_that_is_cut_makes_no_object() {
        let directory = tempfile::tempdir().unwrap();
        let objects = open(&directory);
        for size in [3, PART + 3] {
            let mut pieces = pieces(&[size]);
            pieces.push(Err("the host is gone".to_owned()));
            let put = objects.put("a/b", iter(pieces)).await;
            assert!(matches!(put, Err(PutError::Content(_))), "{put:?}");
        }
        let stored = objects.put("c", iter(pieces(&[1]))).await.unwrap();
        let found = objects.get("a/b", &stored, 0).await.err();
        assert!(
            matches!(found, Some(ObjectsError::NotFound { .. })),
            "{found:?}"
        );
    }

    #[tokio::test]
    async fn folders_are_deleted_whole_and_twice_without_harm() {
        let directory = tempfile::tempdir().unwrap();
        let objects = open(&directory);
        for name in ["builds/1/a", "builds/1/b/c", "builds/2/a"] {
            objects.put(name, iter(pieces(&[1]))).await.unwrap();
        }
        assert_eq!(objects.delete_folder("builds/1").await.unwrap(), 2);
        assert_eq!(objects.delete_folder("builds/1").await.unwrap(), 0);
        assert_eq!(objects.folders("builds").await.unwrap(), ["2"]);
        objects.delete("builds/2/a").await.unwrap();
        objects.delete("builds/2/a").await.unwrap();
        assert!(objects.folders("builds").await.unwrap().is_empty());
    }

    #[test]
    fn a_directory_must_exist() {
        let address = Address::Directory("/nonexistent/objects".into());
        let error = Objects::open(address, None, "", None).unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/objects"),
            "{error}"
        );
    }
}
