//! What the store costs, side by side with the bare means; run by `scripts/bench`.
//!
//! usage: bench DIRECTORY (empty, on btrfs, with 6 GiB free)

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use config::{MachineName, ToolchainName};
use store::stream::Stream;
use store::stream::input::Patient;
use store::subvolumes::BtrfsBackend;
use store::{Intent, Origin, Source, SubvolumeBackend, Volume};
use sys::command;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

const LIMIT: Duration = Duration::from_mins(10);
/// The image that comes in.
const IMAGE: u64 = 1 << 30;
const ROUNDS: usize = 5;

/// Two ways to do the same, and how much more ours may cost.
struct Row {
    what: &'static str,
    ours: Duration,
    theirs: Duration,
    means: &'static str,
    goal: f64,
}

fn main() -> Fallible<()> {
    let directory = std::env::args_os().nth(1).ok_or("usage: bench DIRECTORY")?;
    let bench = Bench::new(Path::new(&directory))?;
    let mut rows = bench.snapshots()?;
    rows.push(bench.strays()?);
    rows.extend(bench.arrivals()?);
    rows.push(bench.verify()?);
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:<34} {:>10} {:>10}  {:<28} {:>6} {:>6}",
        "WHAT", "OURS", "THEIRS", "BY", "RATIO", "GOAL"
    )?;
    for row in rows {
        let ratio = row.ours.as_secs_f64() / row.theirs.as_secs_f64();
        let verdict = if ratio <= row.goal { "pass" } else { "FAIL" };
        let (ours, theirs) = (milliseconds(row.ours), milliseconds(row.theirs));
        writeln!(
            out,
            "{:<34} {ours:>10} {theirs:>10}  {:<28} {ratio:>6.2} {:>6.2} {verdict}",
            row.what, row.means, row.goal
        )?;
    }
    let (machines, time) = bench.listing()?;
    writeln!(
        out,
        "looking at {machines} machines with 10 revisions each: {}",
        milliseconds(time)
    )?;
    Ok(())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

/// How long something takes.
fn time(work: impl FnOnce() -> Fallible<()>) -> Fallible<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

/// The best of a few long runs: what else goes on can only make them longer.
fn best(times: &[Duration]) -> Duration {
    times.iter().min().copied().unwrap_or_default()
}

/// The usual one of many short runs.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Both ways in turn, so that neither has the quieter machine.
fn compare(
    rounds: usize,
    mut ours: impl FnMut() -> Fallible<Duration>,
    mut theirs: impl FnMut() -> Fallible<Duration>,
) -> Fallible<(Duration, Duration)> {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        one.push(ours()?);
        other.push(theirs()?);
    }
    let typical = |times: Vec<_>| {
        if rounds > ROUNDS {
            median(times)
        } else {
            best(&times)
        }
    };
    Ok((typical(one), typical(other)))
}

struct Bench {
    root: PathBuf,
    volume: Volume,
    machine: MachineName,
    toolchain: ToolchainName,
}

impl Bench {
    fn new(root: &Path) -> Fallible<Self> {
        let root = root.canonicalize()?;
        fs::create_dir(root.join("machines"))?;
        let bench = Self {
            volume: Volume::open(&root.join("machines"))?,
            root,
            machine: "linux".parse()?,
            toolchain: "default".parse()?,
        };
        let image = bench.root.join("image");
        BtrfsBackend.create(&image)?;
        for number in 0..200 {
            fs::create_dir(image.join(number.to_string()))?;
        }
        BtrfsBackend.seal(&image)?;
        let source = Source::Subvolume(image);
        bench.volume.bring_in(Intent::Add, &bench.machine, source)?;
        Ok(bench)
    }

    fn btrfs(arguments: &[&str], paths: &[PathBuf]) -> Fallible<()> {
        let mut btrfs = command::prepare("btrfs");
        btrfs.args(arguments).args(paths);
        command::run(btrfs, LIMIT)?;
        Ok(())
    }

