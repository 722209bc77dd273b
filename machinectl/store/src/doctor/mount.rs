//! The volume as it is mounted: what may be wrong with the mount, with its devices,
//! and with the tools that work on it. Thinks only; [`inspect`] looks.

mod inspect;

use std::path::{Path, PathBuf};

use config::MachineName;
use config::doctor::{Finding, Id, Subject};

/// The first btrfs-progs without known losses of data in what they receive.
const PROGS_MIN: (u32, u32) = (6, 2);

/// What the kernel shows of a volume's mount.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    volume: PathBuf,
    /// Whether it can only be read: the mount, or all of the file system.
    read_only: bool,
    /// The options of the file system.
    options: Vec<String>,
    /// Whether quota groups account for every extent; simple quotas do not.
    quotas: bool,
    devices: Vec<Device>,
    /// Where something else is mounted over a part of the volume.
    over: Vec<PathBuf>,
    /// Where parts of machines are mounted, too.
    elsewhere: Vec<(MachineName, PathBuf)>,
    file: Option<Backing>,
    progs: Option<(u32, u32)>,
}

/// A device of the file system.
#[derive(Debug, Clone)]
struct Device {
    number: String,
    missing: bool,
    /// The counters that are not 0, as the kernel writes them.
    errors: Vec<String>,
}

/// The file in which a file system lies.
#[derive(Debug, Clone)]
struct Backing {
    path: PathBuf,
    /// How much it may still grow.
    missing: u64,
    /// The room that there is for it.
    free: u64,
}

/// Examines a volume's mount.
pub(super) fn examine(seen: &Seen) -> Vec<Finding> {
    let mut findings = mount(seen);
    findings.extend(seen.devices.iter().flat_map(|device| faults(seen, device)));
    findings.extend(seen.file.as_ref().and_then(|file| outgrows(seen, file)));
    if let Some((major, minor)) = seen.progs.filter(|version| *version < PROGS_MIN) {
        let proof = format!("btrfs-progs are of version {major}.{minor}");
        findings.push(about(
            seen,
            Id::OldProgs,
            proof,
            "install btrfs-progs 6.2 or later",
        ));
    }
    for point in &seen.over {
        let proof = format!(
            "something is mounted at {}, and hides what is there",
            point.display()
        );
        let advice = format!("umount {}", point.display());
        findings.push(about(seen, Id::MountedOver, proof, advice));
    }
    for (machine, point) in &seen.elsewhere {
        let subject = Subject::Machine(machine.clone());
        let proof = format!("a part of it is mounted at {}, too", point.display());
        let advice = "none: deleting does not wait for it, and the mount is empty then";
        findings.push(Finding::new(Id::MountedElsewhere, subject, proof, advice));
    }
    findings
}

fn about(seen: &Seen, id: Id, proof: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding::new(id, Subject::Volume(seen.volume.clone()), proof, advice)
}

fn mount(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let has = |option: &str| seen.options.iter().any(|it| it == option);
    if seen.read_only {
        let advice = "`dmesg` says why, if nobody asked for it; then mount it with rw";
        findings.push(about(
            seen,
            Id::ReadOnlyVolume,
            "it is mounted read-only",
            advice,
        ));
    }
    let unchecked = ["nodatasum", "nodatacow"]
        .into_iter()
        .find(|option| has(option));
    if let Some(option) = unchecked {
        let proof = format!("it is mounted with {option}: what is written has no checksums");
        findings.push(about(
            seen,
            Id::NoChecksums,
            proof,
            format!("mount it without {option}"),
        ));
    }
    if has("autodefrag") {
        let proof = "it is mounted with autodefrag, which copies what snapshots share";
        findings.push(about(
            seen,
            Id::Autodefrag,
            proof,
            "mount it without autodefrag",
        ));
    }
    if seen.quotas {
        let proof = "quota groups are on: every snapshot and every deletion counts all its extents";
        let advice = format!("btrfs quota disable {}", seen.volume.display());
        findings.push(about(seen, Id::Quotas, proof, advice));
    }
    findings
}

fn faults(seen: &Seen, device: &Device) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (number, volume) = (&device.number, seen.volume.display());
    if device.missing {
        let proof = format!("its device {number} is missing");
        let advice = format!("btrfs replace start {number} NEW-DEVICE {volume}");
        findings.push(about(seen, Id::DeviceMissing, proof, advice));
    }
    if !device.errors.is_empty() {
        let proof = format!("device {number} counts {}", device.errors.join(", "));
        let advice = format!(
            "`btrfs scrub start {volume}` says what is damaged; `btrfs device stats --reset {volume}` forgets it"
        );
        findings.push(about(seen, Id::DeviceErrors, proof, advice));
    }
    findings
}

