//! Uploads to a controller: an archive for each instance of a type of upload.
//!
//! A worker of build2 packs the files of all of them as `upload/TYPE/INSTANCE/…`. The controller
//! takes one archive with the directory `INSTANCE` for each, in a request of its own. The archives
//! are artifacts, and a list names the type and the instance of each.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use config::FileName;
use config::manifest::{self, Manifest};
use tar::{Builder, EntryType, Header};
use tempfile::NamedTempFile;

use super::{Layout, Limits, Unpacking, UploadFault};

/// The list of uploads, in the directory of a build.
const LIST: &str = "uploads.manifest";
/// The directory in which the archive of the worker is unpacked.
const UNPACKED: &str = "uploads.unpacked";

/// An archive of files for a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The type, which chooses the address at the controller: `bindist`.
    pub kind: FileName,
    /// The instance: `debian`. It is the directory in the archive.
    pub instance: FileName,
    /// The archive among the artifacts.
    pub archive: FileName,
}

/// Packs the files in the archive of a worker into an archive for each instance among the
/// artifacts, and writes their list. Returns the faults of what was left out.
///
/// # Errors
/// The disk of the host.
pub(in crate::build) fn repack(
    archive: impl Read,
    directory: &Path,
    artifacts: &Path,
    limits: &Limits,
) -> io::Result<Vec<UploadFault>> {
    let unpacked = directory.join(UNPACKED);
    sys::file::fresh_directory(&unpacked)?;
    let unpacking = Unpacking::new(&unpacked, limits, Layout::Instances).run(archive)?;
    let (mut uploads, mut faults) = (Vec::new(), unpacking.faults);
    let files: Vec<_> = unpacking.files.into_iter().collect();
    for files in files.chunk_by(|one, other| instance(one) == instance(other)) {
        match upload(&files[0], &uploads) {
            Ok(upload) => {
                pack(&unpacked, files, &artifacts.join(upload.archive.as_str()))?;
                uploads.push(upload);
            }
            Err(fault) => faults.push(fault),
        }
    }
    sys::trusted::open(artifacts)?.sync_all()?;
    write_list(directory, &uploads)?;
    fs::remove_dir_all(unpacked)?;
    Ok(faults)
}

/// Returns the uploads of a build, in the order of their names.
///
/// # Errors
/// The list cannot be read.
pub fn uploads(directory: &Path) -> io::Result<Vec<Upload>> {
    let text = match sys::trusted::read_text(directory.join(LIST)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let list = manifest::parse_local(&text).map_err(io::Error::other)?;
    let value = |manifest: &Manifest, name: &str| {
        let value = manifest.get(name).unwrap_or_default();
        value.parse::<FileName>().map_err(io::Error::other)
    };
    let upload = |manifest: &Manifest| {
        Ok(Upload {
            kind: value(manifest, "type")?,
            instance: value(manifest, "instance")?,
            archive: value(manifest, "archive")?,
        })
    };
    list.iter().map(upload).collect()
}

fn write_list(directory: &Path, uploads: &[Upload]) -> io::Result<()> {
    let manifest = |upload: &Upload| {
        Manifest::new()
            .with("type", &upload.kind)
            .with("instance", &upload.instance)
            .with("archive", &upload.archive)
    };
    let list: Vec<_> = uploads.iter().map(manifest).collect();
    let text = manifest::print_local(&list);
    sys::file::replace(&directory.join(LIST), text.as_bytes())
}

/// Returns the type and the instance of an unpacked file.
fn instance(file: &Path) -> [Option<Component<'_>>; 2] {
    let mut parts = file.components();
    [parts.next(), parts.next()]
}

/// Returns the upload that an unpacked file belongs to. Its archive must have another name than
/// those of the others.
fn upload(file: &Path, others: &[Upload]) -> Result<Upload, UploadFault> {
    let name = |part: Option<Component<'_>>| {
        let part = part.map(|part| part.as_os_str().to_string_lossy().into_owned());
        part.unwrap_or_default().parse::<FileName>()
    };
    let [kind, instance] = instance(file);
    let (kind, instance) = (name(kind)?, name(instance)?);
    let archive: FileName = format!("{kind}-{instance}.tar").parse()?;
    if others.iter().any(|other| other.archive == archive) {
        return Err(UploadFault::Twice(archive.to_string()));
    }
    Ok(Upload {
        kind,
        instance,
        archive,
    })
}

