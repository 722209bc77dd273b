//! Checksums that are published with an image, in a file `SHA256SUMS` beside it.

use std::fs::File;
use std::io;
use std::path::Path;

use config::task::Digest;

use super::refusal::{ImportRefusal, SUMS};
use btrfs::Result;
use btrfs::error::IoContext;

/// The maximum size of that file, in bytes.
const BYTES_MAX: u64 = 4 << 20;

/// Verifies a file by the checksums in its directory. Returns false if none is there for it.
pub(super) fn verify(path: &Path, file: &File) -> Result<bool> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(false);
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let text = match sys::untrusted::read_text(directory, SUMS, BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        text => text.context("read", directory.join(SUMS))?,
    };
    let expected = find(&text, name);
    if expected.is_empty() {
        return Ok(false);
    }
    let found = sys::file::digest(file).context("read", path)?;
    if expected.iter().any(|expected| *expected != found) {
        return Err(ImportRefusal::WrongChecksum(path.to_owned()).into());
    }
    Ok(true)
}

/// Returns the checksums of a file, from lines as `sha256sum` or its option `--tag` prints them.
fn find(text: &str, name: &str) -> Vec<Digest> {
    let lines = text.lines().filter_map(|line| {
        let line = line.trim_end();
        let (listed, hash) = if let Some(tagged) = line.strip_prefix("SHA256 (") {
            tagged.rsplit_once(") = ")?
        } else {
            let (hash, listed) = line.split_once(' ')?;
            (listed.strip_prefix(['*', ' ']).unwrap_or(listed), hash)
        };
        let listed = listed.strip_prefix("./").unwrap_or(listed);
        let hash = hash.to_ascii_lowercase().parse().ok()?;
        (listed == name).then_some(hash)
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_forms_of_lines_are_parsed() {
        let (one, two) = ("ab".repeat(32), "12".repeat(32));
        let text = format!(
            "{one}  disk.raw.xz\n{two} *b\r\n{two}  ./dot\nSHA256 (tag (1)) = {two}\n\
             {}  upper\nnonsense\n\n12  disk.raw.xz\n{two}  twice\n{one}  twice\n",
            two.to_uppercase()
        );
        let found = |name| {
            let hashes = find(&text, name).into_iter().map(|it| it.to_string());
            hashes.collect::<Vec<_>>()
        };
        assert_eq!(found("disk.raw.xz"), [one.as_str()]);
        for name in ["b", "dot", "tag (1)", "upper"] {
            assert_eq!(found(name), [two.as_str()], "{name}");
        }
        assert_eq!(found("twice"), [two.as_str(), &one]);
        assert!(found("disk.raw").is_empty() && found("").is_empty());
    }

    proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(text in ".*", name in ".*") {
            let _ = find(&text, &name);
        }
    }
}
