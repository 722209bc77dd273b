//! The archives around a control file: `ar`, or a compressed tar as old tools of opkg make it, around
//! `control.tar`, which may be compressed.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;

use super::{CONTROL_BYTES_MAX, PackageError};

/// The most that is decompressed: the control files of large packages have long lists of hashes.
const UNPACKED_BYTES_MAX: u64 = 16 << 20;
/// The most memory for the window of a decoder. `dpkg-deb -z9` needs 64 MiB.
const WINDOW_BYTES_MAX: u64 = 65 << 20;
/// The most members before `control.tar`.
const MEMBERS_MAX: usize = 16;
/// The most entries of an archive before the control file.
const ENTRIES_MAX: usize = 1000;

const AR: &[u8; 8] = b"!<arch>\n";
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Returns the text of the control file in a package.
pub(super) fn control(file: &File) -> Result<String, PackageError> {
    let mut file = BufReader::new(file);
    let mut magic = [0; 8];
    file.seek(SeekFrom::Start(0)).map_err(PackageError::Read)?;
    file.read_exact(&mut magic).map_err(form)?;
    if magic == *AR {
        let (name, content) = control_member(&mut file)?;
        return unpack(&name, content);
    }
    if magic.starts_with(&GZIP) {
        file.seek(SeekFrom::Start(0)).map_err(PackageError::Read)?;
        let outer = MultiGzDecoder::new(file).take(UNPACKED_BYTES_MAX);
        let inner = |name: &str| name.starts_with("control.tar");
        return in_tar(outer, inner, |name, content| unpack(name, content));
    }
    Err(PackageError::Form(
        "it is neither an archive of `ar` nor compressed by gzip".to_owned(),
    ))
}

#[expect(clippy::needless_pass_by_value, reason = "it is passed to `map_err`")]
fn form(error: io::Error) -> PackageError {
    PackageError::Form(error.to_string())
}

/// Returns the member `control.tar…` of an archive, after its magic number.
fn control_member<R: Read + Seek>(
    file: &mut R,
) -> Result<(String, io::Take<&mut R>), PackageError> {
    for _ in 0..MEMBERS_MAX {
        let mut header = [0; 60];
        file.read_exact(&mut header).map_err(form)?;
        let (name, size) = member(&header)
            .ok_or_else(|| PackageError::Form("a header of its archive is invalid".to_owned()))?;
        if name.starts_with("control.tar") {
            return Ok((name, file.take(size)));
        }
        // Members begin at even positions.
        let next = i64::try_from(size + size % 2)
            .map_err(io::Error::other)
            .map_err(form)?;
        file.seek(SeekFrom::Current(next)).map_err(form)?;
    }
    Err(PackageError::Form(
        "its archive has no member `control.tar`".to_owned(),
    ))
}

/// Parses the header of a member: its name and its size.
fn member(header: &[u8; 60]) -> Option<(String, u64)> {
    let (name, size) = (std::str::from_utf8(&header[..16]).ok()?, &header[48..58]);
    let size = std::str::from_utf8(size).ok()?.trim_end();
    let is_number = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit());
    let is_header = header[58..] == *b"`\n" && is_number;
    let name = name.trim_end().trim_end_matches('/').to_owned();
    is_header.then(|| Some((name, size.parse().ok()?)))?
}

/// Returns the control file in the archive `name`, whose ending tells its compression.
fn unpack(name: &str, content: impl Read) -> Result<String, PackageError> {
    match name.trim_start_matches("control.tar") {
        "" => text(content),
        ".gz" => text(MultiGzDecoder::new(content)),
        ".xz" => {
            let kib_max = u32::try_from(WINDOW_BYTES_MAX / 1024).unwrap_or(u32::MAX);
            text(XzReader::new_mem_limit(content, true, kib_max))
        }
        ".zst" => {
            let decoder = StreamingDecoder::new_with_max_window_size(content, WINDOW_BYTES_MAX);
            text(decoder.map_err(|error| PackageError::Form(error.to_string()))?)
        }
        other => Err(PackageError::Form(format!(
            "its control file is compressed as `{other}`"
        ))),
    }
}

/// Returns the file `control` of an archive.
fn text(archive: impl Read) -> Result<String, PackageError> {
    in_tar(
        archive.take(UNPACKED_BYTES_MAX),
        |name| name == "control",
        |_, content| {
            let mut text = String::new();
            let read = content
                .take(CONTROL_BYTES_MAX + 1)
                .read_to_string(&mut text);
            read.map_err(form)?;
            if text.len() as u64 > CONTROL_BYTES_MAX {
                let fault = format!("its control file has more than {CONTROL_BYTES_MAX} bytes");
                return Err(PackageError::Form(fault));
            }
            Ok(text)
        },
    )
}

/// Passes the first regular file whose name fits to `read`.
fn in_tar<R: Read, T>(
    archive: R,
    fits: impl Fn(&str) -> bool,
    read: impl FnOnce(&str, &mut dyn Read) -> Result<T, PackageError>,
) -> Result<T, PackageError> {
    let mut archive = tar::Archive::new(archive);
    // Entries as they lie there: the reader would hold the long names of others in memory.
    for entry in archive.entries().map_err(form)?.raw(true).take(ENTRIES_MAX) {
        let mut entry = entry.map_err(form)?;
        let path = entry.path_bytes().into_owned();
        let name = String::from_utf8_lossy(&path);
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        if entry.header().entry_type().is_file() && fits(&name) {
            return read(&name, &mut entry);
        }
    }
    Err(PackageError::Form(
        "its archive has no control file".to_owned(),
    ))
}
