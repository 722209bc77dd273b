//! The operations of the store, compared with the bare system calls and with btrfs-progs. Called by
//! `scripts/bench`.
//!
//! usage: bench-store DIRECTORY (empty, on btrfs, with 6 GiB free)

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench::statistics::{alternate, median, shortest, time};
use bench::table::{Comparison, milliseconds, print_comparisons};
use config::{MachineName, ToolchainName};
use store::stream::{SendStream, TimeoutReader};
use store::subvolumes::BtrfsBackend;
use store::{Intent, SnapshotSource, Source, SubvolumeBackend, Volume};
use sys::command;

const LIMIT: Duration = Duration::from_mins(10);
/// The size of the image that is received.
const IMAGE_BYTES: u64 = 1 << 30;
/// The number of rounds of a long operation.
const ROUNDS: usize = 5;

#[expect(clippy::print_stdout, reason = "a measurement prints its results")]
fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1);
    let directory = directory.context("usage: bench-store DIRECTORY")?;
    let fixture = Fixture::new(Path::new(&directory))?;
    let mut comparisons = fixture.snapshots()?;
    comparisons.push(fixture.cleanup()?);
    comparisons.extend(fixture.receives()?);
    comparisons.push(fixture.verify()?);
    print_comparisons(&comparisons);
    let (machines, duration) = fixture.views()?;
    println!(
        "views of {machines} machines with 10 revisions each: {}",
        milliseconds(duration)
    );
    Ok(())
}

/// A volume with a machine.
struct Fixture {
    root: PathBuf,
    volume: Volume,
    machine: MachineName,
    toolchain: ToolchainName,
}

impl Fixture {
    fn new(root: &Path) -> Result<Self> {
        let root = root.canonicalize()?;
        fs::create_dir(root.join("machines"))?;
        let fixture = Self {
            volume: Volume::open(&root.join("machines"))?,
            root,
            machine: "linux".parse()?,
            toolchain: "default".parse()?,
        };
        let image = fixture.root.join("image");
        BtrfsBackend.create(&image)?;
        for number in 0..200 {
            fs::create_dir(image.join(number.to_string()))?;
        }
        BtrfsBackend.make_read_only(&image)?;
        let source = Source::Subvolume(image);
        fixture
            .volume
            .ingest(Intent::Add, &fixture.machine, source)?;
        Ok(fixture)
    }

    fn btrfs(arguments: &[&str], paths: &[PathBuf]) -> Result<()> {
        let mut btrfs = command::prepare("btrfs");
        btrfs.args(arguments).args(paths);
        command::run(btrfs, LIMIT)?;
        Ok(())
    }

    /// Compares the creation and deletion of a snapshot with the system calls and with btrfs-progs.
    fn snapshots(&self) -> Result<Vec<Comparison>> {
        let source = self.volume.path().join("linux/linux-1");
        let target = self.volume.path().join("linux/linux-default-reference");
        let mut number = 0;
        let mut snapshot = || {
            number += 1;
            let tag = format!("b{number}").parse()?;
            time(|| {
                drop(self.volume.snapshot(
                    &self.machine,
                    &SnapshotSource::Current,
                    &self.toolchain,
                    &tag,
                )?);
                self.volume
                    .delete_snapshot(&self.machine, &self.toolchain, &tag)?;
                Ok(())
            })
        };
        let ioctls = || {
            time(|| {
                libbtrfsutil::CreateSnapshotOptions::new().create(&source, &target)?;
                Ok(libbtrfsutil::delete_subvolume(&target)?)
            })
        };
        let pair = [source.clone(), target.clone()];
        let tool = || {
            time(|| {
                Self::btrfs(&["--quiet", "subvolume", "snapshot"], &pair)?;
                Self::btrfs(&["--quiet", "subvolume", "delete"], &pair[1..])
            })
        };
        let comparison = |(durations, reference), reference_name| Comparison {
            operation: "snapshot and delete",
            duration: median(durations),
            reference: median(reference),
            reference_name,
            ratio_max: 1.1,
        };
        Ok(vec![
            comparison(alternate(300, &mut snapshot, ioctls)?, "the bare ioctls"),
            comparison(alternate(30, &mut snapshot, tool)?, "btrfs subvolume ..."),
        ])
    }

    /// Compares the clean-up of a thousand snapshots with their deletion by btrfs-progs.
    fn cleanup(&self) -> Result<Comparison> {
        let directory = self.volume.path().join("linux");
        let make = || -> Result<Vec<PathBuf>> {
            let paths: Vec<_> = (0..1000)
                .map(|it| directory.join(format!("linux-default-{it}")))
                .collect();
            paths
                .iter()
                .try_for_each(|path| BtrfsBackend.create(path))?;
            self.volume.commit()?;
            Ok(paths)
        };
        let cleanup = || {
            make()?;
            time(|| {
                let report = self.volume.clean_after_boot();
                ensure!(report.done.len() == 1000, "{report:?}");
                Ok(())
            })
        };
        let tool = || {
            let paths = make()?;
            time(|| Self::btrfs(&["--quiet", "subvolume", "delete", "-c"], &paths))
        };
        let (durations, reference) = alternate(ROUNDS, cleanup, tool)?;
        Ok(Comparison {
            operation: "clean-up of 1000 snapshots",
            duration: shortest(&durations),
            reference: shortest(&reference),
            reference_name: "one btrfs subvolume delete -c",
            ratio_max: 1.1,
        })
    }

    fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Writes random bytes, which do not compress.
    fn noise(path: &Path, bytes: u64) -> Result<()> {
        let mut noise = File::open("/dev/urandom")?.take(bytes);
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        io::copy(&mut noise, &mut file)?;
        Ok(file.sync_all()?)
    }

    fn send(&self, name: &str, parent: Option<&str>) -> Result<PathBuf> {
        let path = self.root.join(format!("{name}.stream"));
        let mut send = command::prepare("btrfs");
        send.args(["--quiet", "send"]);
        if let Some(parent) = parent {
            send.arg("-p").arg(self.root.join(parent));
        }
        send.arg(self.root.join(name)).stdout(File::create(&path)?);
        command::Running::start(send)?.finish(LIMIT)?;
        Ok(path)
    }

    /// Compares `add` of a full stream and `upgrade` by an incremental one with `btrfs receive`.
    fn receives(&self) -> Result<Vec<Comparison>> {
        BtrfsBackend.create(&self.work())?;
        let disk = self.work().join("disk.img");
        Self::noise(&disk, IMAGE_BYTES)?;
        BtrfsBackend.snapshot_read_only(&self.work(), &self.root.join("big-1"))?;
        Self::noise(&disk, IMAGE_BYTES / 8)?;
        BtrfsBackend.snapshot_read_only(&self.work(), &self.root.join("big-2"))?;
        let (one, two) = (
            self.send("big-1", None)?,
            self.send("big-2", Some("big-1"))?,
        );
        let received = self.root.join("received");
        fs::create_dir(&received)?;

        let machine: MachineName = "big".parse()?;
        let ingest = |intent, path: &Path| {
            time(|| {
                let stream = SendStream::open(TimeoutReader::open(path)?)?;
                self.volume
                    .ingest(intent, &machine, Source::Stream(stream))?;
                Ok(())
            })
        };
        let receive = |path: &PathBuf| {
            time(|| {
                Self::btrfs(
                    &["--quiet", "receive", "-e", "-f"],
                    &[path.clone(), received.clone()],
                )?;
                // An acknowledged revision is durable.
                Self::btrfs(&["filesystem", "sync"], std::slice::from_ref(&received))
            })
        };
        let (mut add, mut upgrade) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for _ in 0..ROUNDS {
            add.0.push(ingest(Intent::Add, &one)?);
            upgrade.0.push(ingest(Intent::Upgrade, &two)?);
            self.volume.delete(&machine, LIMIT, false)?;
            self.volume.reclaim()?;
            add.1.push(receive(&one)?);
            upgrade.1.push(receive(&two)?);
            Self::btrfs(
                &["--quiet", "subvolume", "delete"],
                &[received.join("big-2"), received.join("big-1")],
            )?;
            self.volume.reclaim()?;
        }
        let comparison = |operation, (durations, reference): (Vec<_>, Vec<_>)| Comparison {
            operation,
            duration: shortest(&durations),
            reference: shortest(&reference),
            reference_name: "btrfs receive, then sync",
            ratio_max: 1.05,
        };
        Ok(vec![
            comparison("add, 1 GiB", add),
            comparison("upgrade, 128 MiB of 1 GiB", upgrade),
        ])
    }

    /// Compares `verify` of 1 GiB with `sha256sum`.
    fn verify(&self) -> Result<Comparison> {
        let machine: MachineName = "checked".parse()?;
        let source = Source::working_subvolume(self.work());
        self.volume.ingest(Intent::Add, &machine, source)?;
        let disk = self.volume.path().join("checked/checked/disk.img");
        let verify = || time(|| Ok(self.volume.verify(&machine, None).map(|_| ())?));
        let tool = || {
            time(|| {
                let mut sum = command::prepare("sha256sum");
                sum.arg(&disk);
                command::run(sum, LIMIT)?;
                Ok(())
            })
        };
        let (durations, reference) = alternate(ROUNDS, verify, tool)?;
        Ok(Comparison {
            operation: "verify, 1 GiB",
            duration: shortest(&durations),
            reference: shortest(&reference),
            reference_name: "sha256sum",
            ratio_max: 1.0,
        })
    }

    /// Measures the views of a hundred machines with ten revisions each.
    fn views(&self) -> Result<(usize, Duration)> {
        let image = self.root.join("image");
        for machine in 0..100 {
            let directory = self.volume.path().join(format!("m{machine}"));
            fs::create_dir(&directory)?;
            for revision in 1..=10 {
                BtrfsBackend.snapshot_read_only(
                    &image,
                    &directory.join(format!("m{machine}-{revision}")),
                )?;
            }
            std::os::unix::fs::symlink(
                format!("m{machine}-10"),
                directory.join(format!("m{machine}")),
            )?;
        }
        let mut machines = 0;
        let duration = time(|| {
            for machine in self.volume.machines()? {
                machines += usize::from(self.volume.view(&machine)?.revisions.len() == 10);
            }
            Ok(())
        })?;
        Ok((machines, duration))
    }
}
