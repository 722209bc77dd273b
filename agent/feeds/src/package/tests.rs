//! Tests of the reader on packages that are made here.

use std::io::{Read, Seek, Write};

use proptest::prelude::*;

use super::*;

/// Returns a tar archive with these files.
pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Returns an archive of `ar` with these members.
pub(crate) fn ar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let length = content.len();
        writeln!(
            archive,
            "{name:<16}{:<12}{:<6}{:<6}{:<8}{length:<10}`",
            0, 0, 0, "100644"
        )
        .unwrap();
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(2), b'\n');
    }
    archive
}

/// Returns a package with this control file, and with content that differs by `content`.
pub(crate) fn package(control: &str, content: &str) -> Vec<u8> {
    let control = gzip(&tar_of(&[
        ("./md5sums", b"x"),
        ("./control", control.as_bytes()),
    ]));
    let data = gzip(&tar_of(&[("./usr/share/hello", content.as_bytes())]));
    ar_of(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", &control),
        ("data.tar.gz", &data),
    ])
}

pub(crate) fn file_of(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn read_bytes(content: &[u8]) -> Result<(PackageId, Paragraph), PackageError> {
    read(PackageKind::Deb, &file_of(content))
}

const CONTROL: &str = "Package: hello\nVersion: 1:1.0-r0.3\nArchitecture: amd64\nFilename: ../x\nDescription: greets\n";

#[test]
fn the_identity_of_a_package_is_in_its_control_file() {
    let (id, control) = read_bytes(&package(CONTROL, "")).unwrap();
    assert_eq!(id.to_string(), "hello 1:1.0-r0.3 (amd64, deb)");
    assert_eq!(id.file_name(), "hello_1.0-r0.3_amd64.deb");
    assert_eq!(
        control.get("Filename"),
        None,
        "the index says where a file is"
    );
}

#[test]
fn opkg_has_packages_in_two_archives() {
    let control = gzip(&tar_of(&[("control", CONTROL.as_bytes())]));
    let outer = gzip(&tar_of(&[
        ("./debian-binary", b"2.0\n"),
        ("./control.tar.gz", &control),
    ]));
    assert_eq!(read_bytes(&outer).unwrap().0.name, "hello");
}

#[test]
fn dpkg_compresses_control_files_in_four_ways() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("hello");
    std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    let control = format!("{CONTROL}Maintainer: a <a@example.org>\n");
    sys::file::replace(&tree.join("DEBIAN/control"), control.as_bytes()).unwrap();
    for compression in ["gzip", "xz", "zstd", "none"] {
        let path = directory.path().join("hello.deb");
        let mut command = sys::command::prepare("dpkg-deb");
        command.args([
            "--root-owner-group",
            "--uniform-compression",
            "-Z",
            compression,
            "-b",
        ]);
        command.arg(&tree).arg(&path);
        sys::command::run(command, std::time::Duration::from_mins(1)).unwrap();
        let file = sys::trusted::open(&path).unwrap();
        let (id, _) = read(PackageKind::Deb, &file).unwrap();
        assert_eq!(id.version, "1:1.0-r0.3", "{compression}");
    }
}

#[test]
fn a_package_that_no_feed_may_have_is_refused_with_the_fault() {
    let with = |from: &str, to: &str| read_bytes(&package(&CONTROL.replace(from, to), ""));
    let fault = |result: Result<_, PackageError>| result.unwrap_err().to_string();
    assert_eq!(
        fault(with("hello", "../hello")),
        "the field Package of the control file has the value \"../hello\""
    );
    assert_eq!(
        fault(with("Version: 1:1.0-r0.3\n", "")),
        "the control file has no field Version"
    );
    assert!(fault(with("amd64", "am/d64")).contains("Architecture"));
    let long = format!("Package: a\nDescription: {}\n", "x".repeat(300_000));
    assert!(fault(read_bytes(&package(&long, ""))).contains("more than 262144 bytes"));
    assert!(fault(read_bytes(b"hello, hello")).contains("neither"));
    let huge = ar_of(&[("control.tar.lz", b"")]);
    assert!(fault(read_bytes(&huge)).contains("`.lz`"));
    assert!(fault(read_bytes(&ar_of(&[("data.tar", b"")]))).contains("no package"));
}

#[test]
fn a_control_archive_that_unpacks_to_gigabytes_is_not_unpacked() {
    let mut zeros = Vec::new();
    let mut encoder = flate2::write::GzEncoder::new(&mut zeros, flate2::Compression::fast());
    let mut header = tar::Header::new_gnu();
    header.set_path("other").unwrap();
    header.set_size(1 << 30);
    header.set_cksum();
    encoder.write_all(header.as_bytes()).unwrap();
    std::io::copy(&mut std::io::repeat(0).take(64 << 20), &mut encoder).unwrap();
    encoder.finish().unwrap();
    let error = read_bytes(&ar_of(&[("control.tar.gz", &zeros)])).unwrap_err();
    assert!(!error.is_of_the_host(), "{error}");
}

proptest! {
    #[test]
    fn no_content_makes_the_reader_panic(content in prop::collection::vec(any::<u8>(), 0..300)) {
        for prefix in [&b""[..], b"!<arch>\n", b"\x1f\x8b\x08"] {
            let _ = read_bytes(&[prefix, &content].concat());
        }
    }

    #[test]
    fn a_changed_byte_never_makes_the_reader_panic(place in any::<prop::sample::Index>(), byte: u8) {
        let mut content = package(CONTROL, "");
        let place = place.index(content.len());
        content[place] = byte;
        let mut file = file_of(&content);
        let _ = read(PackageKind::Ipk, &file);
        file.rewind().unwrap();
    }
}
