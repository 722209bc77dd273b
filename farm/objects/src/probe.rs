//! A probe of an object store.

use bytes::Bytes;
use futures_util::stream::{TryStreamExt, iter};

use crate::{Objects, PutError};

const CONTENT: Bytes = Bytes::from_static(b"a probe of buildhost-farm, which may be deleted\n");

/// Puts an object, reads it and deletes it. Its name must be one that no other probe has.
///
/// # Errors
/// The store fails.
pub async fn probe(objects: &Objects, name: &str) -> Result<(), PutError> {
    let stored = objects.put(name, iter([Ok(CONTENT)])).await?;
    let content = objects.get(name, &stored, 0).await?;
    content.try_for_each(async |_| Ok(())).await?;
    objects.delete(name).await?;
    Ok(())
}
