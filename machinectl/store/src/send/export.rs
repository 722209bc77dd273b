//! Export: a revision as a file, a stream or an archive.

use std::fs::File;
use std::path::Path;

use config::layout::Entry;
use config::{MachineName, Revision};

use crate::{Result, Volume};
use btrfs::error::IoContext;
use btrfs::file_tool::{self, LIMIT};
use contents::archive;

/// The format of an exported file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportFormat {
    archive: bool,
    compressed: bool,
}

impl ExportFormat {
    /// Returns the format that a file's name demands: `.tar` an archive, `.btrfs` a stream,
    /// each also with `.zst`.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (name, compressed) = match name.strip_suffix(".zst") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let archive = match Path::new(name).extension()?.to_str()? {
            "tar" => true,
            "btrfs" => false,
            _ => return None,
        };
        Some(Self {
            archive,
            compressed,
        })
    }
}

impl Volume {
    /// Writes a complete revision, by default the current one, to a file. The file gets its
    /// name when it is complete and on the disk.
    ///
    /// # Errors
    /// There is no such revision, or the file cannot be written.
    pub fn export(
        &self,
        machine: &MachineName,
        revision: Option<Revision>,
        to: &Path,
        format: ExportFormat,
    ) -> Result<Revision> {
        let revision = self.resolve_revision(machine, revision)?;
        let directory = to
            .parent()
            .filter(|it| !it.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let temporary =
            tempfile::NamedTempFile::new_in(directory).context("create a file in", directory)?;
        let file = temporary.reopen().context("open", temporary.path())?;
        let _lock = self.lock_revision(machine, revision)?;
        if format.archive {
            let from = self.entry(machine, &Entry::Revision(revision));
            archive::create(&from, file, format.compressed)?;
        } else {
            self.write_stream(machine, revision, file, format.compressed)?;
        }
        temporary
            .as_file()
            .sync_all()
            .context("commit", temporary.path())?;
        temporary
            .persist(to)
            .map_err(|error| error.error)
            .context("rename the new file to", to)?;
        sys::trusted::open(directory)
            .and_then(|it| it.sync_all())
            .context("commit", directory)?;
        Ok(revision)
    }

    fn write_stream(
        &self,
        machine: &MachineName,
        revision: Revision,
        file: File,
        compressed: bool,
    ) -> Result<()> {
        let outgoing = self.send(machine, Some(revision), &[])?;
        if !compressed {
            outgoing.copy_to(file)?;
            return Ok(());
        }
        let mut zstd = archive::compressor();
        zstd.stdout(file);
        let mut running = file_tool::start_filter(zstd)?;
        if let Some(sink) = running.child.stdin.take() {
            outgoing.copy_to(sink)?;
        }
        Ok(running.finish(LIMIT)?)
    }
}
