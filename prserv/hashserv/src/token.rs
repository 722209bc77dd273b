//! The tokens of users, in the format of BitBake's server: the database has only salted hashes.

use std::io;

use base64::Engine;
use base64::alphabet::Alphabet;
use base64::engine::general_purpose::NO_PAD;
use base64::engine::{GeneralPurpose, general_purpose};
use sha2::{Digest, Sha256};

/// The length of a token in bytes; 64 characters.
const TOKEN_BYTES: usize = 48;

const SALT_BYTES: usize = 8;

/// The only algorithm that BitBake's server has used.
const ALGORITHM: &str = "sha256";

/// Returns a new token, which its user keeps.
///
/// # Errors
/// The kernel has no random bytes.
pub fn generate() -> io::Result<String> {
    Ok(encode(&sys::random::bytes::<TOKEN_BYTES>()?))
}

/// Returns the text that the database keeps of a token: algorithm, salt and hash.
///
/// # Errors
/// The kernel has no random bytes for the salt.
pub fn hash(token: &str) -> io::Result<String> {
    Ok(hash_with(&hex(&sys::random::bytes::<SALT_BYTES>()?), token))
}

/// Returns true if a token has the recorded hash. Takes equally long for every wrong token.
pub fn verify(token: &str, record: &str) -> bool {
    let Some((ALGORITHM, rest)) = record.split_once(':') else {
        return false;
    };
    let Some((salt, _)) = rest.split_once(':') else {
        return false;
    };
    let computed = hash_with(salt, token);
    computed.len() == record.len()
        && computed
            .bytes()
            .zip(record.bytes())
            .fold(0, |difference, (a, b)| difference | a ^ b)
            == 0
}

fn hash_with(salt: &str, token: &str) -> String {
    let digest = Sha256::new().chain_update(salt).chain_update(token);
    format!("{ALGORITHM}:{salt}:{}", hex(&digest.finalize()))
}

fn encode(bytes: &[u8]) -> String {
    let characters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._";
    // The alphabet is constant; its test below would fail.
    let engine = Alphabet::new(characters).map_or(general_purpose::URL_SAFE_NO_PAD, |alphabet| {
        GeneralPurpose::new(&alphabet, NO_PAD)
    });
    engine.encode(bytes)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_of_bitbakes_server_is_verified() {
        let record = "sha256:0011223344556677:bb657d0d40853b19888803dd3e5675479e0cf1925d43fc9c007b575ed0992624";
        assert!(verify("password", record));
        assert!(!verify("passwore", record));
    }

    #[test]
    fn only_the_token_itself_has_its_hash() {
        let token = generate().unwrap();
        let record = hash(&token).unwrap();
        assert!(verify(&token, &record));
        for (token, record) in [
            (format!("{token}x"), record.clone()),
            (String::new(), record.clone()),
            (token.clone(), record.replace("sha256", "md5")),
            (token.clone(), record.replacen(':', "", 1)),
            (token.clone(), String::new()),
            (token.clone(), format!("{record}0")),
        ] {
            assert!(!verify(&token, &record), "{record}");
        }
    }

    #[test]
    fn tokens_are_64_characters_and_differ() {
        let token = generate().unwrap();
        assert_eq!(token.len(), 64);
        assert_ne!(token, generate().unwrap());
        assert_eq!(encode(&[0xfb, 0xff, 0xbf]), "._._");
    }
}
