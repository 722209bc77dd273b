//! The examination of a volume's mount, its devices, and btrfs-progs, from a state that
//! [`inspect`] reads.

mod inspect;

use std::path::{Path, PathBuf};

use config::MachineName;
use config::doctor::{Finding, Id, Subject};

use crate::mount_table::Mount;
use btrfs::btrfs_progs::Version;

/// The state of a volume's mount.
#[derive(Debug, Clone, Default)]
pub(super) struct MountState {
    volume: PathBuf,
    /// True if the mount or the whole file system is read-only.
    read_only: bool,
    /// The mount options of the file system.
    options: Vec<String>,
    /// The mode of the volume's directory.
    mode: u32,
    /// The missing options that keep set-uid programs and devices of images from working.
    unprotected: Vec<&'static str>,
    /// True if quota groups account for every extent. Simple quotas do not.
    quotas: bool,
    devices: Vec<Device>,
    /// The mount points of other mounts inside the volume.
    mounted_over: Vec<PathBuf>,
    /// The other mount points of parts of machines.
    mounted_elsewhere: Vec<(MachineName, PathBuf)>,
    backing_file: Option<BackingFile>,
    btrfs_progs: Option<Version>,
}

/// A device of the file system.
#[derive(Debug, Clone)]
struct Device {
    number: String,
    missing: bool,
    /// The error counters that are not 0, as the kernel prints them.
    errors: Vec<String>,
}

/// The file that contains the file system.
#[derive(Debug, Clone)]
struct BackingFile {
    path: PathBuf,
    /// The number of bytes by which it may grow.
    unallocated: u64,
    /// The free space of its own file system in bytes.
    free: u64,
}

/// Returns the findings about a volume's mount.
pub(super) fn examine(state: &MountState) -> Vec<Finding> {
    let mut findings = examine_options(state);
    findings.extend(examine_access(state));
    let devices = state.devices.iter();
    findings.extend(devices.flat_map(|device| examine_device(state, device)));
    findings.extend(
        state
            .backing_file
            .as_ref()
            .and_then(|file| examine_backing_file(state, file)),
    );
    if let Some(version) = state.btrfs_progs.filter(|version| version.is_outdated()) {
        findings.push(about_volume(
            state,
            Id::OldProgs,
            format!("the version of btrfs-progs is {version}"),
            "install btrfs-progs 6.2 or later",
        ));
    }
    for point in &state.mounted_over {
        let point = point.display();
        findings.push(about_volume(
            state,
            Id::MountedOver,
            format!("a mount at {point} hides the directory's content"),
            format!("umount {point}"),
        ));
    }
    for (machine, point) in &state.mounted_elsewhere {
        findings.push(Finding::new(
            Id::MountedElsewhere,
            Subject::Machine(machine.clone()),
            format!("a part of it is also mounted at {}", point.display()),
            "none: deletion does not wait for it and leaves an empty mount",
        ));
    }
    findings
}

fn about_volume(
    state: &MountState,
    id: Id,
    proof: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    Finding::new(id, Subject::Volume(state.volume.clone()), proof, advice)
}

fn examine_options(state: &MountState) -> Vec<Finding> {
    let mut findings = Vec::new();
    let has = |option: &str| state.options.iter().any(|it| it == option);
    if state.read_only {
        findings.push(about_volume(
            state,
            Id::ReadOnlyVolume,
            "it is mounted read-only",
            "find the reason with `dmesg`, then mount it with rw",
        ));
    }
    let without_checksums = ["nodatasum", "nodatacow"]
        .into_iter()
        .find(|option| has(option));
    if let Some(option) = without_checksums {
        findings.push(about_volume(
            state,
            Id::NoChecksums,
            format!("it is mounted with {option}: new data has no checksums"),
            format!("mount it without {option}"),
        ));
    }
    if has("autodefrag") {
        findings.push(about_volume(
            state,
            Id::Autodefrag,
            "it is mounted with autodefrag, which copies extents that snapshots share",
            "mount it without autodefrag",
        ));
    }
    if state.quotas {
        findings.push(about_volume(
            state,
            Id::Quotas,
            "quota groups are on: each snapshot and each deletion counts all its extents",
            format!("btrfs quota disable {}", state.volume.display()),
        ));
    }
    findings
}

/// The options without which set-uid programs and devices of images work on the host.
const PROTECTION: [&str; 2] = ["nosuid", "nodev"];

fn examine_access(state: &MountState) -> Vec<Finding> {
    let volume = state.volume.display();
    let open = (state.mode & 0o077 != 0).then(|| {
        let mode = state.mode & 0o7777;
        about_volume(
            state,
            Id::OpenVolume,
            format!(
                "its mode is {mode:04o}: local users may reach the files of machines, and their \
                 set-uid programs"
            ),
            format!("chmod 0700 {volume}"),
        )
    });
    let missing = state.unprotected.join(",");
    let unprotected = (!missing.is_empty()).then(|| {
        about_volume(
            state,
            Id::UnprotectedMount,
            format!("it is mounted without {missing}"),
            format!("mount it with {missing}, and add that to its line in /etc/fstab"),
        )
    });
    open.into_iter().chain(unprotected).collect()
}

