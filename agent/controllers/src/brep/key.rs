//! The key that answers challenges: RSA, in a file that only root may read. The `openssl` program uses
//! it, as for bbot, so that the agent never has it in its memory.

use std::fs::Metadata;
use std::io::{self, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sys::command::{self, CommandError};

/// The program.
const OPENSSL: &str = "openssl";
/// The limit for one run of the program.
const LIMIT: Duration = Duration::from_secs(30);

/// A reason why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
    /// Others than root may read the file, or it is not root's.
    #[error(
        "the key {0} may be read or changed by others than root; `chown root:root {0}; chmod 600 {0}`"
    )]
    Permissions(PathBuf),
    /// The key is of another kind.
    #[error(
        "the key {0} is not an RSA key, and controllers verify no others; `openssl genrsa -out {0} 4096` makes one"
    )]
    Kind(PathBuf),
    /// The program fails.
    #[error("cannot use the key {path}")]
    Program {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: CommandError,
    },
}

/// A key, checked.
#[derive(Debug)]
pub struct Key {
    path: PathBuf,
    fingerprint: String,
}

impl Key {
    /// Checks the key in a file, and computes its fingerprint.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it has no RSA key.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        check(path)?;
        let text = openssl(path, &["pkey", "-noout", "-text"], None)?;
        if !is_rsa(&String::from_utf8_lossy(&text)) {
            return Err(KeyError::Kind(path.to_owned()));
        }
        let public = openssl(path, &["pkey", "-pubout", "-outform", "DER"], None)?;
        let mut hash = sys::file::Hasher::default();
        hash.update(&public);
        Ok(Self {
            path: path.to_owned(),
            fingerprint: hash.finish().to_string(),
        })
    }

    /// Returns the SHA-256 of the public key in DER.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Signs a challenge: PKCS#1 v1.5 over its text, without a hash. Returns base64.
    ///
    /// # Errors
    /// The key cannot be used any more.
    pub fn sign(&self, challenge: &str) -> Result<String, KeyError> {
        let signature = openssl(
            &self.path,
            &["pkeyutl", "-sign"],
            Some(challenge.as_bytes()),
        )?;
        Ok(BASE64_STANDARD.encode(signature))
    }
}

/// Checks that only root may read a file.
///
/// # Errors
/// The file cannot be read, or others may read it.
pub fn check(path: &Path) -> Result<(), KeyError> {
    let metadata = path.metadata().map_err(|source| KeyError::File {
        path: path.to_owned(),
        source,
    })?;
    if is_private(&metadata) {
        Ok(())
    } else {
        Err(KeyError::Permissions(path.to_owned()))
    }
}

fn is_private(metadata: &Metadata) -> bool {
    sys::file::is_closed(metadata) && metadata.uid() == rustix::process::geteuid().as_raw()
}

/// Returns true if a text that describes a private key is about an RSA key: others have no public
/// exponent.
fn is_rsa(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("publicExponent:"))
}

fn openssl(key: &Path, arguments: &[&str], input: Option<&[u8]>) -> Result<Vec<u8>, KeyError> {
    let mut program = command::prepare(OPENSSL);
    program.args(arguments);
    let option = if arguments[0] == "pkeyutl" {
        "-inkey"
    } else {
        "-in"
    };
    program.arg(option).arg(key);
    if let Some(input) = input {
        let input = unnamed(input).map_err(|source| KeyError::File {
            path: key.to_owned(),
            source,
        })?;
        program.stdin(input);
    }
    command::run(program, LIMIT).map_err(|source| KeyError::Program {
        path: key.to_owned(),
        source,
    })
}

/// Returns a file without a name that has this content.
fn unnamed(content: &[u8]) -> io::Result<std::fs::File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn make(directory: &Path, arguments: &[&str]) -> PathBuf {
        let path = directory.join("key.pem");
        let mut program = command::prepare(OPENSSL);
        program.args(arguments).arg("-out").arg(&path);
        command::run(program, LIMIT).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    #[test]
    fn a_challenge_is_signed_without_a_hash() {
        let directory = tempfile::tempdir().unwrap();
        let path = make(
            directory.path(),
            &["genpkey", "-quiet", "-algorithm", "RSA"],
        );
        let key = Key::open(&path).unwrap();
        assert_eq!(key.fingerprint().len(), 64);
        let challenge = "0123456789abcdef".repeat(4);
        let signature = BASE64_STANDARD
            .decode(key.sign(&challenge).unwrap())
            .unwrap();
        // Without padding the signature shows its block: 00 01 ff … ff 00 and the text itself.
        let file = directory.path().join("signature");
        std::fs::write(&file, &signature).unwrap();
        let raw = [
            "pkeyutl",
            "-verifyrecover",
            "-pkeyopt",
            "rsa_padding_mode:none",
            "-in",
        ];
        let mut program = command::prepare(OPENSSL);
        program.args(raw).arg(&file).arg("-inkey").arg(&path);
        let block = command::run(program, LIMIT).unwrap();
        let padding = signature.len() - challenge.len() - 3;
        let mut expected = vec![0, 1];
        expected.extend(std::iter::repeat_n(0xff, padding));
        expected.push(0);
        expected.extend(challenge.as_bytes());
        assert_eq!(block, expected);
    }

    #[test]
    fn a_key_of_another_kind_or_one_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for arguments in [
            &["genpkey", "-algorithm", "ED25519"][..],
            &[
                "genpkey",
                "-algorithm",
                "EC",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ],
        ] {
            let path = make(directory.path(), arguments);
            let error = Key::open(&path).unwrap_err();
            assert!(matches!(error, KeyError::Kind(_)), "{error}");
        }
        let path = make(
            directory.path(),
            &["genpkey", "-quiet", "-algorithm", "RSA"],
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Key::open(&path), Err(KeyError::Permissions(_))));
        let missing = Key::open(&directory.path().join("none"));
        assert!(matches!(missing, Err(KeyError::File { .. })));
        std::fs::write(&path, "no key").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(Key::open(&path), Err(KeyError::Program { .. })));
    }
}
