//! The address of an object store; pure.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The place of objects: a bucket with a prefix, or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A bucket of a server with the protocol S3.
    Bucket {
        /// Its name.
        bucket: String,
        /// The names of all objects begin with it; it may be empty.
        prefix: String,
    },
    /// A directory that all coordinators share.
    Directory(PathBuf),
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is `{0}`, not an address such as `s3://bucket/prefix` or `file:///srv/objects`")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let fault = || AddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("file://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Self::Directory(path))
            } else {
                Err(fault())
            };
        }
        let rest = text.strip_prefix("s3://").ok_or_else(fault)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        // Also `user:password@`, which belongs to no address here.
        let is_name = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_');
        if bucket.is_empty() || !bucket.chars().all(is_name) {
            return Err(fault());
        }
        Ok(Self::Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Directory(path) => write!(f, "file://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_or_a_directory() {
        let parsed = |text: &str| text.parse::<Address>();
        let bucket = |bucket: &str, prefix: &str| Address::Bucket {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(parsed("s3://farm"), Ok(bucket("farm", "")));
        assert_eq!(parsed("s3://farm/a/b/"), Ok(bucket("farm", "a/b")));
        assert_eq!(
            parsed("file:///srv/o"),
            Ok(Address::Directory("/srv/o".into()))
        );
        for wrong in [
            "farm",
            "s3://",
            "s3:///a",
            "s3://k:s@farm/a",
            "file://srv",
            "http://a",
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        for text in ["s3://farm", "s3://farm/a/b", "file:///srv/o"] {
            assert_eq!(parsed(text).unwrap().to_string(), text);
        }
    }
}