fn examine_device(state: &MountState, device: &Device) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (number, volume) = (&device.number, state.volume.display());
    if device.missing {
        findings.push(about_volume(
            state,
            Id::DeviceMissing,
            format!("its device {number} is missing"),
            format!("btrfs replace start {number} NEW-DEVICE {volume}"),
        ));
    }
    if !device.errors.is_empty() {
        findings.push(about_volume(
            state,
            Id::DeviceErrors,
            format!("device {number} counts {}", device.errors.join(", ")),
            format!(
                "`btrfs scrub start {volume}` finds damaged files; `btrfs device stats --reset {volume}` resets the counters"
            ),
        ));
    }
    findings
}

fn examine_backing_file(state: &MountState, file: &BackingFile) -> Option<Finding> {
    if file.unallocated <= file.free {
        return None;
    }
    let proof = format!(
        "its file {} may grow by {} MiB, but only {} MiB are free: then a write fails halfway",
        file.path.display(),
        file.unallocated / config::MIB,
        file.free / config::MIB
    );
    let directory = file.path.parent().unwrap_or(Path::new("/"));
    let advice = format!("free space in {}", directory.display());
    Some(about_volume(state, Id::ImageOutgrows, proof, advice))
}

/// Returns the mount points inside a volume, and the other mount points of parts of its
/// machines. `mount` is the mount of the volume.
fn overlapping_mounts(
    mounts: &[Mount],
    mount: &Mount,
    volume: &Path,
) -> (Vec<PathBuf>, Vec<(MachineName, PathBuf)>) {
    let inside: Vec<_> = mounts
        .iter()
        .map(|it| it.point.clone())
        .filter(|point| point.starts_with(volume) && point != volume)
        .collect();
    let relative = volume.strip_prefix(&mount.point).unwrap_or(Path::new(""));
    let root = mount.root.join(relative);
    let machine_at = |it: &Mount| -> Option<(MachineName, PathBuf)> {
        let mut rest = it.root.strip_prefix(&root).ok()?.components();
        let name = rest.next()?.as_os_str().to_str()?.parse().ok()?;
        let is_elsewhere = it.device == mount.device && !inside.contains(&it.point);
        is_elsewhere.then(|| (name, it.point.clone()))
    };
    let elsewhere = mounts.iter().filter_map(machine_at).collect();
    (inside, elsewhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_over_a_volume_and_of_its_machines_are_found() {
        let mounts: Vec<_> =
            "95 70 0:47 / /mnt/a\\040b rw,relatime shared:3 - btrfs /dev/loop2 rw,subvol=/\n\
             96 70 0:47 /machines/linux/linux-1 /tmp/look rw - btrfs /dev/loop2 rw\n\
             97 70 0:47 /other /tmp/other rw - btrfs /dev/loop2 rw\n\
             98 70 0:48 /machines/linux /tmp/unrelated rw - btrfs /dev/loop3 rw\n\
             99 95 0:50 / /mnt/a\\040b/machines/linux rw - tmpfs tmpfs rw\n\
             100 95 0:47 /machines/x /mnt/a\\040b/machines/y rw - btrfs /dev/loop2 rw\n"
                .lines()
                .filter_map(Mount::parse)
                .collect();
        assert_eq!(mounts.len(), 6);
        assert_eq!(mounts[0].point, Path::new("/mnt/a b"));
        let volume = Path::new("/mnt/a b/machines");
        let (inside, elsewhere) = overlapping_mounts(&mounts, &mounts[0], volume);
        assert_eq!(
            inside,
            ["/mnt/a b/machines/linux", "/mnt/a b/machines/y"].map(PathBuf::from)
        );
        assert_eq!(elsewhere, [("linux".parse().unwrap(), "/tmp/look".into())]);
    }

    #[test]
    fn every_fault_has_evidence_and_advice() {
        let state = MountState {
            volume: "/build/machines/default".into(),
            read_only: true,
            options: ["rw", "nodatasum", "autodefrag"]
                .map(str::to_owned)
                .to_vec(),
            mode: 0o40_755,
            unprotected: PROTECTION.to_vec(),
            quotas: true,
            devices: vec![Device {
                number: "1".into(),
                missing: true,
                errors: vec!["corruption_errs 3".into()],
            }],
            mounted_over: vec!["/build/machines/default/linux".into()],
            mounted_elsewhere: vec![("linux".parse().unwrap(), "/mnt".into())],
            backing_file: Some(BackingFile {
                path: "/build/default.btrfs".into(),
                unallocated: 4 << 30,
                free: 1 << 30,
            }),
            btrfs_progs: Some(Version(5, 10)),
        };
        let findings: Vec<_> = examine(&state)
            .into_iter()
            .map(|it| format!("{} {}: {}\n    {}", it.severity, it.id, it.proof, it.advice))
            .collect();
        insta::assert_snapshot!(findings.join("\n"));
        let healthy = MountState {
            mode: 0o40_700,
            btrfs_progs: Some(Version(6, 2)),
            ..MountState::default()
        };
        assert_eq!(examine(&healthy), []);
    }
}
