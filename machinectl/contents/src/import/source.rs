//! The file that is imported, and its decompressed content.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::dependency::Dependency;
use super::format::{DiskFormat, FileFormat, ForeignFormat, HEAD_BYTES};
use super::refusal::ImportRefusal;
use btrfs::Result;
use btrfs::compression::{Compression, Decompressor};
use btrfs::error::IoContext;
use btrfs::file_tool::LIMIT;
use btrfs::stream::TimeoutReader;

/// An open file that can be imported.
#[derive(Debug)]
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    /// The file. Its position shows the progress of those who read [`SourceFile::content`].
    pub(super) file: File,
    pub(super) compression: Option<Compression>,
    pub(super) kind: ContentKind,
}

/// The kind of the content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentKind {
    /// A tar archive.
    Archive,
    /// A disk image.
    Disk(DiskFormat),
}

impl SourceFile {
    /// Opens a file and determines the kind of its content.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = sys::trusted::open(path).context("open", path)?;
        let mut source = Self {
            path: path.to_owned(),
            file,
            compression: None,
            kind: ContentKind::Archive,
        };
        let mut head = source.head()?;
        let mut format = FileFormat::detect(&head);
        if let FileFormat::Compressed(compression) = format {
            source.compression = Some(compression);
            head = source.head()?;
            format = FileFormat::detect(&head);
        }
        source.kind = source.kind_of(format)?;
        if let ContentKind::Disk(disk) = source.kind
            && let Some(dependency) = Dependency::find(disk, &head)
        {
            return Err(source.refuse_dependency(dependency).into());
        }
        Ok(source)
    }

    fn kind_of(&self, format: FileFormat) -> Result<ContentKind, ImportRefusal> {
        let format = match format {
            FileFormat::Archive => return Ok(ContentKind::Archive),
            FileFormat::Disk(format) => return Ok(ContentKind::Disk(format)),
            FileFormat::Foreign(format) => format,
            FileFormat::Compressed(_) => ForeignFormat::CompressedTwice,
        };
        Err(ImportRefusal::Foreign {
            source_file: self.path.clone(),
            compressed: self.compression.is_some(),
            format,
        })
    }

    fn refuse_dependency(&self, dependency: Dependency) -> ImportRefusal {
        let image = self.path.clone();
        match dependency {
            Dependency::File(file) => ImportRefusal::OtherFile { image, file },
            Dependency::Parent => ImportRefusal::Differences(image),
            Dependency::Parts => ImportRefusal::Part(image),
        }
    }

    /// Returns the first [`HEAD_BYTES`] of the content.
    fn head(&self) -> Result<Vec<u8>> {
        let (decompressor, content) = self.content()?;
        let mut head = Vec::new();
        TimeoutReader::pipe(content)?
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut head)
            .context("read", &self.path)?;
        if let Some(decompressor) = decompressor
            && head.len() < HEAD_BYTES
        {
            decompressor.finish(LIMIT)?;
        }
        Ok(head)
    }

    /// Returns the content from its start, a file or a pipe, and its decompressor. There is one
    /// content at a time.
    pub(super) fn content(&self) -> Result<(Option<Decompressor>, OwnedFd)> {
        (&self.file).rewind().context("read", &self.path)?;
        let file = self.file.try_clone().context("open", &self.path)?.into();
        match self.compression {
            None => Ok((None, file)),
            Some(compression) => {
                let (decompressor, content) = compression.decompress(file)?;
                Ok((Some(decompressor), content))
            }
        }
    }
}

/// Returns the result of the reader of a content, or the failure of its decompressor, which is the
/// cause.
pub(super) fn join<T>(decompressor: Option<Decompressor>, read: Result<T>) -> Result<T> {
    decompressor.map_or(Ok(()), |it| it.finish(LIMIT))?;
    read
}
