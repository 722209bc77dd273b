//! The indexes of a repository, as text: `Packages` and `Release` of apt, and `Packages` of opkg.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write};

use config::BuildId;
use config::task::Digest;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::package::{PackageId, PackageKind};

/// The suite of each repository for apt.
pub const SUITE: &str = "stable";
/// The component of each repository for apt.
pub const COMPONENT: &str = "main";
/// The architecture of packages for all architectures.
pub const ALL: &str = "all";
/// The directory of packages.
pub const POOL: &str = "pool";

/// A package in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The identity.
    #[serde(flatten)]
    pub id: PackageId,
    /// The control file without the fields that an index adds.
    pub control: String,
    /// The size of the file.
    pub bytes: u64,
    /// The hash of the file.
    pub sha256: Digest,
    /// The build that made it; `None` if that is not known any more.
    pub build: Option<BuildId>,
    /// The time at which it was published.
    pub added: Timestamp,
}

impl Entry {
    /// Returns the directory of the file below that of the repository. It has a part of the hash in its
    /// name, so no path ever gets other content.
    pub fn directory(&self) -> String {
        format!("{POOL}/{}", &self.sha256.as_str()[..32])
    }

    /// Returns the path of the file below the directory of the repository.
    pub fn path(&self) -> String {
        format!("{}/{}", self.directory(), self.id.file_name())
    }
}

/// A file of an index, by its path below the suite or the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFile {
    /// The path.
    pub path: String,
    /// The content.
    pub content: Vec<u8>,
}

/// Returns the index of packages.
pub fn packages<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> String {
    let mut text = String::new();
    for entry in entries {
        if !text.is_empty() {
            text.push('\n');
        }
        // opkg knows one spelling, apt the other.
        let sha256 = match entry.id.kind {
            PackageKind::Deb => "SHA256",
            PackageKind::Ipk => "SHA256sum",
        };
        let (path, bytes, hash) = (entry.path(), entry.bytes, &entry.sha256);
        text.push_str(&entry.control);
        let _ = writeln!(text, "Filename: {path}\nSize: {bytes}\n{sha256}: {hash}");
    }
    text
}

/// Returns the architectures of the packages for apt, `all` first, which every repository has.
pub fn architectures(entries: &[Entry]) -> Vec<&str> {
    let debs = entries.iter().filter(|it| it.id.kind == PackageKind::Deb);
    let named: BTreeSet<_> = debs.map(|it| it.id.architecture.as_str()).collect();
    let others = named.into_iter().filter(|it| *it != ALL);
    std::iter::once(ALL).chain(others).collect()
}

/// Returns the indexes of apt, by their paths below the suite. Packages for all architectures are only
/// in the index of `all`, which apt reads besides that of its own architecture.
///
/// # Errors
/// None in practice: memory takes all that is written.
pub fn apt(entries: &[Entry]) -> io::Result<Vec<IndexFile>> {
    let mut files = Vec::new();
    for architecture in architectures(entries) {
        let own = entries
            .iter()
            .filter(|it| it.id.kind == PackageKind::Deb && it.id.architecture == architecture);
        let path = format!("{COMPONENT}/binary-{architecture}/Packages");
        files.extend(with_gzip(path, packages(own))?);
    }
    Ok(files)
}

/// Returns the index of opkg.
///
/// # Errors
/// None in practice: memory takes all that is written.
pub fn opkg(entries: &[Entry]) -> io::Result<[IndexFile; 2]> {
    let own = entries.iter().filter(|it| it.id.kind == PackageKind::Ipk);
    with_gzip("Packages".to_owned(), packages(own))
}

fn with_gzip(path: String, text: String) -> io::Result<[IndexFile; 2]> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes())?;
    let compressed = IndexFile {
        path: format!("{path}.gz"),
        content: encoder.finish()?,
    };
    Ok([
        IndexFile {
            path,
            content: text.into_bytes(),
        },
        compressed,
    ])
}

/// Returns the file `Release` over indexes, which makes apt ask for them by their hashes.
pub fn release(origin: &str, entries: &[Entry], files: &[IndexFile], now: Timestamp) -> String {
    let date = now.strftime("%a, %d %b %Y %H:%M:%S UTC");
    let architectures = architectures(entries).join(" ");
    let mut text = format!(
        "Origin: {origin}\nLabel: {origin}\nSuite: {SUITE}\nCodename: {SUITE}\nDate: {date}\n\
         Acquire-By-Hash: yes\nArchitectures: {architectures}\nComponents: {COMPONENT}\nSHA256:\n"
    );
    for IndexFile { path, content } in files {
        let (hash, bytes) = (sys::file::digest_of(content), content.len());
        let _ = writeln!(text, " {hash} {bytes} {path}");
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::control::Paragraph;

    /// Returns an entry: `hello 1.0 amd64 deb`.
    pub(crate) fn entry(text: &str) -> Entry {
        let words: Vec<_> = text.split(' ').collect();
        let kind = if words[3] == "deb" {
            PackageKind::Deb
        } else {
            PackageKind::Ipk
        };
        let id = PackageId {
            kind,
            name: words[0].to_owned(),
            version: words[1].to_owned(),
            architecture: words[2].to_owned(),
        };
        let control = format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\n",
            words[0], words[1], words[2]
        );
        Entry {
            id,
            control,
            bytes: 7,
            sha256: sys::file::digest_of(text.as_bytes()),
            build: None,
            added: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn indexes_name_the_packages_of_their_architecture() {
        let entries = [
            "hello 1.0 amd64 deb",
            "doc 1.0 all deb",
            "hello 2:1.0 amd64 ipk",
        ]
        .map(entry);
        let files = apt(&entries).unwrap();
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "main/binary-all/Packages",
                "main/binary-all/Packages.gz",
                "main/binary-amd64/Packages",
                "main/binary-amd64/Packages.gz"
            ]
        );
        let text = |file: &IndexFile| String::from_utf8(file.content.clone()).unwrap();
        let hash = entries[0].sha256.as_str();
        let wanted = format!(
            "Package: hello\nVersion: 1.0\nArchitecture: amd64\nFilename: pool/{}/hello_1.0_amd64.deb\nSize: 7\nSHA256: {hash}\n",
            &hash[..32]
        );
        assert_eq!(text(&files[2]), wanted);
        let [opkg, _] = opkg(&entries).unwrap();
        let text = text(&opkg);
        assert!(
            text.contains("/hello_1.0_amd64.ipk\nSize: 7\nSHA256sum: "),
            "{text}"
        );
        assert_eq!(
            Paragraph::parse(&text).unwrap().get("Version"),
            Some("2:1.0")
        );
    }

    #[test]
    fn a_release_has_the_hashes_of_its_indexes() {
        let files = [IndexFile {
            path: "main/binary-all/Packages".to_owned(),
            content: b"abc".to_vec(),
        }];
        let now = Timestamp::from_second(1_796_000_000).unwrap();
        insta::assert_snapshot!(release("buildhost main/linux", &[], &files, now), @r"
        Origin: buildhost main/linux
        Label: buildhost main/linux
        Suite: stable
        Codename: stable
        Date: Mon, 30 Nov 2026 00:53:20 UTC
        Acquire-By-Hash: yes
        Architectures: all
        Components: main
        SHA256:
         ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad 3 main/binary-all/Packages
        ");
    }
}
