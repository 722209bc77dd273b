//! Faults at system calls on real btrfs: `machinectl`, a child of it or the remote `machinectl` is
//! killed or sees an error at a call, injected by strace. The machine is then in its old or its new
//! state, and a repeated command completes the change. `BUILDHOST_LONG=1` tries every call instead
//! of a sample.

mod transfers;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ::store::subvolumes::BtrfsBackend;
use ::store::{Intent, Source, SubvolumeBackend};
use ::sys::command::prepare;
use config::{MachineName, Revision};
use tempfile::TempDir;
use tests::crash_consistency::OldOrNew;
use tests::fault_injection::TracedProgram;
use tests::hosts::{BuildHost, CommandOutput, DevelopmentHost, run};
use tests::random::Xorshift;

/// The injected faults, in strace's notation.
const FAULTS: [&str; 3] = ["signal=KILL", "error=ENOSPC", "error=EIO"];
/// The number of calls into which the short run injects each fault.
const SAMPLE: usize = 3;

fn linux() -> MachineName {
    "linux".parse().unwrap()
}

/// A function that returns the command under test, which starts the given program in place of the
/// victim.
type Call = Box<dyn Fn(&BuildHost, &Path) -> Command>;

/// A call that succeeds after a fault and leads to the new state.
type Completion = Box<dyn Fn(&BuildHost) -> CommandOutput>;

/// A command that is repeated with a fault at each of its system calls in turn.
struct FaultTest {
    name: &'static str,
    host: BuildHost,
    backup: VolumeBackup,
    /// The program that is killed or sees an error.
    victim: PathBuf,
    call: Call,
    input: Vec<u8>,
    /// The preparation of the host before each call.
    prepare: Box<dyn Fn(&BuildHost)>,
    /// The call that completes the change; `None` if the command itself does.
    completion: Option<Completion>,
    /// See [`OldOrNew`].
    separate_parts: &'static [&'static str],
    /// See [`OldOrNew`].
    is_repeatable: bool,
}

