//! Death and failure at system calls, by strace, on real btrfs: whatever call
//! `machinectl`, its children or the other host's `machinectl` dies at or sees
//! failing, the machine is the old or the new one, and the next call goes on.
//! `BUILDHOST_LONG=1` tries every call, else a sample.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ::store::subvolumes::BtrfsBackend;
use ::store::{Intent, Source, SubvolumeBackend};
use ::sys::command::prepare;
use config::MachineName;
use tempfile::TempDir;
use tests::crash_consistency::OldOrNew;
use tests::fault_injection::Disturbed;
use tests::hosts::{Answer, BuildHost, DevelopmentHost, run};

/// What the disturbed call sees.
const DISTURBANCES: [&str; 3] = ["signal=KILL", "error=ENOSPC", "error=EIO"];
/// How many calls are disturbed in the normal run, in each of these ways.
const SAMPLE: usize = 3;

fn linux() -> MachineName {
    "linux".parse().unwrap()
}

/// A call that is disturbed: the command, with a stand-in for the program that dies.
type Call = Box<dyn Fn(&BuildHost, &Path) -> Command>;

/// A call, and everything that it needs to be tried again and again.
struct Scene {
    told: &'static str,
    host: BuildHost,
    kept: Kept,
    /// The program that is disturbed.
    victim: PathBuf,
    call: Call,
    input: Vec<u8>,
    apart: &'static [&'static str],
    /// See [`OldOrNew`].
    goes_on: bool,
}

impl Scene {
    /// A call of `machinectl` on a host as it is now.
    fn new(host: BuildHost, arguments: &'static [&'static str], input: &[u8]) -> Self {
        let call = |host: &BuildHost, program: &Path| {
            let plain = host.command(arguments);
            let mut command = prepare(program);
            command.args(plain.get_args());
            let variables = plain.get_envs();
            command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
            command
        };
        Self {
            told: arguments[0],
            kept: Kept::new(&host),
            host,
            victim: tests::program("machinectl"),
            call: Box::new(call),
            input: input.to_vec(),
            apart: &[],
            goes_on: true,
        }
    }

    /// The same, but it is a program started by `machinectl` that is disturbed.
    fn child(mut self, child: &str) -> Self {
        let call = std::mem::replace(&mut self.call, Box::new(|_, _| unreachable!()));
        self.victim = Path::new("/usr/bin").join(child);
        self.call = Box::new(move |host, stand_in| {
            let mut command = call(host, &tests::program("machinectl"));
            let before = stand_in.parent().unwrap().display();
            command.env(
                "PATH",
                format!("{before}:{}", std::env::var("PATH").unwrap()),
            );
            command
        });
        self
    }

    fn run(&self, program: &Path) -> Answer {
        run((self.call)(&self.host, program), &self.input)
    }

    /// Disturbs the call at each of its system calls in turn, in each of the ways.
    fn play(self) {
        let disturbed = Disturbed::new(&self.victim);
        let old = self.host.listing();
        self.run(&disturbed.path()).good();
        let points = disturbed.points(!tests::is_long());
        let new = self.host.listing();
        assert_ne!(old, new, "{}", self.told);
        let (apart, goes_on) = (self.apart, self.goes_on);
        let expected = OldOrNew {
            old,
            new,
            apart,
            goes_on,
        };
        self.kept.restore(&self.host, &expected);
        let step = if tests::is_long() {
            1
        } else {
            points.len().div_ceil(SAMPLE)
        };
        let mut trials = 0;
        for (round, what) in DISTURBANCES.into_iter().enumerate() {
            for (number, point) in points.iter().enumerate().skip(round % step).step_by(step) {
                disturbed.disturb(*point, what);
                let answer = self.run(&disturbed.path());
                if disturbed.has_been() {
                    trials += 1;
                    let told = format!("{}: {what} at {point}: {answer:?}", self.told);
                    let booted = !self.goes_on || (number + round) % 2 == 0;
                    self.check(&expected, &answer, booted, &told);
                }
                self.kept.restore(&self.host, &expected);
            }
        }
        let victim = self.victim.file_name().unwrap().display();
        let (told, points) = (self.told, points.len());
        println!("{told}: {victim} died or failed {trials} times at {points} system calls");
        assert!(trials > 3, "{trials}");
    }

    /// What the next start of the agent, or the next call, makes of it.
    fn check(&self, expected: &OldOrNew, answer: &Answer, booted: bool, told: &str) {
        let volume = &self.host.volume;
        if answer.code == Some(0) {
            assert!(expected.is_new(volume), "it was acknowledged: {told}");
        }
        expected.survives(volume, told, booted, || self.run(&self.victim));
    }
}

/// Everything of a volume, put by, to begin anew with.
struct Kept {
    machines: Vec<MachineName>,
    directory: PathBuf,
}

