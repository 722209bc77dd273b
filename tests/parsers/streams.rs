//! `btrfs send` streams, with the checks of their commands.

use std::fs::{File, create_dir};
use std::io::Write;
use std::os::unix::fs::symlink;

use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use store::stream::{SendStream, TimeoutReader};
use tempfile::TempDir;
use tests::send_stream::{self, UUID};

use crate::harness::Parser;

/// The size of the buffers for reading and writing.
const MEMORY: usize = 1 << 20;

fn valid() -> Vec<Vec<u8>> {
    let stream = || {
        send_stream::SendStream::new("linux-1")
            .file("manifest", b": 1\n")
            .symlink("link", "/etc")
            .file("directory/file", &[7; 700])
            .rename("directory", "moved/deeper/d")
            .clone_range("manifest", UUID, "directory/file")
            .hard_link("second", "manifest")
            .chmod("manifest", 0o644)
            .resize("manifest", 3)
            .unlink("second")
    };
    let full = stream().end();
    let mut version_2 = full.clone();
    version_2[13] = 2;
    vec![full, version_2, incremental(stream().end())]
}

/// Makes an incremental stream of a full one.
fn incremental(mut stream: Vec<u8>) -> Vec<u8> {
    let parent = [&20_u16.to_le_bytes()[..], &16_u16.to_le_bytes(), &UUID].concat();
    let length = u32::from_le_bytes(stream[17..21].try_into().unwrap());
    let grown = length + u32::try_from(parent.len()).unwrap();
    stream[17..21].copy_from_slice(&grown.to_le_bytes());
    stream[21] = 2;
    let end = 27 + usize::try_from(length).unwrap();
    stream.splice(end..end, parent);
    stream
}

/// A parent with a symbolic link.
fn parent() -> TempDir {
    let parent = tempfile::tempdir_in("/dev/shm").unwrap();
    create_dir(parent.path().join("directory")).unwrap();
    symlink("/etc", parent.path().join("moved")).unwrap();
    parent
}

/// Reads a stream as the receiver does, and drops it.
fn receive(input: TimeoutReader, parent: &TempDir) {
    let sink = File::options().write(true).open("/dev/null").unwrap();
    if let Ok(stream) = SendStream::open(input) {
        let _ = stream.receive_into(sink, Some(parent.path().to_owned()), |_| {});
    }
}

fn parser(mut parse: impl FnMut(&[u8]) + 'static) -> Parser {
    Parser {
        valid: valid(),
        memory_constant: MEMORY,
        memory_factor: 64,
        parse: Box::new(move |bytes| parse(bytes)),
    }
}

pub(crate) fn streams_from_files() -> Parser {
    let parent = parent();
    parser(move |bytes| {
        let mut file = File::from(memfd_create("stream", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(bytes).unwrap();
        seek(&file, SeekFrom::Start(0)).unwrap();
        receive(TimeoutReader::pipe(file).unwrap(), &parent);
    })
}

pub(crate) fn streams_from_pipes() -> Parser {
    let parent = parent();
    parser(move |bytes| {
        // An input fits into the buffer of a pipe.
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(bytes).unwrap();
        drop(writer);
        receive(TimeoutReader::pipe(reader).unwrap(), &parent);
    })
}