    /// A snapshot of the current revision, and its end.
    fn snapshots(&self) -> Fallible<Vec<Row>> {
        let source = self.volume.path().join("linux/linux-1");
        let target = self.volume.path().join("linux/linux-default-bare");
        let mut number = 0;
        let mut ours = || {
            number += 1;
            let tag = format!("b{number}").parse()?;
            time(|| {
                drop(self.volume.snapshot(
                    &self.machine,
                    &Origin::Current,
                    &self.toolchain,
                    &tag,
                )?);
                self.volume
                    .drop_snapshot(&self.machine, &self.toolchain, &tag)?;
                Ok(())
            })
        };
        let bare = || {
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
        let (one, two) = compare(300, &mut ours, bare)?;
        let (three, four) = compare(30, &mut ours, tool)?;
        let row = |ours, theirs, means| Row {
            what: "snapshot and delete",
            ours,
            theirs,
            means,
            goal: 1.1,
        };
        Ok(vec![
            row(one, two, "the bare ioctls"),
            row(three, four, "btrfs subvolume ..."),
        ])
    }

    /// A thousand strays, until they are out of sight.
    fn strays(&self) -> Fallible<Row> {
        let directory = self.volume.path().join("linux");
        let make = || -> Fallible<Vec<PathBuf>> {
            let paths: Vec<_> = (0..1000)
                .map(|it| directory.join(format!("linux-default-{it}")))
                .collect();
            paths
                .iter()
                .try_for_each(|path| BtrfsBackend.create(path))?;
            self.volume.commit()?;
            Ok(paths)
        };
        let ours = || {
            make()?;
            time(|| match self.volume.clean_after_boot() {
                report if report.done.len() == 1000 => Ok(()),
                report => Err(format!("{report:?}").into()),
            })
        };
        let theirs = || {
            let paths = make()?;
            time(|| Self::btrfs(&["--quiet", "subvolume", "delete", "-c"], &paths))
        };
        let (ours, theirs) = compare(ROUNDS, ours, theirs)?;
        Ok(Row {
            what: "1000 strays",
            ours,
            theirs,
            means: "one btrfs subvolume delete -c",
            goal: 1.1,
        })
    }

    fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// Writes noise, which no disk can make small.
    fn noise(path: &Path, bytes: u64) -> Fallible<()> {
        let mut noise = File::open("/dev/urandom")?.take(bytes);
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        io::copy(&mut noise, &mut file)?;
        Ok(file.sync_all()?)
    }

    fn send(&self, name: &str, parent: Option<&str>) -> Fallible<PathBuf> {
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

    /// `add` of a stream and `upgrade` by what differs.
    fn arrivals(&self) -> Fallible<Vec<Row>> {
        BtrfsBackend.create(&self.work())?;
        let disk = self.work().join("disk.img");
        Self::noise(&disk, IMAGE)?;
        BtrfsBackend.freeze(&self.work(), &self.root.join("big-1"))?;
        Self::noise(&disk, IMAGE / 8)?;
        BtrfsBackend.freeze(&self.work(), &self.root.join("big-2"))?;
        let (one, two) = (
            self.send("big-1", None)?,
            self.send("big-2", Some("big-1"))?,
        );
        let bare = self.root.join("bare");
        fs::create_dir(&bare)?;

        let machine: MachineName = "big".parse()?;
        let arrive = |intent, path: &Path| {
            time(|| {
                let stream = Stream::open(Patient::open(path)?)?;
                self.volume
                    .bring_in(intent, &machine, Source::Stream(stream))?;
                Ok(())
            })
        };
        let receive = |path: &PathBuf| {
            time(|| {
                Self::btrfs(
                    &["--quiet", "receive", "-e", "-f"],
                    &[path.clone(), bare.clone()],
                )?;
                // What we acknowledge is on the disk.
                Self::btrfs(&["filesystem", "sync"], std::slice::from_ref(&bare))
            })
        };
        let (mut add, mut upgrade) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for _ in 0..ROUNDS {
            add.0.push(arrive(Intent::Add, &one)?);
            upgrade.0.push(arrive(Intent::Upgrade, &two)?);
            self.volume.delete(&machine, LIMIT, false)?;
            self.volume.reclaim()?;
            add.1.push(receive(&one)?);
            upgrade.1.push(receive(&two)?);
            Self::btrfs(
                &["--quiet", "subvolume", "delete"],
                &[bare.join("big-2"), bare.join("big-1")],
            )?;
            self.volume.reclaim()?;
        }
        let row = |what, (ours, theirs): (Vec<_>, Vec<_>)| Row {
            what,
            ours: best(&ours),
            theirs: best(&theirs),
            means: "btrfs receive, then sync",
            goal: 1.05,
        };
        Ok(vec![
            row("add, 1 GiB", add),
            row("upgrade, 128 MiB of 1 GiB", upgrade),
        ])
    }

    /// The check of 1 GiB against its record.
    fn verify(&self) -> Fallible<Row> {
        let machine: MachineName = "checked".parse()?;
        let source = Source::Work(self.work());
        self.volume.bring_in(Intent::Add, &machine, source)?;
        let disk = self.volume.path().join("checked/checked/disk.img");
        let ours = || time(|| Ok(self.volume.verify(&machine, None).map(|_| ())?));
        let theirs = || {
            time(|| {
                let mut sum = command::prepare("sha256sum");
                sum.arg(&disk);
                command::run(sum, LIMIT)?;
                Ok(())
            })
        };
        let (ours, theirs) = compare(ROUNDS, ours, theirs)?;
        Ok(Row {
            what: "verify, 1 GiB",
            ours,
            theirs,
            means: "sha256sum",
            goal: 1.0,
        })
    }

    fn listing(&self) -> Fallible<(usize, Duration)> {
        let image = self.root.join("image");
        for machine in 0..100 {
            let directory = self.volume.path().join(format!("m{machine}"));
            fs::create_dir(&directory)?;
            for revision in 1..=10 {
                BtrfsBackend.freeze(&image, &directory.join(format!("m{machine}-{revision}")))?;
            }
            std::os::unix::fs::symlink(
                format!("m{machine}-10"),
                directory.join(format!("m{machine}")),
            )?;
        }
        let mut seen = 0;
        let time = time(|| {
            for machine in self.volume.machines()? {
                seen += usize::from(self.volume.look(&machine)?.revisions.len() == 10);
            }
            Ok(())
        })?;
        Ok((seen, time))
    }
}
