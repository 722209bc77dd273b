//! Signatures of OpenPGP over indexes, by keys in files.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pgp::armor::{self, BlockType};
use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, Deserializable, DetachedSignature, SignedPublicKey,
    SignedSecretKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{PacketTrait as _, Signature, SignatureType};
use pgp::types::{KeyDetails, Password, SigningKey};
use rand_core::OsRng;
use zeroize::Zeroizing;

/// The largest size of a file with a key.
const KEY_BYTES_MAX: u64 = 1 << 20;

/// A failure to sign.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The file cannot be read.
    #[error("cannot read the key {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// Others than the owner of the file may read it.
    #[error("others may read the key {0}; `chmod 600` closes it")]
    Open(PathBuf),
    /// The signatures cannot be written.
    #[error("cannot write signatures: {0}")]
    Text(String),
    /// The file has no private key that signs without a passphrase.
    #[error("the key {path} cannot be used: {reason}; docs/feeds.md says how to make one")]
    Form {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

/// A private key of OpenPGP that signs indexes.
#[derive(Debug)]
pub struct FeedKey {
    path: PathBuf,
    key: SignedSecretKey,
}

/// The signatures over a text by some keys.
#[derive(Debug)]
pub struct Detached {
    /// With ASCII armor.
    pub armored: Vec<u8>,
    /// As packets.
    pub binary: Vec<u8>,
}

impl FeedKey {
    /// Reads a key, armored or not.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it has no usable key.
    pub fn read(path: &Path) -> Result<Self, SignError> {
        let failed = |source| SignError::Read {
            path: path.to_owned(),
            source,
        };
        let file = sys::trusted::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(SignError::Open(path.to_owned()));
        }
        let mut content = Zeroizing::new(Vec::new());
        io::Read::read_to_end(&mut io::Read::take(file, KEY_BYTES_MAX), &mut content)
            .map_err(failed)?;
        let read = SignedSecretKey::from_reader_single(content.as_slice());
        let (key, _) = read.map_err(|error| form(path, &error))?;
        let key = Self {
            path: path.to_owned(),
            key,
        };
        // A key with a passphrase, or none that signs, is found before it is needed.
        key.sign(b"", SignatureType::Binary)?;
        Ok(key)
    }

    /// Returns the fingerprint of the primary key, in hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        format!("{:X}", self.key.primary_key.fingerprint())
    }

    /// Returns the public key.
    pub fn public(&self) -> SignedPublicKey {
        self.key.to_public_key()
    }

    /// Signs bytes with the newest subkey for signatures, or with the primary key if it has none.
    fn sign(&self, content: &[u8], kind: SignatureType) -> Result<Signature, SignError> {
        let now = Timestamp::now().as_second();
        let created = |at: pgp::types::Timestamp| i64::from(at.as_secs());
        let subkeys = self.key.secret_subkeys.iter().filter(|subkey| {
            let signs = subkey.signatures.iter().any(|it| it.key_flags().sign());
            let ends = subkey
                .signatures
                .iter()
                .filter_map(Signature::key_expiration_time);
            let ends = ends.map(|it| i64::from(it.as_secs())).find(|it| *it > 0);
            let made = created(subkey.key.created_at());
            signs && ends.is_none_or(|seconds| made + seconds > now)
        });
        match subkeys.max_by_key(|subkey| subkey.key.created_at()) {
            Some(subkey) => self.sign_with(&subkey.key, content, kind),
            None => self.sign_with(&self.key.primary_key, content, kind),
        }
    }

    fn sign_with(
        &self,
        key: &impl SigningKey,
        content: &[u8],
        kind: SignatureType,
    ) -> Result<Signature, SignError> {
        let (password, hash) = (Password::empty(), HashAlgorithm::Sha512);
        let signed = match kind {
            SignatureType::Text => {
                DetachedSignature::sign_text_data(OsRng, key, &password, hash, content)
            }
            _ => DetachedSignature::sign_binary_data(OsRng, key, &password, hash, content),
        };
        let signed = signed.map(|it| it.signature);
        signed.map_err(|error| form(&self.path, &error))
    }
}

fn form(path: &Path, error: &pgp::errors::Error) -> SignError {
    let reason = sys::error_report::chain(error);
    SignError::Form {
        path: path.to_owned(),
        reason,
    }
}

/// Returns the public keys as one armored text, as `Signed-By` of apt takes it.
///
/// # Errors
/// A key cannot be written in that form.
pub fn public_keys(keys: &[FeedKey]) -> Result<Vec<u8>, SignError> {
    let mut text = Vec::new();
    for key in keys {
        let armored = key.public().to_armored_bytes(ArmorOptions::default());
        text.extend(armored.map_err(|error| form(&key.path, &error))?);
    }
    Ok(text)
}

/// Returns the text with the signatures of all keys in it: `InRelease`.
///
/// # Errors
/// A key does not sign.
pub fn clear_signed(keys: &[FeedKey], text: &str) -> Result<Vec<u8>, SignError> {
    let mut fault = None;
    let message = CleartextSignedMessage::new_many(text, |normalized| {
        let mut signatures = Vec::new();
        for key in keys {
            match key.sign(normalized.as_bytes(), SignatureType::Text) {
                Ok(signature) => signatures.push(signature),
                Err(error) => fault = Some(error),
            }
        }
        Ok(signatures)
    });
    if let Some(fault) = fault {
        return Err(fault);
    }
    let armored = message.and_then(|it| it.to_armored_bytes(ArmorOptions::default()));
    armored.map_err(|error| SignError::Text(sys::error_report::chain(&error)))
}

/// Returns the signatures of all keys over a content.
///
/// # Errors
/// A key does not sign.
pub fn detached(keys: &[FeedKey], content: &[u8]) -> Result<Detached, SignError> {
    let mut binary = Vec::new();
    for key in keys {
        let signature = key.sign(content, SignatureType::Binary)?;
        let written = signature.to_writer_with_header(&mut binary);
        written.map_err(|error| form(&key.path, &error))?;
    }
    let mut armored = Vec::new();
    armor::write(
        &Packets(&binary),
        BlockType::Signature,
        &mut armored,
        None,
        false,
    )
    .map_err(|error| SignError::Text(sys::error_report::chain(&error)))?;
    Ok(Detached { armored, binary })
}

/// The packets of signatures, which one block of armor holds together: `gpg` reads no second block.
struct Packets<'a>(&'a [u8]);

impl pgp::ser::Serialize for Packets<'_> {
    fn to_writer<W: io::Write>(&self, writer: &mut W) -> pgp::errors::Result<()> {
        Ok(writer.write_all(self.0)?)
    }

    fn write_len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
pub(crate) mod tests;
