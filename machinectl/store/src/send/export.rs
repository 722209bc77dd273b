//! Writing a revision to a file: as a stream or as an archive.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use config::layout::Entry;
use config::{MachineName, Revision};

use crate::error::IoContext;
use crate::stream::Stream;
use crate::{Result, Volume};
use sys::command::{self, Running};

/// More than writing any image takes.
const LIMIT: Duration = Duration::from_hours(2);

/// How a revision is written, as its file's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    archive: bool,
    compressed: bool,
}

impl Form {
    /// `.tar` is an archive, `.btrfs` a stream, each also with `.zst`.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (plain, compressed) = match name.strip_suffix(".zst") {
            Some(plain) => (plain, true),
            None => (name, false),
        };
        let archive = Path::new(plain).extension()?.to_str()?;
        match archive {
            "tar" | "btrfs" => Some(Self {
                archive: archive == "tar",
                compressed,
            }),
            _ => None,
        }
    }
}

impl Volume {
    /// Writes a complete revision, the current one when none is named, to a file
    /// that gets its name only when it is whole and on the disk.
    ///
    /// # Errors
    /// When there is no such revision, or the file cannot be written.
    pub fn export(
        &self,
        machine: &MachineName,
        revision: Option<Revision>,
        to: &Path,
        form: Form,
    ) -> Result<Revision> {
        let revision = self.plan_send(machine, revision)?;
        let directory = to
            .parent()
            .filter(|it| !it.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let half =
            tempfile::NamedTempFile::new_in(directory).context("make a file in", directory)?;
        let file = half.reopen().context("open", half.path())?;
        let _held = self.hold_revision(machine, revision)?;
        let from = self.entry(machine, &Entry::Revision(revision));
        if form.archive {
            archive(&from, file, form.compressed)?;
        } else {
            self.stream(machine, revision, file, form.compressed)?;
        }
        half.as_file().sync_all().context("commit", half.path())?;
        half.persist(to)
            .map_err(|error| error.error)
            .context("put in place", to)?;
        File::open(directory)
            .and_then(|it| it.sync_all())
            .context("commit", directory)?;
        Ok(revision)
    }

    fn stream(
        &self,
        machine: &MachineName,
        revision: Revision,
        file: File,
        compressed: bool,
    ) -> Result<()> {
        let parting = self.send(machine, Some(revision), &[])?;
        let stream = match Stream::open(parting.stream) {
            Ok(stream) => stream,
            Err(error) => {
                parting.sender.finish()?;
                return Err(error.into());
            }
        };
        if !compressed {
            stream.pour(file)?;
            return Ok(());
        }
        let mut zstd = command::prepare("zstd");
        zstd.args(["--quiet", "-T0"])
            .stdin(Stdio::piped())
            .stdout(file);
        let mut running = Running::start(zstd)?;
        if let Some(sink) = running.child.stdin.take() {
            stream.pour(sink)?;
        }
        Ok(running.finish(LIMIT)?)
    }
}

/// An archive with owners by number, and holes kept.
fn archive(from: &Path, file: File, compressed: bool) -> Result<()> {
    let mut tar = command::prepare("tar");
    tar.args(["--create", "--numeric-owner", "--sparse", "--file", "-"]);
    if compressed {
        tar.args(["--use-compress-program", "zstd -T0"]);
    }
    tar.arg("--directory").arg(from).arg(".").stdout(file);
    Ok(Running::start(tar)?.finish(LIMIT)?)
}
