//! The verification of signed provenance with the log of a host's keys; pure.

use config::task::Digest;
use jiff::Timestamp;
use serde::Deserialize;

use crate::dsse::{Envelope, EnvelopeError};
use crate::key::PublicKey;
use crate::key_log::KeyLog;
use crate::statement;

/// The parts of a verified statement that a verifier decides by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The identity of the builder, which names the level.
    pub builder: String,
    /// The artifacts with their hashes.
    pub subjects: Vec<(String, Digest)>,
    /// The identity of the key that signed.
    pub keyid: String,
}

/// The reason for which provenance is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No accepted key has signed it.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The log does not have the trusted key.
    #[error("the log of keys does not have the trusted key {0}")]
    Untrusted(String),
    /// The key was revoked.
    #[error("the key {keyid} was revoked: {reason}")]
    Revoked {
        /// The key.
        keyid: String,
        /// The reason.
        reason: String,
    },
    /// The key was not in use any more.
    #[error("the build finished after {0}, when its key was replaced")]
    Replaced(Timestamp),
    /// The statement cannot be parsed.
    #[error("the statement cannot be parsed")]
    Syntax(#[from] serde_json::Error),
    /// The statement is not SLSA provenance.
    #[error("the statement is about `{0}`, not SLSA provenance")]
    Predicate(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Deserialize)]
struct Subject {
    name: String,
    digest: DigestSet,
}

#[derive(Deserialize)]
struct DigestSet {
    sha256: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    run_details: RunDetails,
}

#[derive(Deserialize)]
struct RunDetails {
    builder: Builder,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Builder {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    finished_on: Timestamp,
}

/// Verifies provenance with a trusted key, or with any key of the log in which the trusted key is.
///
/// # Errors
/// No such key has signed it, or the key was revoked or replaced before.
pub fn verify(
    envelope: &Envelope,
    trusted: &PublicKey,
    log: Option<&KeyLog>,
) -> Result<Verified, VerifyError> {
    let Some(log) = log else {
        let payload = envelope.verify(statement::TYPE, trusted)?;
        return read(&payload, trusted).map(|(verified, _)| verified);
    };
    let trusted_entry = log.keys().iter().find(|known| known.key == *trusted);
    let trusted_entry = trusted_entry.ok_or_else(|| VerifyError::Untrusted(trusted.id()))?;
    let signer = log.keys().iter().find_map(|known| {
        let payload = envelope.verify(statement::TYPE, &known.key).ok()?;
        Some((known, payload))
    });
    let Some((known, payload)) = signer else {
        let error = envelope.verify(statement::TYPE, trusted).err();
        return Err(error
            .unwrap_or(EnvelopeError::NotSigned(trusted.id()))
            .into());
    };
    for known in [trusted_entry, known] {
        if let Some(reason) = &known.revoked {
            let (keyid, reason) = (known.key.id(), reason.clone());
            return Err(VerifyError::Revoked { keyid, reason });
        }
    }
    let (verified, finished) = read(&payload, &known.key)?;
    match known.until {
        Some(until) if finished > until => Err(VerifyError::Replaced(until)),
        _ => Ok(verified),
    }
}

fn read(payload: &[u8], key: &PublicKey) -> Result<(Verified, Timestamp), VerifyError> {
    let statement: Statement = serde_json::from_slice(payload)?;
    if statement.predicate_type != statement::PREDICATE {
        return Err(VerifyError::Predicate(statement.predicate_type));
    }
    let details = statement.predicate.run_details;
    let subjects = statement.subject.into_iter();
    let verified = Verified {
        builder: details.builder.id,
        subjects: subjects.map(|it| (it.name, it.digest.sha256)).collect(),
        keyid: key.id(),
    };
    Ok((verified, details.metadata.finished_on))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SigningKey;
    use crate::key_log::tests::{at, key};
    use crate::statement::Builder;

    /// The provenance of a build that finished at second 3.
    fn signed(key: &SigningKey) -> Envelope {
        let build = statement::tests::build();
        let statement = statement::statement(&build, "farm1", None, Builder::Signed).unwrap();
        let payload = serde_json::to_vec(&statement).unwrap();
        Envelope::sign(statement::TYPE, &payload, &[key])
    }

    #[test]
    fn every_key_of_the_log_of_a_trusted_key_is_trusted() {
        let (first, second) = (key(1), key(2));
        let log = KeyLog::new(&first, at(1)).unwrap();
        let log = log.add(&first, &second, at(5)).unwrap();
        for trusted in [&first, &second] {
            for signer in [&first, &second] {
                let verified = verify(&signed(signer), trusted.public(), Some(&log)).unwrap();
                assert_eq!(verified.keyid, signer.public().id());
                assert_eq!(verified.builder, "buildhost:host/farm1/slsa-build-l3");
                assert_eq!(verified.subjects.len(), 2);
            }
        }
        verify(&signed(&first), first.public(), None).unwrap();
        verify(&signed(&second), first.public(), None).unwrap_err();
        verify(&signed(&key(3)), first.public(), Some(&log)).unwrap_err();
        let error = verify(&signed(&first), key(3).public(), Some(&log)).unwrap_err();
        assert!(matches!(error, VerifyError::Untrusted(_)));
    }

    #[test]
    fn replaced_and_revoked_keys_sign_nothing_new() {
        let (first, second) = (key(1), key(2));
        let log = KeyLog::new(&first, at(1)).unwrap();
        let replaced = log.add(&first, &second, at(2)).unwrap();
        let error = verify(&signed(&first), second.public(), Some(&replaced)).unwrap_err();
        assert!(matches!(error, VerifyError::Replaced(_)), "{error}");
        let log = log.add(&first, &second, at(9)).unwrap();
        verify(&signed(&first), second.public(), Some(&log)).unwrap();
        let keyid = first.public().id();
        let log = log.revoke(&second, &keyid, "stolen", at(10)).unwrap();
        let error = verify(&signed(&first), second.public(), Some(&log)).unwrap_err();
        assert!(matches!(error, VerifyError::Revoked { .. }), "{error}");
        let error = verify(&signed(&second), first.public(), Some(&log)).unwrap_err();
        assert!(matches!(error, VerifyError::Revoked { .. }), "{error}");
    }
}
