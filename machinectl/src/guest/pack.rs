//! The archive of a file or a directory on its way into a guest.

use std::io::{self, PipeReader, Read};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// The name of the file or directory in the archive.
pub(super) const NAME: &str = "content";

/// The archive, which is made while it is read. If that fails, so does reading: a part of an archive
/// must not look like all of it.
#[derive(Debug)]
pub(super) struct Pack {
    reader: PipeReader,
    writer: Option<JoinHandle<io::Result<()>>>,
}

impl Pack {
    /// Returns the archive of a file or a directory. Links in a directory stay links.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        // Fails early, with the name, if it does not exist.
        let is_directory = path.metadata()?.is_dir();
        let (reader, writer) = io::pipe()?;
        let path = path.to_owned();
        let writer = std::thread::spawn(move || write(&path, is_directory, writer));
        Ok(Self {
            reader,
            writer: Some(writer),
        })
    }
}

fn write(path: &PathBuf, is_directory: bool, to: impl io::Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(io::BufWriter::with_capacity(64 * 1024, to));
    if is_directory {
        archive.follow_symlinks(false);
        archive.append_dir_all(NAME, path)?;
    } else {
        archive.append_path_with_name(path, NAME)?;
    }
    archive.into_inner()?.into_inner()?;
    Ok(())
}

impl Read for Pack {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count == 0
            && let Some(writer) = self.writer.take()
        {
            writer
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the archive could not be made")))?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(pack: Pack) -> Vec<String> {
        let mut archive = tar::Archive::new(pack);
        let entries = archive.entries().unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_and_a_directory_are_packed_under_one_name() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        std::fs::create_dir(path("dir")).unwrap();
        sys::file::replace(&path("dir/file"), b"text").unwrap();
        symlink("nowhere", path("dir/link")).unwrap();
        assert_eq!(
            names(Pack::of(&path("dir")).unwrap()),
            ["content/", "content/file", "content/link"]
        );
        assert_eq!(names(Pack::of(&path("dir/file")).unwrap()), ["content"]);
        Pack::of(&path("missing")).unwrap_err();
    }

    #[test]
    fn an_archive_that_cannot_be_completed_ends_with_an_error() {
        let mut pack = Pack {
            reader: io::pipe().unwrap().0,
            writer: Some(std::thread::spawn(|| Err(io::Error::other("unreadable")))),
        };
        let error = pack.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "unreadable");
    }
}
