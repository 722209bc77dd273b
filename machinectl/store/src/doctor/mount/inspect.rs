//! Reads the state of a volume's mount from `/proc` and `/sys`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sys::file;

use super::{BackingFile, Device, MountState, PROTECTION, overlapping_mounts};
use crate::{mount_table, space};
use btrfs::btrfs_progs;

impl MountState {
    /// Reads the state of a volume's mount. Properties that the kernel does not show count as
    /// healthy.
    pub(in crate::doctor) fn inspect(volume: &Path) -> io::Result<Self> {
        let mounts = mount_table::read()?;
        let mount = mount_table::mount_of(volume, &mounts)?;
        let (mounted_over, mounted_elsewhere) = overlapping_mounts(&mounts, mount, volume);
        let is_read_only = |options: &[String]| options.iter().any(|option| option == "ro");
        let file_system = file_system_directory(&mount.source);
        Ok(Self {
            volume: volume.to_owned(),
            read_only: is_read_only(&mount.options) || is_read_only(&mount.super_options),
            options: mount.super_options.clone(),
            mode: fs::metadata(volume)?.mode(),
            unprotected: PROTECTION
                .into_iter()
                .filter(|option| !mount.options.iter().any(|it| it == option))
                .collect(),
            quotas: file_system.as_deref().is_some_and(has_quotas),
            devices: file_system.as_deref().map(devices).unwrap_or_default(),
            mounted_over,
            mounted_elsewhere,
            backing_file: backing_file(&mount.source),
            btrfs_progs: btrfs_progs::installed(),
        })
    }
}

/// Returns the kernel's name of a device: `dm-0` for `/dev/mapper/data`.
fn device_name(source: &Path) -> Option<String> {
    let path = source.canonicalize().ok()?;
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Returns the directory in `/sys` of the file system on a device.
fn file_system_directory(source: &Path) -> Option<PathBuf> {
    let name = device_name(source)?;
    file::entries(Path::new("/sys/fs/btrfs"))
        .ok()?
        .into_iter()
        .find(|directory| directory.join("devices").join(&name).exists())
}

/// Returns the text of an attribute; empty if it does not exist.
fn attribute(path: &Path) -> String {
    sys::trusted::read_text(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn has_quotas(file_system: &Path) -> bool {
    let groups = file_system.join("qgroups");
    // `mode` exists since Linux 6.7, which introduced simple quotas.
    attribute(&groups.join("enabled")) == "1" && attribute(&groups.join("mode")) != "squota"
}

fn devices(file_system: &Path) -> Vec<Device> {
    let device = |path: PathBuf| {
        let is_counter = |line: &&str| !line.ends_with(" 0") && line.contains(' ');
        Some(Device {
            number: path.file_name()?.to_str()?.to_owned(),
            missing: attribute(&path.join("missing")) == "1",
            errors: attribute(&path.join("error_stats"))
                .lines()
                .filter(is_counter)
                .map(str::to_owned)
                .collect(),
        })
    };
    file::entries(&file_system.join("devinfo"))
        .unwrap_or_default()
        .into_iter()
        .filter_map(device)
        .collect()
}

/// Returns the file of a loop device.
fn backing_file(source: &Path) -> Option<BackingFile> {
    let block = Path::new("/sys/block").join(device_name(source)?);
    let path = PathBuf::from(attribute(&block.join("loop/backing_file")));
    let data = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let free = space::bytes_free(path.parent()?).ok()?;
    Some(BackingFile {
        unallocated: data.len().saturating_sub(data.blocks() * 512),
        path,
        free,
    })
}
