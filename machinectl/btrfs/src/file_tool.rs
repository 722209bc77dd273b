//! Tools that work on files of others: tar, cp, the converter of disk images, and the filters that
//! compress and decompress.
//!
//! Each sees the programs of the host, and beside them at most one file or directory that it
//! reads and one file or directory that it changes.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::thread::CapabilitySet;
use sys::command::Running;
use sys::confined::{self, Limits};
use sys::mount_view::{Ioctls, MountView, Rights, clone_mount, clone_mount_of};

use crate::Result;
use crate::error::IoContext;

/// The time limit for each tool.
pub const LIMIT: Duration = Duration::from_hours(2);
/// The limits of each tool. A compressor has a thread per processor, whose stacks and caches count
/// as memory before they are used.
pub const LIMITS: Limits = Limits {
    memory_bytes: 16 << 30,
    cpu_seconds: u64::MAX,
    file_bytes: u64::MAX,
};
/// The capabilities to read files of all owners, and to create files of any owner, mode and kind.
/// Attributes of the namespace `trusted`, which content manifests cover, need `SYS_ADMIN`; a filter
/// of system calls takes everything else of it away.
pub const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_ADMIN);
/// The path of the file that a converter reads.
pub const INPUT: &str = "/input";
/// The path of the file that a converter changes.
pub const OUTPUT: &str = "/output";
/// The rights of a tool that creates files.
const RIGHTS: Rights = Rights {
    capabilities: CAPABILITIES,
    ioctls: Ioctls::Clone,
};
/// The rights of a program that only reads its input and changes its output.
const NO_RIGHTS: Rights = Rights {
    capabilities: CapabilitySet::empty(),
    ioctls: Ioctls::Clone,
};

/// Starts a tool that sees a file or a directory, read-only, at its own path. The path must be
/// canonical.
///
/// # Errors
/// The path does not exist, the caller is not root, or the tool cannot be started.
pub fn start_reader(tool: Command, from: &Path) -> Result<Running> {
    let mut view = MountView::of_programs();
    view.mount(clone_mount(from).context("open", from)?, from);
    start(tool, view)
}

/// Starts a tool that changes a directory, and reads `from` as that of [`start_reader`] does. Both
/// paths must be canonical.
///
/// # Errors
/// As [`start_reader`].
pub fn start_writer(tool: Command, from: Option<&Path>, to: &Path) -> Result<Running> {
    let mut view = MountView::of_programs();
    if let Some(from) = from {
        view.mount(clone_mount(from).context("open", from)?, from);
    }
    // The directory may lie below the one that is read.
    view.mount_writable(clone_mount(to).context("open", to)?, to);
    start(tool, view)
}

fn start(mut tool: Command, mut view: MountView) -> Result<Running> {
    view.add_processes();
    confined::limit(&mut tool, LIMITS);
    Ok(view.start(tool, RIGHTS)?)
}

/// Starts a program that only reads its standard input and writes its standard output, as a user
/// that owns nothing.
///
/// # Errors
/// The caller is not root, or the program cannot be started.
pub fn start_filter(mut filter: Command) -> Result<Running> {
    confined::confine(&mut filter, LIMITS, Vec::new()).context("confine", filter.get_program())?;
    Ok(MountView::of_programs().start(filter, NO_RIGHTS)?)
}

/// Starts a program that reads [`INPUT`] and changes [`OUTPUT`], as a user that owns nothing else.
/// That user, [`confined::user`], needs the permissions of both files.
///
/// # Errors
/// Those of [`start_filter`], or a file has no name.
pub fn start_converter(
    mut converter: Command,
    limits: Limits,
    input: &File,
    output: Option<&File>,
) -> Result<Running> {
    let program = converter.get_program().to_owned();
    confined::confine(&mut converter, limits, Vec::new()).context("confine", program)?;
    let mut view = MountView::of_programs();
    view.mount(clone_mount_of(input).context("open", INPUT)?, INPUT);
    if let Some(output) = output {
        view.mount_writable(clone_mount_of(output).context("open", OUTPUT)?, OUTPUT);
    }
    Ok(view.start(converter, NO_RIGHTS)?)
}