impl FaultTest {
    /// Creates a test of a `machinectl` command on a host in its current state.
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
            name: arguments[0],
            backup: VolumeBackup::new(&host),
            host,
            victim: tests::program("machinectl"),
            call: Box::new(call),
            input: input.to_vec(),
            prepare: Box::new(|_| ()),
            completion: None,
            separate_parts: &[],
            is_repeatable: true,
        }
    }

    /// Injects the faults into a program that `machinectl` starts instead of `machinectl` itself.
    fn in_child(mut self, child: &str) -> Self {
        let call = std::mem::replace(&mut self.call, Box::new(|_, _| unreachable!()));
        self.victim = Path::new("/usr/bin").join(child);
        self.call = Box::new(move |host, wrapper| {
            let mut command = call(host, &tests::program("machinectl"));
            let directory = wrapper.parent().unwrap().display();
            command.env(
                "PATH",
                format!("{directory}:{}", std::env::var("PATH").unwrap()),
            );
            command
        });
        self
    }

    /// Sets the parts of the volume that change separately.
    fn with_separate_parts(self, separate_parts: &'static [&'static str]) -> Self {
        Self {
            separate_parts,
            ..self
        }
    }

    fn run(&self, program: &Path) -> CommandOutput {
        run((self.call)(&self.host, program), &self.input)
    }

    /// Runs the command without faults, and completes the change.
    fn complete(&self, program: &Path) -> CommandOutput {
        match &self.completion {
            Some(completion) => completion(&self.host),
            None => self.run(program),
        }
    }

    fn reset(&self, expected: &OldOrNew) {
        self.backup.restore(&self.host, expected);
        (self.prepare)(&self.host);
    }

    /// Runs the command with each fault at each of its system calls in turn, and checks the volume
    /// after each run.
    fn run_all(self) {
        let traced = TracedProgram::new(&self.victim);
        let old = self.host.listing();
        (self.prepare)(&self.host);
        let undisturbed = self.run(&traced.path());
        let points = traced.fault_points(!tests::is_long_run());
        if undisturbed.code != Some(0) {
            let completion = self.completion.as_ref();
            completion.unwrap_or_else(|| panic!("{undisturbed:?}"))(&self.host).success();
        }
        let new = self.host.listing();
        assert_ne!(old, new, "{}", self.name);
        let expected = OldOrNew {
            old,
            new,
            separate_parts: self.separate_parts,
            is_repeatable: self.is_repeatable,
        };
        self.reset(&expected);
        let step = if tests::is_long_run() {
            1
        } else {
            points.len().div_ceil(SAMPLE)
        };
        let mut trials = 0;
        for (round, fault) in FAULTS.into_iter().enumerate() {
            for (number, point) in points.iter().enumerate().skip(round % step).step_by(step) {
                traced.inject(*point, fault);
                let output = self.run(&traced.path());
                if traced.was_hit() {
                    trials += 1;
                    let context = format!("{}: {fault} at {point}: {output:?}", self.name);
                    let is_rebooted = !self.is_repeatable || (number + round) % 2 == 0;
                    self.check(&expected, &output, is_rebooted, &context);
                }
                self.reset(&expected);
            }
        }
        let victim = self.victim.file_name().unwrap().display();
        let (name, points) = (self.name, points.len());
        println!("{name}: {trials} faults in {victim} at {points} system calls");
        assert!(trials > 3, "{trials}");
    }

    /// Checks the volume after a run with a fault. `context` describes the fault in messages.
    fn check(&self, expected: &OldOrNew, output: &CommandOutput, is_rebooted: bool, context: &str) {
        let volume = &self.host.volume;
        if output.code == Some(0) {
            assert!(expected.is_new(volume), "acknowledged: {context}");
        }
        expected.check_recovery(volume, context, is_rebooted, || self.complete(&self.victim));
    }
}

/// A backup of all machines of a volume.
struct VolumeBackup {
    machines: Vec<MachineName>,
    directory: PathBuf,
}

