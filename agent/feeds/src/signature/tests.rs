//! Tests of signatures against `gpgv`, which apt uses.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use pgp::composed::{KeyType, SecretKeyParamsBuilder};
use pgp::ser::Serialize as _;

use super::*;

/// Makes a key in a directory.
pub(crate) fn new_key(directory: &Path, name: &str) -> PathBuf {
    let mut builder = SecretKeyParamsBuilder::default();
    builder
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .primary_user_id(format!("{name} <feeds@example.org>"));
    let key = builder.build().unwrap().generate(OsRng).unwrap();
    let path = directory.join(name);
    let armored = key.to_armored_bytes(ArmorOptions::default()).unwrap();
    sys::file::replace(&path, &armored).unwrap();
    path
}

/// Returns true if `gpgv` accepts a signature by one of the keys.
fn verifies(directory: &Path, keys: &[FeedKey], signed: &[u8], content: Option<&[u8]>) -> bool {
    let put = |name: &str, content: &[u8]| {
        let path = directory.join(name);
        sys::file::replace(&path, content).unwrap();
        path
    };
    let mut ring = Vec::new();
    for key in keys {
        key.public().to_writer(&mut ring).unwrap();
    }
    let mut command: Command = sys::command::prepare("gpgv");
    command
        .args(["--status-fd", "1", "--keyring"])
        .arg(put("ring.gpg", &ring))
        .arg(put("signed", signed));
    command.args(content.map(|content| put("content", content)));
    // As apt does: it fails for signatures by other keys, too.
    let status = command.stdout(Stdio::piped()).output().unwrap().stdout;
    let status = String::from_utf8_lossy(&status).into_owned();
    status.contains("[GNUPG:] VALIDSIG") && !status.contains("[GNUPG:] BADSIG")
}

#[test]
fn gpgv_accepts_signatures_and_refuses_changed_content() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let key = |name: &str| FeedKey::read(&new_key(directory, name)).unwrap();
    let (old, new, other) = ([key("old")], [key("new")], [key("other")]);
    let both = [key("old"), key("new")];
    let text = "Origin: a\n- x\nSHA256:\n 0123 7 main/Packages\n";
    let signed = clear_signed(&both, text).unwrap();
    for (keys, expected) in [
        (&both[..1], true),
        (&both[1..], true),
        (&other, false),
        (&old, false),
        (&new, false),
    ] {
        assert_eq!(verifies(directory, keys, &signed, None), expected);
    }
    let changed = String::from_utf8(signed).unwrap().replace("0123", "0124");
    assert!(!verifies(directory, &both, changed.as_bytes(), None));
    let signatures = detached(&both, text.as_bytes()).unwrap();
    for signature in [&signatures.armored, &signatures.binary] {
        assert!(verifies(directory, &both, signature, Some(text.as_bytes())));
        assert!(verifies(
            directory,
            &both[1..],
            signature,
            Some(text.as_bytes())
        ));
        assert!(!verifies(directory, &both, signature, Some(b"other")));
    }
}

#[test]
fn a_key_that_cannot_sign_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = new_key(directory.path(), "key");
    let fault = || FeedKey::read(&path).unwrap_err().to_string();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(fault().contains("chmod 600"), "{}", fault());
    let public = FeedKey {
        path: path.clone(),
        key: {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            FeedKey::read(&path).unwrap().key
        },
    };
    sys::file::replace(&path, &public_keys(&[public]).unwrap()).unwrap();
    assert!(fault().contains("cannot be used"), "{}", fault());
    sys::file::replace(&path, b"hello").unwrap();
    assert!(fault().contains("cannot be used"), "{}", fault());
    std::fs::remove_file(&path).unwrap();
    assert!(fault().starts_with("cannot read the key"), "{}", fault());
}