/// Packs the files of an instance. Nothing is seen of the archive before it is whole.
fn pack(unpacked: &Path, files: &[PathBuf], archive: &Path) -> io::Result<()> {
    let directory = archive.parent().unwrap_or(Path::new("/"));
    let mut builder = Builder::new(NamedTempFile::new_in(directory)?);
    for file in files {
        let content = sys::trusted::open(unpacked.join(file))?;
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(content.metadata()?.len());
        header.set_mode(0o644);
        // The name of the type is not part of the path.
        let path: PathBuf = file.components().skip(1).collect();
        builder.append_data(&mut header, path, content)?;
    }
    let mut packed = builder.into_inner()?;
    packed.flush()?;
    packed.as_file().sync_all()?;
    packed.persist(archive).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        bytes_max: 1000,
        files_max: 10,
    };

    /// The directory of a build, and the faults of an archive of files with these names.
    fn repacked(names: &[&str]) -> (tempfile::TempDir, Vec<String>) {
        let place = tempfile::tempdir().unwrap();
        let artifacts = place.path().join("artifacts");
        fs::create_dir(&artifacts).unwrap();
        let mut archive = Builder::new(Vec::new());
        for name in names {
            let mut header = Header::new_ustar();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(EntryType::Regular);
            header.set_size(name.len() as u64);
            header.set_cksum();
            archive.append(&header, name.as_bytes()).unwrap();
        }
        let archive = archive.into_inner().unwrap();
        // The second time as after a crash.
        repack(&archive[..], place.path(), &artifacts, &LIMITS).unwrap();
        let faults = repack(&archive[..], place.path(), &artifacts, &LIMITS).unwrap();
        assert!(!place.path().join(UNPACKED).exists());
        (place, faults.iter().map(ToString::to_string).collect())
    }

    /// The files of an archive, with their contents.
    fn content(place: &Path, archive: &str) -> Vec<(String, String)> {
        let file = sys::trusted::open(place.join("artifacts").join(archive)).unwrap();
        let mut archive = tar::Archive::new(file);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (path, text)
        });
        entries.collect()
    }

    #[test]
    fn each_instance_becomes_an_archive() {
        let files = [
            "upload/bindist/debian/hello.deb",
            "upload/bindist/archive/hello.tar.xz",
            "upload/bindist/debian/bindist-result.manifest",
            "upload/bindist/debian/deep/er/hello.deb",
            "upload/logs/debian/hello.deb",
        ];
        let (place, faults) = repacked(&files);
        assert_eq!(faults, [""; 0]);
        let uploads = uploads(place.path()).unwrap();
        let shown = uploads
            .iter()
            .map(|it| format!("{} {} {}", it.kind, it.instance, it.archive));
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                "bindist archive bindist-archive.tar",
                "bindist debian bindist-debian.tar",
                "logs debian logs-debian.tar"
            ]
        );
        let expected = [
            ("debian/bindist-result.manifest", files[2]),
            ("debian/deep/er/hello.deb", files[3]),
            ("debian/hello.deb", files[0]),
        ];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(content(place.path(), "bindist-debian.tar"), expected);
    }

    #[test]
    fn hostile_and_misplaced_files_are_left_out() {
        for (name, fault) in [
            (
                "upload/bindist/debian",
                "is not below upload/TYPE/INSTANCE/",
            ),
            ("bindist/debian/x", "is not below upload/TYPE/INSTANCE/"),
            ("upload/../debian/x", "cannot be"),
            ("/upload/bindist/debian/x", "cannot be"),
            ("upload/bindist/debian/../../../x", "cannot be"),
            (
                "upload/bindist/debian/good",
                "it holds two files bindist/debian/good",
            ),
            ("upload/bindist/debian/good/x", "it holds two files"),
            (
                "upload/bindist/debian/a",
                "it holds two files bindist/debian/a",
            ),
            (
                "upload/bindist-debian/b/x",
                "it holds two files bindist-debian-b.tar",
            ),
        ] {
            let good = [
                "upload/bindist/debian/good",
                "upload/bindist/debian/a/b",
                "upload/bindist/debian-b/c",
                name,
            ];
            let (place, faults) = repacked(&good);
            assert!(
                faults.len() == 1 && faults[0].contains(fault),
                "{name}: {faults:?}"
            );
            assert!(uploads(place.path()).unwrap().len() >= 2);
            let names = sys::file::entries(place.path()).unwrap();
            assert_eq!(names.len(), 2, "{names:?}");
        }
    }

    #[test]
    fn a_build_without_an_archive_has_no_uploads() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(uploads(place.path()).unwrap(), []);
    }
}
