//! The files that QEMU sees: its program, libraries and ROMs, and the files of its guest that it
//! opens by name. A guest that breaks out of QEMU finds nothing else.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use sys::command;
use sys::mount_view::{MountView, clone_mount_of};

use super::accelerator::Accelerator;
use super::checkpoint::files;
use super::{PROGRAM, cmdline, snapshot_file};
use crate::error::GuestError;
use crate::spec::{BootMode, Spec};

/// The directories in which a program searches its libraries, and the links to them.
const LIBRARIES: [&str; 5] = ["/lib", "/lib64", "/usr/lib64", "/nix/store", "/gnu/store"];
/// The directory of libraries on systems that have none per architecture.
const COMMON_LIBRARIES: &str = "/usr/lib";
/// The directories of a prefix, such as `/usr`, with QEMU's modules, ROMs and firmware.
const DATA: [&str; 6] = [
    "lib/qemu",
    "lib/ipxe",
    "share/qemu",
    "share/seabios",
    "share/seavgabios",
    "share/ipxe",
];

/// Returns the path of QEMU's program.
pub(super) fn program() -> Result<PathBuf, GuestError> {
    let found = command::find(PROGRAM).ok_or(io::ErrorKind::NotFound.into());
    let program = found.and_then(|path| path.canonicalize());
    program.map_err(GuestError::Spawn)
}

/// Returns the view of a guest's QEMU. The files of the guest become its user's where they must.
pub(super) fn view(
    spec: &Spec,
    program: &Path,
    accelerator: Accelerator,
) -> Result<MountView, GuestError> {
    let mut view = MountView::default();
    view.add_host_paths(host_paths(program));
    view.add_device("/dev/null");
    view.add_device("/dev/urandom");
    if matches!(accelerator, Accelerator::Kvm(_)) {
        view.add_device("/dev/kvm");
    }
    let tree = |name: &str, write| {
        let file = snapshot_file::open_for_user(spec, name, write)?;
        clone_mount_of(&file).map_err(|source| GuestError::Open {
            path: spec.directory.join(name),
            source,
        })
    };
    if let Some(boot) = spec.kernel() {
        view.mount(tree(boot.kernel.as_str(), false)?, cmdline::KERNEL);
        if let Some(initrd) = &boot.initrd {
            view.mount(tree(initrd.as_str(), false)?, cmdline::INITRD);
        }
    }
    if spec.shared_memory.is_some() {
        // QEMU opens it by the number of its descriptor.
        view.add_processes_of_user();
    } else if spec.boot != BootMode::Cold {
        view.mount_writable(tree(files::MEMORY, true)?, cmdline::MEMORY);
    }
    Ok(view)
}

/// Returns the files and directories of the host that QEMU needs.
fn host_paths(program: &Path) -> BTreeSet<PathBuf> {
    let own_libraries = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let own_libraries = PathBuf::from(own_libraries);
    let mut paths = BTreeSet::from(LIBRARIES.map(PathBuf::from));
    paths.insert(program.to_owned());
    paths.insert(if own_libraries.is_dir() {
        own_libraries
    } else {
        COMMON_LIBRARIES.into()
    });
    let own_prefix = program.parent().and_then(Path::parent);
    for prefix in own_prefix.into_iter().chain([Path::new("/usr")]) {
        paths.extend(DATA.map(|directory| prefix.join(directory)));
    }
    paths
}
