//! The key of a webhook, and the signatures of the Standard Webhooks.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The beginning of a key in its file.
const PREFIX: &str = "whsec_";
/// The block of HMAC with SHA-256, in bytes.
const BLOCK: usize = 64;
/// The largest size of the file of a key.
const FILE_BYTES_MAX: u64 = 4096;

/// The reason for which a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the key {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: std::io::Error,
    },
    /// Others than the user of this program may read the file, or it is not its own.
    #[error(
        "the key {path} may be read or changed by others than its user, or is not its own; \
         `chown {uid} {path}; chmod 600 {path}`"
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// The user of this program.
        uid: u32,
    },
    /// The file has no key.
    #[error(
        "{0} has no key: `whsec_` and 24 to 64 bytes in Base64 are expected, as \
         `echo whsec_$(openssl rand -base64 32)` prints them"
    )]
    Content(PathBuf),
}

/// A key that signs requests.
#[derive(Debug, Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Reads the key in a file that only the user of this program may read.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it has no key.
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let fault = |source| SecretError::File {
            path: path.to_owned(),
            source,
        };
        let file = sys::trusted::open(path).map_err(fault)?;
        let metadata = file.metadata().map_err(fault)?;
        let uid = rustix::process::geteuid().as_raw();
        if metadata.uid() != uid || !sys::file::is_closed(&metadata) {
            let path = path.to_owned();
            return Err(SecretError::Permissions { path, uid });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(fault)?;
        Self::parse(&text).ok_or_else(|| SecretError::Content(path.to_owned()))
    }

    /// Parses the text of a key.
    fn parse(text: &str) -> Option<Self> {
        let key = BASE64_STANDARD
            .decode(text.trim().strip_prefix(PREFIX)?)
            .ok()?;
        (24..=BLOCK)
            .contains(&key.len())
            .then(|| Self(Zeroizing::new(key)))
    }

    /// Returns the signature of a request, as its header has it.
    pub fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        // HMAC pads a key with zeros up to its block, which is as long as the longest key.
        let mut block = Zeroizing::new([0; BLOCK]);
        block[..self.0.len()].copy_from_slice(&self.0);
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        format!("v1,{signature}")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_signature_is_that_of_the_standard() {
        // The example of the specification.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signature = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_key_is_long_and_only_roots() {
        for bad in [
            "",
            "whsec_",
            "whsec_AAAA",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_%",
        ] {
            assert!(Secret::parse(bad).is_none(), "{bad}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
        set(0o640).unwrap();
        let error = Secret::read(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        set(0o600).unwrap();
        Secret::read(&path).unwrap();
    }
}
