//! The mount of a volume's file at each boot: by a systemd unit, or by a line of `/etc/fstab`.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{Seek, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sys::{command, file};

use super::{LIMIT, OPTIONS};
use crate::Result;
use btrfs::error::IoContext;

/// The directory of an administrator's units.
const UNITS: &str = "/etc/systemd/system";
/// The table of file systems.
const FSTAB: &str = "/etc/fstab";
/// A directory that exists while systemd runs.
const SYSTEMD: &str = "/run/systemd/system";

/// The way in which a volume's file is mounted at each boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootMount {
    /// By a unit of systemd.
    Unit,
    /// By a line of `/etc/fstab`.
    Fstab,
    /// Not at all.
    None,
}

impl BootMount {
    /// Returns the way for this host if none is requested: a unit if systemd runs. Without it,
    /// nothing is changed.
    pub fn default_here() -> Self {
        if Path::new(SYSTEMD).is_dir() {
            Self::Unit
        } else {
            Self::None
        }
    }

    /// Returns what mounts a directory at each boot; `None` if nothing does.
    pub fn name(self, directory: &Path) -> Option<String> {
        match self {
            Self::Unit => Some(format!("{UNITS}/{}", unit_name(directory))),
            Self::Fstab => Some(format!("a line in {FSTAB}")),
            Self::None => None,
        }
    }

    /// Makes the next boots mount a file at a directory. May be repeated.
    ///
    /// # Errors
    /// The unit or the line cannot be written, or the unit cannot be enabled.
    pub fn establish(self, file: &Path, directory: &Path) -> Result<()> {
        let file = &file.canonicalize().context("find", file)?;
        let directory = &directory.canonicalize().context("find", directory)?;
        match self {
            Self::Unit => write_unit(file, directory),
            Self::Fstab => add_line(Path::new(FSTAB), file, directory),
            Self::None => Ok(()),
        }
    }
}

fn write_unit(file: &Path, directory: &Path) -> Result<()> {
    let name = unit_name(directory);
    let path = Path::new(UNITS).join(&name);
    file::replace(&path, unit(file, directory).as_bytes()).context("write", &path)?;
    let mode = Permissions::from_mode(0o644);
    fs::set_permissions(&path, mode).context("open to other users", &path)?;
    let systemctl = |arguments: &[&str]| {
        let mut systemctl = command::prepare("systemctl");
        systemctl.args(arguments);
        command::run(systemctl, LIMIT)
    };
    systemctl(&["enable", "--quiet", &name])?;
    if Path::new(SYSTEMD).is_dir() {
        systemctl(&["daemon-reload"])?;
    }
    Ok(())
}

/// Returns the name that systemd requires for the unit of a mount point.
fn unit_name(directory: &Path) -> String {
    let bytes = directory.as_os_str().as_bytes();
    let mut name = String::new();
    for byte in bytes.strip_prefix(b"/").unwrap_or(bytes) {
        match byte {
            b'/' => name.push('-'),
            b'.' if name.is_empty() => name.push_str("\\x2e"),
            b':' | b'_' | b'.' => name.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => name.push(char::from(*byte)),
            byte => _ = write!(name, "\\x{byte:02x}"),
        }
    }
    format!("{name}.mount")
}

/// Returns the text of the unit. A missing file does not stop the boot.
fn unit(file: &Path, directory: &Path) -> String {
    let escape = |path: &Path| path.to_string_lossy().replace('%', "%%");
    let (file, directory) = (escape(file), escape(directory));
    format!(
        "# Written by `buildhost init`.\n[Unit]\nDescription=Volume {directory} of Buildhost\n\n\
         [Mount]\nWhat={file}\nWhere={directory}\nType=btrfs\nOptions={OPTIONS}\n\n\
         [Install]\nWantedBy=local-fs.target\n"
    )
}

/// Adds the line to a table, unless the table names the mount point already.
fn add_line(table: &Path, file: &Path, directory: &Path) -> Result<()> {
    let text = sys::trusted::read_text(table).context("read", table)?;
    let point = fstab_escaped(directory);
    let is_point = |line: &str| line.split_whitespace().nth(1) == Some(&point);
    if text.lines().any(is_point) {
        return Ok(());
    }
    let separator = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let line = format!(
        "{separator}{} {point} btrfs {OPTIONS},nofail 0 0\n",
        fstab_escaped(file)
    );
    let mut open = sys::trusted::open_for_writing(table).context("open", table)?;
    open.seek(SeekFrom::End(0)).context("write", table)?;
    open.write_all(line.as_bytes()).context("write", table)?;
    open.sync_all().context("commit", table)
}

/// Returns a path as a field of `fstab`.
fn fstab_escaped(path: &Path) -> String {
    let text = path.to_string_lossy();
    let escapes = [
        ("\\", "\\134"),
        (" ", "\\040"),
        ("\t", "\\011"),
        ("\n", "\\012"),
    ];
    escapes
        .iter()
        .fold(text.into_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_named_as_systemd_requires() {
        for (directory, name) in [
            ("/build/machines/default", "build-machines-default.mount"),
            (
                "/build/de fault-x.é/.y",
                "build-de\\x20fault\\x2dx.\\xc3\\xa9-.y.mount",
            ),
            ("/.hidden", "\\x2ehidden.mount"),
        ] {
            assert_eq!(unit_name(Path::new(directory)), name);
        }
    }

    #[test]
    fn a_unit_mounts_the_file_and_may_fail() {
        insta::assert_snapshot!(unit(Path::new("/b/100%.btrfs"), Path::new("/b/100%")), @r"
        # Written by `buildhost init`.
        [Unit]
        Description=Volume /b/100%% of Buildhost

        [Mount]
        What=/b/100%%.btrfs
        Where=/b/100%%
        Type=btrfs
        Options=loop,noatime,nosuid,nodev

        [Install]
        WantedBy=local-fs.target
        ");
    }

    #[test]
    fn a_line_is_added_once() {
        let directory = tempfile::tempdir().unwrap();
        let table = directory.path().join("fstab");
        fs::write(&table, "# no end of line").unwrap();
        for _ in 0..2 {
            add_line(&table, Path::new("/b/a b.btrfs"), Path::new("/b/a b")).unwrap();
        }
        let text = fs::read_to_string(&table).unwrap();
        let line = "/b/a\\040b.btrfs /b/a\\040b btrfs loop,noatime,nosuid,nodev,nofail 0 0";
        assert_eq!(text, format!("# no end of line\n{line}\n"));
    }
}