impl VolumeBackup {
    fn new(host: &BuildHost) -> Self {
        let directory = host.mount.directory("backup");
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

/// Copies a machine's directory. Subvolumes keep their received identity.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if let Ok(target) = fs::read_link(&from) {
            symlink(target, to).unwrap();
        } else if from.is_dir() {
            BtrfsBackend.snapshot_read_only(&from, &to).unwrap();
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

/// A full stream of revision 1 and an incremental stream of revision 2 of `linux`.
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

    /// Returns streams of revisions with content manifests.
    fn with_manifests() -> Self {
        let sender = BuildHost::new(256);
        let work = sender.mount.path().join("work");
        BtrfsBackend.create(&work).unwrap();
        let mut random = Xorshift::new(3);
        let mut known = Vec::new();
        let mut send = |intent, revision, bytes| {
            let content = random.bytes(bytes);
            BtrfsBackend
                .write(&work.join("disk.img"), &content)
                .unwrap();
            let source = Source::working_subvolume(work.clone());
            sender.volume.ingest(intent, &linux(), source).unwrap();
            let outgoing = sender
                .volume
                .send_to(2, &linux(), Some(revision), &known)
                .unwrap();
            let view = sender.view("linux");
            known.extend(view.revisions.iter().map(|it| it.uuid));
            let mut bytes = Vec::new();
            outgoing.stream.copy_to(&mut bytes).unwrap();
            bytes
        };
        Self {
            one: send(Intent::Add, Revision(1), 100_000),
            two: send(Intent::Upgrade, Revision(2), 150_000),
        }
    }

    /// Creates a host with this number of revisions and with unmanaged files.
    fn host(&self, revisions: usize) -> BuildHost {
        let host = BuildHost::new(256);
        let verbs = [("add", &self.one), ("upgrade", &self.two)];
        for (verb, stream) in &verbs[..revisions] {
            host.machinectl(&[verb, "linux"], stream).success();
        }
        tests::write_file(&host.volume.path().join("notes"), "mine");
        if revisions > 0 {
            tests::write_file(&host.volume.path().join("linux/notes"), "mine");
        }
        host
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn add_recovers_from_faults_at_system_calls() {
    let streams = Streams::new();
    let test = || FaultTest::new(streams.host(0), &["add", "linux"], &streams.one);
    test().run_all();
    test().in_child("btrfs").run_all();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn upgrade_recovers_from_faults_at_system_calls() {
    let streams = Streams::new();
    let test = || {
        let test = FaultTest::new(streams.host(1), &["upgrade", "linux"], &streams.two);
        test.with_separate_parts(&["linux/linux-2"])
    };
    test().run_all();
    test().in_child("btrfs").run_all();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn delete_recovers_from_faults_at_system_calls() {
    let streams = Streams::new();
    let host = streams.host(2);
    fs::remove_file(host.volume.path().join("linux/notes")).unwrap();
    host.machinectl(&["pin", "linux", "1"], b"").success();
    FaultTest::new(host, &["delete", "linux", "--force"], b"").run_all();
    // Unmanaged files stay, and their directory.
    FaultTest::new(streams.host(1), &["delete", "linux"], b"").run_all();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn rollback_and_pins_recover_from_faults_at_system_calls() {
    let streams = Streams::new();
    FaultTest::new(streams.host(2), &["rollback", "linux", "1"], b"").run_all();
    FaultTest::new(streams.host(2), &["pin", "linux", "1"], b"").run_all();
    let host = streams.host(2);
    host.machinectl(&["pin", "linux", "1"], b"").success();
    FaultTest::new(host, &["unpin", "linux", "1"], b"").run_all();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn prune_recovers_from_faults_at_system_calls() {
    let streams = Streams::new();
    let host = streams.host(2);
    for _ in 0..2 {
        let work = host.mount.path().join("work");
        BtrfsBackend.create(&work).unwrap();
        let source = Source::working_subvolume(work.clone());
        host.volume
            .ingest(Intent::Upgrade, &linux(), source)
            .unwrap();
        BtrfsBackend.delete(&work).unwrap();
    }
    host.machinectl(&["pin", "linux", "2"], b"").success();
    FaultTest::new(host, &["prune", "linux", "--keep", "1"], b"")
        .with_separate_parts(&["linux/linux-1", "linux/linux-3"])
        .run_all();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn subvolumes_that_cannot_be_inspected_are_not_reported_as_unmanaged() {
    let streams = Streams::new();
    let query = &["prune", "linux", "--keep", "1", "--dry-run"];
    let test = FaultTest::new(streams.host(2), query, b"");
    let traced = TracedProgram::new(&test.victim);
    let undisturbed = test.run(&traced.path()).success();
    for point in traced.fault_points(false) {
        if point.to_string().starts_with("ioctl") {
            traced.inject(point, "error=EIO");
            let output = test.run(&traced.path());
            let is_same = output.stdout == undisturbed.stdout;
            assert!(is_same || output.code == Some(1), "{point}: {output:?}");
        }
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn import_of_a_directory_recovers_from_faults_at_system_calls() {
    let streams = Streams::new();
    let from = tree();
    let test = || import(streams.host(0), from.path(), &[]);
    test().run_all();
    test().in_child("cp").run_all();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn import_of_an_archive_recovers_from_faults_at_system_calls() {
    let streams = Streams::new();
    let (from, directory) = (tree(), tempfile::tempdir().unwrap());
    let archive = directory.path().join("machine.tar");
    let mut tar = prepare("tar");
    tar.arg("-cf").arg(&archive);
    tar.arg("-C").arg(from.path()).arg(".");
    run(tar, b"").success();
    let test = || import(streams.host(1), &archive, &["linux/linux-2"]);
    test().run_all();
    test().in_child("tar").run_all();
}

/// Creates a directory that can be imported as a machine.
fn tree() -> TempDir {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("inside")).unwrap();
    tests::write_file(&tree.path().join("disk.img"), "disk");
    tests::write_file(&tree.path().join("inside/more"), "more");
    tree
}

/// Returns a test of `import`, which is not repeatable: each import creates a new revision.
fn import(host: BuildHost, source: &Path, separate_parts: &'static [&'static str]) -> FaultTest {
    let mut test = FaultTest::new(host, &["import", "linux"], b"");
    let call = std::mem::replace(&mut test.call, Box::new(|_, _| unreachable!()));
    let source = source.to_owned();
    test.call = Box::new(move |host, program| {
        let mut command = call(host, program);
        command.arg(&source);
        command
    });
    test.is_repeatable = false;
    test.with_separate_parts(separate_parts)
}

/// A host that pushes, and a fake ssh that runs the remote command on this host.
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
            tests::write_file(&work.join(name), text);
            let is_new = host.listing().is_empty();
            let intent = if is_new { Intent::Add } else { Intent::Upgrade };
            let source = Source::working_subvolume(work.clone());
            host.volume.ingest(intent, &linux(), source).unwrap();
        }
        let directory = tempfile::tempdir().unwrap();
        let ssh = directory.path().join("ssh");
        let script = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nexec sh -c \"$3\"\n";
        tests::write_file(&ssh, script);
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            host,
            _directory: directory,
            ssh,
        }
    }

    fn push(&self, remote: &BuildHost, program: &Path) -> Command {
        let mut command = self.host.command(&["push", "linux", "remote"]);
        command.arg("--remote-volume").arg(remote.volume.path());
        command.arg("--remote-program").arg(program);
        command.env("BUILDHOST_SSH", &self.ssh);
        command
    }

    /// Injects faults into the remote side of a push. This side must not change.
    fn run_all(self, remote: BuildHost, separate_parts: &'static [&'static str]) {
        let before = self.host.listing();
        let mut test = FaultTest::new(remote, &["push"], b"");
        test.call = Box::new(move |remote, program| {
            assert_eq!(self.host.listing(), before);
            self.push(remote, program)
        });
        test.with_separate_parts(separate_parts).run_all();
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn push_recovers_from_faults_at_system_calls_of_the_remote_host() {
    Pusher::new().run_all(BuildHost::new(256), &[]);
    let (pusher, remote) = (Pusher::new(), BuildHost::new(256));
    let sources = &pusher.host.volume;
    sources.set_current(&linux(), Revision(1)).unwrap();
    let program = tests::program("machinectl");
    run(pusher.push(&remote, &program), b"").success();
    sources.set_current(&linux(), Revision(2)).unwrap();
    pusher.run_all(remote, &["linux/linux-2"]);
}

/// The program that publishes an image, in a process that can be killed.
const PUBLISH_IMAGE: &str = env!("CARGO_BIN_EXE_publish-image");

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn publishing_an_image_recovers_from_faults_at_system_calls() {
    let streams = Streams::new();
    let publish = |host: &BuildHost, program: &Path| {
        let mut command = prepare(program);
        command.arg(host.volume.path());
        // A backtrace of each injected error would take longer than all the rest.
        command.env("RUST_BACKTRACE", "0");
        command
    };
    let test = |host| FaultTest {
        name: "publish",
        victim: PUBLISH_IMAGE.into(),
        call: Box::new(publish),
        ..FaultTest::new(host, &["list"], b"")
    };
    test(streams.host(1)).run_all();
    // An image of another revision is replaced.
    let host = streams.host(1);
    run(publish(&host, Path::new(PUBLISH_IMAGE)), b"").success();
    host.machinectl(&["upgrade", "linux"], &streams.two)
        .success();
    test(host).run_all();
}