fn outgrows(seen: &Seen, file: &Backing) -> Option<Finding> {
    let mib = |bytes: u64| bytes >> 20;
    (file.missing > file.free).then(|| {
        let proof = format!(
            "its file {} may grow by {} MiB, and there is room for {} MiB: it fails in the middle of a write then",
            file.path.display(),
            mib(file.missing),
            mib(file.free)
        );
        let beside = file.path.parent().unwrap_or(Path::new("/"));
        about(seen, Id::ImageOutgrows, proof, format!("make room in {}", beside.display()))
    })
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    number: u64,
    /// The file system, by its device number.
    device: String,
    /// The directory of the file system that is mounted.
    root: PathBuf,
    /// Where it is mounted.
    point: PathBuf,
    options: Vec<String>,
    source: PathBuf,
    /// The options of the file system, wherever it is mounted.
    system_options: Vec<String>,
}

impl Line {
    fn read(line: &str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mount: Vec<_> = mount.split(' ').collect();
        let system: Vec<_> = system.split(' ').collect();
        let list = |text: &str| text.split(',').map(str::to_owned).collect();
        Some(Self {
            number: mount.first()?.parse().ok()?,
            device: (*mount.get(2)?).to_owned(),
            root: path(mount.get(3)?),
            point: path(mount.get(4)?),
            options: list(mount.get(5)?),
            source: path(system.get(1)?),
            system_options: list(system.get(2)?),
        })
    }
}

/// The kernel writes what would break its lines as `\ooo`.
fn path(text: &str) -> PathBuf {
    let octal = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    let plain = octal
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    plain.into()
}

/// What other mounts have to do with a volume that is mounted by `line`.
fn neighbours(
    lines: &[Line],
    line: &Line,
    volume: &Path,
) -> (Vec<PathBuf>, Vec<(MachineName, PathBuf)>) {
    let below = |it: &&Line| it.point.starts_with(volume) && it.point != volume;
    let over: Vec<_> = lines
        .iter()
        .filter(below)
        .map(|it| it.point.clone())
        .collect();
    let inside = volume.strip_prefix(&line.point).unwrap_or(Path::new(""));
    let home = line.root.join(inside);
    let machine = |it: &Line| -> Option<(MachineName, PathBuf)> {
        let mut rest = it.root.strip_prefix(&home).ok()?.components();
        let name = rest.next()?.as_os_str().to_str()?.parse().ok()?;
        let others = it.device == line.device && !over.contains(&it.point);
        others.then(|| (name, it.point.clone()))
    };
    let elsewhere = lines.iter().filter_map(machine).collect();
    (over, elsewhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        text.lines().filter_map(Line::read).collect()
    }

    #[test]
    fn mounts_over_a_volume_and_of_its_machines_are_told_apart() {
        let lines = lines(
            "95 70 0:47 / /mnt/a\\040b rw,relatime shared:3 - btrfs /dev/loop2 rw,subvol=/\n\
             96 70 0:47 /machines/linux/linux-1 /tmp/look rw - btrfs /dev/loop2 rw\n\
             97 70 0:47 /other /tmp/other rw - btrfs /dev/loop2 rw\n\
             98 70 0:48 /machines/linux /tmp/stranger rw - btrfs /dev/loop3 rw\n\
             99 95 0:50 / /mnt/a\\040b/machines/linux rw - tmpfs tmpfs rw\n\
             100 95 0:47 /machines/x /mnt/a\\040b/machines/y rw - btrfs /dev/loop2 rw\n",
        );
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[0].point, Path::new("/mnt/a b"));
        let (over, elsewhere) = neighbours(&lines, &lines[0], Path::new("/mnt/a b/machines"));
        assert_eq!(
            over,
            ["/mnt/a b/machines/linux", "/mnt/a b/machines/y"].map(PathBuf::from)
        );
        assert_eq!(elsewhere, [("linux".parse().unwrap(), "/tmp/look".into())]);
    }

    #[test]
    fn everything_that_can_be_wrong_is_told_with_its_way_out() {
        let seen = Seen {
            volume: "/build/machines/default".into(),
            read_only: true,
            options: ["rw", "nodatasum", "autodefrag"]
                .map(str::to_owned)
                .to_vec(),
            quotas: true,
            devices: vec![Device {
                number: "1".into(),
                missing: true,
                errors: vec!["corruption_errs 3".into()],
            }],
            over: vec!["/build/machines/default/linux".into()],
            elsewhere: vec![("linux".parse().unwrap(), "/mnt".into())],
            file: Some(Backing {
                path: "/build/default.btrfs".into(),
                missing: 4 << 30,
                free: 1 << 30,
            }),
            progs: Some((5, 10)),
        };
        let told: Vec<_> = examine(&seen)
            .into_iter()
            .map(|it| format!("{} {}: {}\n    {}", it.severity, it.id, it.proof, it.advice))
            .collect();
        insta::assert_snapshot!(told.join("\n"));
        let well = Seen {
            progs: Some((6, 2)),
            ..Seen::default()
        };
        assert_eq!(examine(&well), []);
    }
}
