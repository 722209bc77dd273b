//! The operations of the store, compared with the bare system calls and with btrfs-progs. Called by
//! `scripts/bench`.
//!
//! usage: bench-store DIRECTORY (empty, on btrfs, with 8 GiB free)

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench::statistics::{Cost, alternate, measure, median_cost};
use bench::table::{Comparison, print_comparisons, print_cost};
use config::{MachineName, ToolchainName};
use store::stream::{SendStream, TimeoutReader};
use store::subvolumes::BtrfsBackend;
use store::{Intent, SnapshotSource, Source, SubvolumeBackend, Volume};
use sys::command;

const LIMIT: Duration = Duration::from_mins(10);
/// The size of the image that is received.
const IMAGE_BYTES: u64 = 1 << 30;
/// The size of a disk without content.
const HOLE_BYTES: u64 = 20 << 30;
/// The number of rounds of a long operation.
const ROUNDS: usize = 5;
/// The number of rounds of a short operation.
const SHORT_ROUNDS: usize = 300;
/// The greatest ratio to a reference that does nothing but the operation.
const OVERHEAD_MAX: f64 = 1.05;

fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1);
    let directory = directory.context("usage: bench-store DIRECTORY")?;
    let fixture = Fixture::new(Path::new(&directory))?;
    let mut comparisons = fixture.snapshots()?;
    comparisons.extend(fixture.cleanup()?);
    comparisons.extend(fixture.receives()?);
    comparisons.extend(fixture.verified_receive()?);
    print_comparisons(&comparisons);
    let views = fixture.views()?;
    print_cost(
        "views of 100 machines with 10 revisions each",
        views,
        Duration::from_millis(15),
    );
    let hole = fixture.verify_hole()?;
    print_cost("verify, 20 GiB of holes", hole, Duration::from_secs(1));
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
            measure(|| {
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
            measure(|| {
                libbtrfsutil::CreateSnapshotOptions::new().create(&source, &target)?;
                Ok(libbtrfsutil::delete_subvolume(&target)?)
            })
        };
        let pair = [source.clone(), target.clone()];
        let tool = || {
            measure(|| {
                Self::btrfs(&["--quiet", "subvolume", "snapshot"], &pair)?;
                Self::btrfs(&["--quiet", "subvolume", "delete"], &pair[1..])
            })
        };
        let bare = alternate(SHORT_ROUNDS, &mut snapshot, ioctls)?;
        let tool = alternate(SHORT_ROUNDS / 10, &mut snapshot, tool)?;
        Ok(vec![
            comparison(
                "snapshot and delete",
                &bare,
                "the bare ioctls",
                OVERHEAD_MAX,
            ),
            comparison(
                "snapshot and delete",
                &tool,
                "btrfs subvolume ...",
                OVERHEAD_MAX,
            ),
        ])
    }

    /// Compares the clean-up of a thousand snapshots with their deletion by the system calls and by
    /// btrfs-progs.
    fn cleanup(&self) -> Result<Vec<Comparison>> {
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
            measure(|| {
                let report = self.volume.clean_after_boot();
                ensure!(report.done.len() == 1000, "{report:?}");
                Ok(())
            })
        };
        let ioctls = || {
            let paths = make()?;
            measure(|| {
                for path in &paths {
                    libbtrfsutil::delete_subvolume(path)?;
                }
                Ok(libbtrfsutil::sync(&directory)?)
            })
        };
        let tool = || {
            let paths = make()?;
            measure(|| Self::btrfs(&["--quiet", "subvolume", "delete", "-c"], &paths))
        };
        let bare = alternate(ROUNDS, cleanup, ioctls)?;
        let tool = alternate(ROUNDS, cleanup, tool)?;
        let name = "clean-up of 1000 snapshots";
        Ok(vec![
            comparison(name, &bare, "the bare ioctls", OVERHEAD_MAX),
            comparison(name, &tool, "one btrfs subvolume delete -c", OVERHEAD_MAX),
        ])
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
        let path = self.root.join(format!("{}.stream", name.replace('/', "-")));
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
        let (mut add, mut pipe, mut upgrade) = <(Costs, Costs, Costs)>::default();
        for _ in 0..ROUNDS {
            add.0
                .push(Self::ingest(&self.volume, Intent::Add, &machine, &one)?);
            let cost = Self::ingest(&self.volume, Intent::Upgrade, &machine, &two)?;
            upgrade.0.push(cost);
            self.delete(&self.volume, &machine)?;
            pipe.0.push(self.ingest_pipe(&machine, &one)?);
            self.delete(&self.volume, &machine)?;

            add.1.push(Self::receive(&one, &received)?);
            upgrade.1.push(Self::receive(&two, &received)?);
            self.delete_received(&["big-2", "big-1"])?;
            pipe.1.push(Self::receive_pipe(&one, &received)?);
            self.delete_received(&["big-1"])?;
        }
        let receive = "btrfs receive, then sync";
        let through = "cat | btrfs receive, then sync";
        Ok(vec![
            comparison("add, 1 GiB from a file", &add, receive, OVERHEAD_MAX),
            comparison("add, 1 GiB from a pipe", &pipe, through, OVERHEAD_MAX),
            comparison("upgrade, 128 MiB of 1 GiB", &upgrade, receive, OVERHEAD_MAX),
        ])
    }

    /// Adds or upgrades a machine from a file.
    fn ingest(volume: &Volume, intent: Intent, machine: &MachineName, path: &Path) -> Result<Cost> {
        measure(|| {
            let stream = SendStream::open(TimeoutReader::open(path)?)?;
            volume.ingest(intent, machine, Source::Stream(stream))?;
            Ok(())
        })
    }

    /// Adds a machine from a pipe.
    fn ingest_pipe(&self, machine: &MachineName, path: &Path) -> Result<Cost> {
        measure(|| {
            let (reader, writer) = io::pipe()?;
            let mut cat = command::prepare("cat");
            cat.arg(path).stdout(writer);
            let running = command::Running::start(cat)?;
            let stream = SendStream::open(TimeoutReader::pipe(reader)?)?;
            self.volume
                .ingest(Intent::Add, machine, Source::Stream(stream))?;
            Ok(running.finish(LIMIT)?)
        })
    }

    fn receive(path: &Path, received: &Path) -> Result<Cost> {
        let paths = [path.to_owned(), received.to_owned()];
        measure(|| {
            Self::btrfs(&["--quiet", "receive", "-e", "-f"], &paths)?;
            // An acknowledged revision is durable.
            Self::btrfs(&["filesystem", "sync"], &paths[1..])
        })
    }

    fn receive_pipe(path: &Path, received: &Path) -> Result<Cost> {
        measure(|| {
            let mut shell = command::prepare("sh");
            shell.args(["-c", "cat \"$1\" | btrfs --quiet receive -e \"$2\"", "sh"]);
            shell.args([path, received]);
            command::run(shell, LIMIT)?;
            Self::btrfs(&["filesystem", "sync"], &[received.to_owned()])
        })
    }

    fn delete(&self, volume: &Volume, machine: &MachineName) -> Result<()> {
        volume.delete(machine, LIMIT, false)?;
        Ok(self.volume.reclaim()?)
    }

    fn delete_received(&self, names: &[&str]) -> Result<()> {
        let paths: Vec<_> = names
            .iter()
            .map(|it| self.root.join("received").join(it))
            .collect();
        Self::btrfs(&["--quiet", "subvolume", "delete"], &paths)?;
        Ok(self.volume.reclaim()?)
    }

    /// Compares `add` of a revision whose content is verified, and `verify`, with `sha256sum`.
    fn verified_receive(&self) -> Result<Vec<Comparison>> {
        let machine: MachineName = "checked".parse()?;
        let source = Source::working_subvolume(self.work());
        self.volume.ingest(Intent::Add, &machine, source)?;
        let stream = self.send("machines/checked/checked-1", None)?;
        let directory = self.root.join("others");
        fs::create_dir(&directory)?;
        let (volume, received) = (Volume::open(&directory)?, self.root.join("received"));
        let add = || {
            let cost = Self::ingest(&volume, Intent::Add, &machine, &stream)?;
            self.delete(&volume, &machine)?;
            Ok(cost)
        };
        let copy = received.join("checked-1/disk.img");
        let receive = || {
            let one = Self::receive(&stream, &received)?;
            let other = Self::sha256sum(&copy)?;
            self.delete_received(&["checked-1"])?;
            Ok(Cost {
                wall: one.wall + other.wall,
                cpu: one.cpu + other.cpu,
            })
        };
        let add = alternate(ROUNDS, add, receive)?;
        let disk = self.volume.path().join("checked/checked/disk.img");
        let verify = || measure(|| Ok(self.volume.verify(&machine, None).map(drop)?));
        let verify = alternate(ROUNDS, verify, || Self::sha256sum(&disk))?;
        let checked = "btrfs receive, then sync and sha256sum";
        Ok(vec![
            comparison("add, 1 GiB verified", &add, checked, 0.5),
            comparison("verify, 1 GiB", &verify, "sha256sum", 1.0),
        ])
    }

    fn sha256sum(path: &Path) -> Result<Cost> {
        measure(|| {
            let mut sum = command::prepare("sha256sum");
            sum.arg(path);
            command::run(sum, LIMIT)?;
            Ok(())
        })
    }

    /// Measures `verify` of a disk without content.
    fn verify_hole(&self) -> Result<Cost> {
        let machine: MachineName = "hole".parse()?;
        let work = self.root.join("hole");
        BtrfsBackend.create(&work)?;
        File::create(work.join("disk.img"))?.set_len(HOLE_BYTES)?;
        let source = Source::working_subvolume(work);
        self.volume.ingest(Intent::Add, &machine, source)?;
        let verify = || measure(|| Ok(self.volume.verify(&machine, None).map(drop)?));
        let costs: Result<Vec<_>> = (0..ROUNDS).map(|_| verify()).collect();
        Ok(median_cost(&costs?))
    }

    /// Measures the views of a hundred machines with ten revisions each.
    fn views(&self) -> Result<Cost> {
        let image = self.root.join("image");
        let names = (0..100).map(|it| format!("m{it}").parse());
        let names = names.collect::<Result<Vec<MachineName>, _>>()?;
        for machine in &names {
            let directory = self.volume.directory(machine);
            fs::create_dir(&directory)?;
            for revision in 1..=10 {
                let name = format!("{machine}-{revision}");
                BtrfsBackend.snapshot_read_only(&image, &directory.join(name))?;
            }
            let link = directory.join(machine);
            std::os::unix::fs::symlink(format!("{machine}-10"), link)?;
        }
        let look = || {
            measure(|| {
                let views = self.volume.views(&names)?;
                ensure!(views.iter().all(|it| it.revisions.len() == 10), "{views:?}");
                Ok(())
            })
        };
        let costs: Result<Vec<_>> = (0..SHORT_ROUNDS / 10).map(|_| look()).collect();
        Ok(median_cost(&costs?))
    }
}

/// The costs of the rounds of an operation, and of its reference.
type Costs = (Vec<Cost>, Vec<Cost>);

fn comparison(
    operation: &'static str,
    (costs, reference): &Costs,
    reference_name: &'static str,
    ratio_max: f64,
) -> Comparison {
    Comparison {
        operation,
        cost: median_cost(costs),
        reference: median_cost(reference),
        reference_name,
        ratio_max,
    }
}
