//! Results that a guest has put: the manifest, plain and compressed, and the archive of files.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use config::task::{RESULT, RESULT_LZ4, UPLOAD};
use jobs::build::{UploadLimits, read_result};
use lz4_flex::frame::FrameEncoder;
use tempfile::TempDir;

use crate::harness::Parser;

const LIMITS: UploadLimits = UploadLimits {
    bytes_max: 64 * 1024,
    files_max: 10,
};
const SUCCESS: &str = ": 1\nstatus: success\n";
/// The maximum size of a result is 16 MiB; it is read into a buffer that grows by doubling.
const DECOMPRESSED: usize = 64 << 20;

const RESULTS: [&str; 2] = [
    ": 1\nstatus: warning\nmessage:\\\ntwo lines\nof words\n\\\n:\npackage: hello\nversion: 1.0\n\
     recipe-revision: r0\narchitecture: x86_64\nchecksum: c0ffee\nfile: hello_1.0_x86.ipk\n",
    ": 1\nname: libhello\nstatus: warning\nconfigure-status: success\nupdate-status: warning\n\
     configure-log:\\\nconfig.cxx g++\n\\\nupdate-log:\\\nhello.cxx:1: warning: \\\n\\\n",
];

/// The directory of a build, in memory.
struct BuildDirectory(TempDir);

impl BuildDirectory {
    fn new() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::create_dir(directory.path().join("artifacts")).unwrap();
        Self(directory)
    }

    /// Reads the result in these files of a guest.
    fn read(&self, files: &[(&str, &[u8])]) {
        let directory = self.0.path();
        for (name, content) in files {
            create(&directory.join(name), content);
        }
        let _ = read_result(directory, &LIMITS);
        let entries = |path: &Path| sys::file::entries(path).unwrap();
        let artifacts = entries(&directory.join("artifacts"));
        assert!(artifacts.len() <= LIMITS.files_max);
        let (files, rest): (Vec<_>, Vec<_>) = entries(directory)
            .into_iter()
            .partition(|path| path.is_file());
        assert_eq!(rest, [directory.join("artifacts")]);
        for path in artifacts.iter().chain(&files) {
            fs::remove_file(path).unwrap();
        }
    }
}

fn create(path: &Path, content: &[u8]) {
    File::create(path)
        .and_then(|mut file| file.write_all(content))
        .unwrap();
}

pub(crate) fn result_manifests() -> Parser {
    let directory = BuildDirectory::new();
    let mut parser = Parser::of_text(&RESULTS, 64, |_| {});
    parser.memory_constant = 64 * 1024;
    parser.parse = Box::new(move |bytes| directory.read(&[(RESULT, bytes)]));
    parser
}

pub(crate) fn compressed_results() -> Parser {
    let compress = |text: &str| {
        let mut encoder = FrameEncoder::new(Vec::new());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let directory = BuildDirectory::new();
    Parser {
        valid: RESULTS.map(compress).to_vec(),
        memory_constant: DECOMPRESSED,
        memory_factor: 64,
        parse: Box::new(move |bytes| directory.read(&[(RESULT_LZ4, bytes)])),
    }
}

pub(crate) fn upload_archives() -> Parser {
    let archive = |name: &str| {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        archive.append_data(&mut header, name, &b"abc"[..]).unwrap();
        archive
    };
    let long = format!("{}/{}.tar.gz", "deep".repeat(30), "x".repeat(150));
    let mut extended = tar::Builder::new(Vec::new());
    let extensions = [("mtime", &b"1.5"[..]), ("path", b"upload/c.deb")];
    extended.append_pax_extensions(extensions).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    extended
        .append_data(&mut header, "short", &b"c"[..])
        .unwrap();
    let archives = [archive("./upload/bindist/a.deb"), archive(&long), extended];
    let directory = BuildDirectory::new();
    Parser {
        valid: archives.map(|it| it.into_inner().unwrap()).to_vec(),
        memory_constant: 256 * 1024,
        memory_factor: 4,
        parse: Box::new(move |bytes| {
            directory.read(&[(RESULT, SUCCESS.as_bytes()), (UPLOAD, bytes)]);
        }),
    }
}
