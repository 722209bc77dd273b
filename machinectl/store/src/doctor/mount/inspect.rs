//! Looks at a volume's mount, through `/proc` and `/sys`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::{Backing, Device, Line, Seen, neighbours};
use crate::space;
use sys::{command, file};

/// More than `btrfs --version` takes.
const LIMIT: Duration = Duration::from_secs(10);

impl Seen {
    /// Looks at the mount of a volume. What this kernel does not tell is taken to be
    /// well.
    pub(in crate::doctor) fn look(volume: &Path) -> io::Result<Self> {
        let known = statx(CWD, volume, AtFlags::empty(), StatxFlags::MNT_ID)?;
        let text = fs::read_to_string("/proc/self/mountinfo")?;
        let lines: Vec<_> = text.lines().filter_map(Line::read).collect();
        let Some(line) = lines.iter().find(|line| line.number == known.stx_mnt_id) else {
            return Err(io::Error::other("its mount is not listed"));
        };
        let (over, elsewhere) = neighbours(&lines, line, volume);
        let read_only = |options: &[String]| options.iter().any(|option| option == "ro");
        let system = system(&line.source);
        Ok(Self {
            volume: volume.to_owned(),
            read_only: read_only(&line.options) || read_only(&line.system_options),
            options: line.system_options.clone(),
            quotas: system.as_deref().is_some_and(quotas),
            devices: system.as_deref().map(devices).unwrap_or_default(),
            over,
            elsewhere,
            file: backing(&line.source),
            progs: progs(),
        })
    }
}

/// The name of a device as the kernel knows it: `dm-0` for `/dev/mapper/data`.
fn device_name(source: &Path) -> Option<String> {
    let path = source.canonicalize().ok()?;
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Where the kernel shows the file system on a device.
fn system(source: &Path) -> Option<PathBuf> {
    let name = device_name(source)?;
    let systems = file::entries(Path::new("/sys/fs/btrfs")).ok()?;
    systems
        .into_iter()
        .find(|system| system.join("devices").join(&name).exists())
}

fn says(path: &Path) -> String {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn quotas(system: &Path) -> bool {
    let groups = system.join("qgroups");
    // Before Linux 6.7, which has simple quotas, there is no mode.
    says(&groups.join("enabled")) == "1" && says(&groups.join("mode")) != "squota"
}

fn devices(system: &Path) -> Vec<Device> {
    let device = |path: PathBuf| {
        let errors = says(&path.join("error_stats"));
        let counted = |line: &&str| !line.ends_with(" 0") && line.contains(' ');
        Some(Device {
            number: path.file_name()?.to_str()?.to_owned(),
            missing: says(&path.join("missing")) == "1",
            errors: errors.lines().filter(counted).map(str::to_owned).collect(),
        })
    };
    let devices = file::entries(&system.join("devinfo")).unwrap_or_default();
    devices.into_iter().filter_map(device).collect()
}

/// The file of a loop device.
fn backing(source: &Path) -> Option<Backing> {
    let block = Path::new("/sys/block").join(device_name(source)?);
    let path = PathBuf::from(says(&block.join("loop/backing_file")));
    let data = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let free = space::bytes_free(path.parent()?).ok()?;
    let missing = data.len().saturating_sub(data.blocks() * 512);
    Some(Backing {
        path,
        missing,
        free,
    })
}

/// The version of btrfs-progs; they tell it in no other way.
fn progs() -> Option<(u32, u32)> {
    let mut version = command::prepare("btrfs");
    version.arg("--version");
    let text = String::from_utf8(command::run(version, LIMIT).ok()?).ok()?;
    let (_, version) = text.lines().next()?.split_once(" v")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