impl Kept {
    fn new(host: &BuildHost) -> Self {
        let directory = host.mount.directory("kept");
        let machines = host.volume.machines().unwrap();
        for machine in &machines {
            let to = directory.join(machine);
            fs::create_dir(&to).unwrap();
            copy(&host.volume.directory(machine), &to);
        }
        Self {
            machines,
            directory,
        }
    }

    fn restore(&self, host: &BuildHost, expected: &OldOrNew) {
        if host.listing() == expected.old {
            return;
        }
        for machine in host.volume.machines().unwrap() {
            let _ = host.volume.delete(&machine, Duration::ZERO, true);
            let _ = fs::remove_dir_all(host.volume.directory(&machine));
        }
        for machine in &self.machines {
            fs::create_dir(host.volume.directory(machine)).unwrap();
            copy(
                &self.directory.join(machine),
                &host.volume.directory(machine),
            );
        }
        assert_eq!(host.listing(), expected.old);
    }
}

/// Copies a machine's directory; subvolumes keep the identity they came with.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if let Ok(target) = fs::read_link(&from) {
            symlink(target, to).unwrap();
        } else if from.is_dir() {
            BtrfsBackend.freeze(&from, &to).unwrap();
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// Two hosts and the streams of two revisions.
struct Streams {
    one: Vec<u8>,
    two: Vec<u8>,
}

impl Streams {
    fn new() -> Self {
        let development = DevelopmentHost::new(256);
        let disk = vec![1; 100_000];
        let one: [(&str, &[u8]); 2] = [("disk.img", &disk), ("manifest", b": 1\n")];
        let two: [(&str, &[u8]); 2] = [("disk.img", b"two"), ("kernel", b"k")];
        development.image("linux-1", None, &one);
        development.image("linux-2", Some("linux-1"), &two);
        Self {
            one: development.send("linux-1", None),
            two: development.send("linux-2", Some("linux-1")),
        }
    }

    /// A host with as many revisions, and with something that a person put there.
    fn host(&self, revisions: usize) -> BuildHost {
        let host = BuildHost::new(256);
        let verbs = [("add", &self.one), ("upgrade", &self.two)];
        for (verb, stream) in &verbs[..revisions] {
            host.machinectl(&[verb, "linux"], stream).good();
        }
        tests::put(&host.volume.path().join("notes"), "mine");
        if revisions > 0 {
            tests::put(&host.volume.path().join("linux/notes"), "mine");
        }
        host
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn add_dies_or_fails_at_system_calls() {
    let streams = Streams::new();
    let scene = || Scene::new(streams.host(0), &["add", "linux"], &streams.one);
    scene().play();
    scene().child("btrfs").play();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn upgrade_dies_or_fails_at_system_calls() {
    let streams = Streams::new();
    let scene = || Scene {
        apart: &["linux/linux-2"],
        ..Scene::new(streams.host(1), &["upgrade", "linux"], &streams.two)
    };
    scene().play();
    scene().child("btrfs").play();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn delete_dies_or_fails_at_system_calls() {
    let streams = Streams::new();
    let host = streams.host(2);
    fs::remove_file(host.volume.path().join("linux/notes")).unwrap();
    host.machinectl(&["pin", "linux", "1"], b"").good();
    Scene::new(host, &["delete", "linux"], b"").play();
    // What is not ours stays, and its directory.
    Scene::new(streams.host(1), &["delete", "linux"], b"").play();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn rollback_and_pins_die_or_fail_at_system_calls() {
    let streams = Streams::new();
    Scene::new(streams.host(2), &["rollback", "linux", "1"], b"").play();
    Scene::new(streams.host(2), &["pin", "linux", "1"], b"").play();
    let host = streams.host(2);
    host.machinectl(&["pin", "linux", "1"], b"").good();
    Scene::new(host, &["unpin", "linux", "1"], b"").play();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn prune_dies_or_fails_at_system_calls() {
    let streams = Streams::new();
    let host = streams.host(2);
    for _ in 0..2 {
        let work = host.mount.path().join("work");
        BtrfsBackend.create(&work).unwrap();
        let source = Source::Work(work.clone());
        host.volume
            .bring_in(Intent::Upgrade, &linux(), source)
            .unwrap();
        BtrfsBackend.delete(&work).unwrap();
    }
    host.machinectl(&["pin", "linux", "2"], b"").good();
    Scene {
        apart: &["linux/linux-1", "linux/linux-3"],
        ..Scene::new(host, &["prune", "linux", "--keep", "1"], b"")
    }
    .play();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn what_cannot_be_looked_at_is_not_taken_for_a_stranger() {
    let streams = Streams::new();
    let question = &["prune", "linux", "--keep", "1", "--dry-run"];
    let scene = Scene::new(streams.host(2), question, b"");
    let disturbed = Disturbed::new(&scene.victim);
    let calm = scene.run(&disturbed.path()).good();
    for point in disturbed.points(false) {
        if point.to_string().starts_with("ioctl") {
            disturbed.disturb(point, "error=EIO");
            let answer = scene.run(&disturbed.path());
            let same = answer.stdout == calm.stdout;
            assert!(same || answer.code == Some(1), "{point}: {answer:?}");
        }
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn import_of_a_directory_dies_or_fails_at_system_calls() {
    let streams = Streams::new();
    let from = tree();
    let scene = || import(streams.host(0), from.path(), &[]);
    scene().play();
    scene().child("cp").play();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn import_of_an_archive_dies_or_fails_at_system_calls() {
    let streams = Streams::new();
    let (from, directory) = (tree(), tempfile::tempdir().unwrap());
    let archive = directory.path().join("machine.tar");
    let mut tar = prepare("tar");
    tar.arg("-cf").arg(&archive);
    tar.arg("-C").arg(from.path()).arg(".");
    run(tar, b"").good();
    let scene = || import(streams.host(1), &archive, &["linux/linux-2"]);
    scene().play();
    scene().child("tar").play();
}

/// A directory that can become a machine.
fn tree() -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("inside")).unwrap();
    tests::put(&tree.path().join("disk.img"), "disk");
    tests::put(&tree.path().join("inside/more"), "more");
    tree
}

/// Each import makes a revision of its own: the next one takes the next number.
fn import(host: BuildHost, source: &Path, apart: &'static [&'static str]) -> Scene {
    let mut scene = Scene::new(host, &["import", "linux"], b"");
    let call = std::mem::replace(&mut scene.call, Box::new(|_, _| unreachable!()));
    let source = source.to_owned();
    scene.call = Box::new(move |host, program| {
        let mut command = call(host, program);
        command.arg(&source);
        command
    });
    Scene {
        apart,
        goes_on: false,
        ..scene
    }
}

/// A host that pushes, and what stands for ssh: the other side is a process here.
struct Pusher {
    host: BuildHost,
    _directory: TempDir,
    ssh: PathBuf,
}

impl Pusher {
    fn new() -> Self {
        let host = BuildHost::new(256);
        let work = host.mount.path().join("work");
        BtrfsBackend.create(&work).unwrap();
        for (name, text) in [("manifest", ": 1\n"), ("kernel", "k")] {
            tests::put(&work.join(name), text);
            let there = !host.listing().is_empty();
            let intent = if there { Intent::Upgrade } else { Intent::Add };
            let source = Source::Work(work.clone());
            host.volume.bring_in(intent, &linux(), source).unwrap();
        }
        let directory = tempfile::tempdir().unwrap();
        let ssh = directory.path().join("ssh");
        let script = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nexec sh -c \"$3\"\n";
        tests::put(&ssh, script);
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            host,
            _directory: directory,
            ssh,
        }
    }

    fn push(&self, far: &BuildHost, program: &Path) -> Command {
        let mut command = self.host.command(&["push", "linux", "far"]);
        command.arg("--far-volume").arg(far.volume.path());
        command.arg("--far-program").arg(program);
        command.env("BUILDHOST_SSH", &self.ssh);
        command
    }

    /// The other side of a push dies; this side stays as it is.
    fn play(self, far: BuildHost, apart: &'static [&'static str]) {
        let host = self.host.listing();
        let before = move |now: &Self| assert_eq!(now.host.listing(), host);
        let scene = Scene::new(far, &["push"], b"");
        let call: Call = Box::new(move |far, program| {
            before(&self);
            self.push(far, program)
        });
        Scene {
            call,
            apart,
            ..scene
        }
        .play();
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn the_other_side_of_a_push_dies_or_fails_at_system_calls() {
    Pusher::new().play(BuildHost::new(256), &[]);
    let (pusher, far) = (Pusher::new(), BuildHost::new(256));
    let sources = &pusher.host.volume;
    sources.set_current(&linux(), config::Revision(1)).unwrap();
    let program = tests::program("machinectl");
    run(pusher.push(&far, &program), b"").good();
    sources.set_current(&linux(), config::Revision(2)).unwrap();
    pusher.play(far, &["linux/linux-2"]);
}

/// The program that publishes an image, in a process that can be killed.
const PUBLISH_IMAGE: &str = env!("CARGO_BIN_EXE_publish-image");

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn publishing_an_image_dies_or_fails_at_system_calls() {
    let streams = Streams::new();
    let publish = |host: &BuildHost, program: &Path| {
        let mut command = prepare(program);
        command.arg(host.volume.path());
        // A backtrace of each injected error would take longer than all the rest.
        command.env("RUST_BACKTRACE", "0");
        command
    };
    let scene = |host| Scene {
        told: "publish",
        victim: PUBLISH_IMAGE.into(),
        call: Box::new(publish),
        ..Scene::new(host, &["list"], b"")
    };
    scene(streams.host(1)).play();
    // An image of another revision is replaced.
    let host = streams.host(1);
    run(publish(&host, Path::new(PUBLISH_IMAGE)), b"").good();
    host.machinectl(&["upgrade", "linux"], &streams.two).good();
    scene(host).play();
}
