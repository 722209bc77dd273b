//! `image make` with recipes: what it makes, and that a failure leaves nothing.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use ::sys::command;
use config::task::Outcome;
use tempfile::TempDir;
use tests::agent::AgentHost;
use tests::guest_files::StaticWorker;
use tests::hosts::{BuildHost, CommandOutput, run};
use tests::mount::Mount;
use tests::{wait_until, write_file};

/// A recipe that makes a container of the host's busybox.
const BUSYBOX: &str = "#!/bin/sh
set -eu
[ \"$BUILDHOST_KIND\" = nspawn ] && [ -x \"$BUILDHOST_GUEST/guest\" ]
mkdir -p \"$1/usr/bin\" \"$1/etc\"
for name in bin sbin; do ln -s usr/bin \"$1/$name\"; done
ln -s bin \"$1/usr/sbin\"
cp /bin/busybox \"$1/usr/bin/\"
for applet in $(busybox --list | grep -vx busybox); do ln -sf busybox \"$1/usr/bin/$applet\"; done
echo root:x:0:0:root:/root:/bin/sh >\"$1/etc/passwd\"
chown 33:33 \"$1/etc/passwd\"
cat \"${0%/*}/motd\" >\"$1/etc/motd\"
";

/// A host, a recipe, and a directory for temporary files.
struct Fixture {
    host: BuildHost,
    worker: StaticWorker,
    files: TempDir,
}

impl Fixture {
    fn new(recipe: &str) -> Self {
        let fixture = Self {
            host: BuildHost::new(1024),
            worker: StaticWorker::extract(),
            files: tempfile::tempdir().unwrap(),
        };
        write_recipe(fixture.files.path(), recipe);
        fs::create_dir(fixture.work()).unwrap();
        fixture
    }

    fn work(&self) -> PathBuf {
        self.files.path().join("work")
    }

    /// Returns the arguments that make a machine without other messages than errors, and then these.
    fn arguments(&self, more: &[&str]) -> Vec<String> {
        let (worker, work) = (self.worker.path(), self.work().display().to_string());
        let make = ["image", "make", "box", "--quiet", "--worker"];
        let all = [&make, &[&*worker, "--work", &work][..], more].concat();
        all.into_iter().map(str::to_owned).collect()
    }

    fn make(&self, more: &[&str]) -> CommandOutput {
        let arguments = self.arguments(more);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        self.host.machinectl(&arguments, b"")
    }

    /// Makes a container by the recipe.
    fn make_by_recipe(&self) -> CommandOutput {
        self.make(&["--kind", "nspawn", "--recipe", &self.recipe()])
    }

    fn recipe(&self) -> String {
        self.files.path().join("recipe").display().to_string()
    }

    /// Returns all that is left of the machine and of its making.
    fn left(&self) -> Vec<String> {
        let work = ::sys::file::entries(&self.work()).unwrap();
        let work = work.iter().map(|path| path.display().to_string());
        work.chain(self.host.listing()).collect()
    }
}

fn write_recipe(directory: &Path, text: &str) {
    let recipe = directory.join("recipe");
    write_file(&recipe, text);
    for (path, mode) in [(directory, 0o755), (&recipe, 0o755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let motd = directory.join("motd");
    write_file(&motd, "a file beside the recipe\n");
    fs::set_permissions(motd, fs::Permissions::from_mode(0o644)).unwrap();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_recipe_makes_a_container_that_builds() {
    let (worker, files) = (StaticWorker::extract(), tempfile::tempdir().unwrap());
    let mut host = AgentHost::new("");
    write_recipe(files.path(), BUSYBOX);
    let recipe = files.path().join("recipe").display().to_string();
    let path = worker.path();
    let make = [
        "image", "make", "box", "--recipe", &recipe, "--kind", "nspawn", "--worker", &path,
    ];
    host.host.machinectl(&make, b"").success();
    let root = host.host.volume.path().join("box/box-1/root");
    let owner =
        |name: &str| std::os::unix::fs::MetadataExt::uid(&root.join(name).metadata().unwrap());
    assert_eq!((owner("etc/passwd"), owner("usr/bin/busybox")), (33, 0));
    assert!(
        fs::read_to_string(root.join("etc/motd"))
            .unwrap()
            .contains("beside")
    );

    worker.add_toolchain(&host, "shell", &[]);
    host.start();
    let script = files.path().join("any-name");
    write_file(
        &script,
        "echo made >artifacts/file; mkdir -p \"$HOME\"; exit 0\n",
    );
    let script = script.display().to_string();
    host.machinectl(&["build", "box", &script, "--follow"])
        .success();
    let built = host.build(1);
    assert_eq!(built.outcome, Some(Outcome::Success), "{}", host.log_of(1));
    assert_eq!(built.artifacts[0].name.as_str(), "file");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_recipe_reaches_nothing_of_the_host() {
    let fixture = Fixture::new(
        "#!/bin/sh
        for path in /root /home /etc/shadow /var/lib /run; do [ ! -r $path ] || echo reads $path; done
        for path in /usr /etc/apt / /guest; do ! touch $path/planted 2>/dev/null || echo writes $path; done
        [ $(ls -d /proc/[0-9]* | wc -l) -lt 6 ] || echo sees processes
        ln -s /etc/passwd /target/out/root.tar
        exit 7
        ",
    );
    let answer = fixture.make_by_recipe();
    assert!(
        answer.stderr.contains("it has printed nothing"),
        "{answer:?}"
    );
    answer.refused(1, "exit status: 7");
    assert_eq!(fixture.left(), [""; 0]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_link_in_place_of_a_result_is_refused() {
    let link = "set -eu\nln -s /target/elsewhere /target/out/root.tar\n";
    let fixture = Fixture::new(&BUSYBOX.replace("set -eu\n", link));
    fixture.make_by_recipe().refused(3, "no usable `root.tar`");
    assert_eq!(fixture.left(), [""; 0]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_link_in_place_of_the_directory_of_results_leads_to_no_file_of_the_host() {
    let link = "set -eu\nrmdir /target/out\nln -s /tmp /target/out\n";
    let fixture = Fixture::new(&BUSYBOX.replace("set -eu\n", link));
    let of_host = Path::new("/tmp/root.tar");
    write_file(of_host, "a file of the host");
    let answer = fixture.make_by_recipe();
    assert!(of_host.exists(), "{answer:?}");
    fs::remove_file(of_host).unwrap();
    answer.refused(3, "no usable `root.tar`");
    assert_eq!(fixture.left(), [""; 0]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_failed_making_is_one_message_and_leaves_nothing() {
    let fixture = Fixture::new("#!/bin/sh\necho the mirror is closed >&2\nexit 3\n");
    fixture
        .make_by_recipe()
        .refused(1, "exit status: 3): the mirror is closed");
    let nothing = "#!/bin/sh\ntrue\n";
    write_recipe(fixture.files.path(), nothing);
    fixture
        .make_by_recipe()
        .refused(1, "has made no root file system");
    // Nothing listens there.
    let closed = [
        "--debian",
        "bookworm",
        "--mirror",
        "http://127.0.0.1:9/debian",
    ];
    fixture.make(&closed).refused(1, "127.0.0.1");
    fixture
        .make(&["--debian", "bookworm", "--mirror", "/srv"])
        .refused(3, "http://");
    let private = fixture.files.path().join("recipe");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    fixture.make_by_recipe().refused(3, "chmod 755");
    fixture
        .make(&["--recipe", "/nowhere"])
        .refused(3, "No such file");
    let mut command = fixture.host.command(&[]);
    command.args(fixture.arguments(&["--debian", "bookworm"]));
    command.env("PATH", "/nowhere");
    run(command, b"").refused(3, "apt-get install mmdebstrap");
    assert_eq!(fixture.left(), [""; 0]);
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_virtual_machine_without_a_service_or_a_kernel_is_refused() {
    let recipe = BUSYBOX.replace("= nspawn", "= kvm");
    let fixture = Fixture::new(&recipe);
    let path = fixture.recipe();
    let make = || fixture.make(&["--recipe", &path, "--size", "64M"]);
    make().refused(1, "nothing starts /usr/lib/buildhost/guest");
    let service = "echo ::once:/usr/lib/buildhost/guest >\"$1/etc/inittab\"\n";
    write_recipe(fixture.files.path(), &format!("{recipe}{service}"));
    make().refused(1, "has no kernel");
    let kernel = "mkdir \"$1/boot\"\necho kernel >\"$1/boot/vmlinuz-6.1\"\n";
    write_recipe(fixture.files.path(), &format!("{recipe}{service}{kernel}"));
    make().success();
    let listing = fixture.host.listing();
    let has = |name: &str| listing.iter().any(|it| it.contains(name));
    assert!(has("box-1/vmlinuz") && has("box-1/disk.img"), "{listing:?}");
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_full_disk_is_reported_as_such() {
    let recipe = "#!/bin/sh\nmkdir \"$1/etc\"\nexec head -c 1G /dev/zero >\"$1/file\"\n";
    let fixture = Fixture::new(recipe);
    let small = Mount::btrfs(128);
    let mut bind = command::prepare("mount");
    bind.arg("--bind").args([small.path(), &fixture.work()]);
    command::run(bind, Duration::from_mins(1)).unwrap();
    let answer = fixture.make_by_recipe();
    answer.refused(16, "No space left on device");
    assert!(::sys::file::entries(small.path()).unwrap().is_empty());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_killed_making_leaves_nothing() {
    let fixture = Fixture::new("");
    // It accepts connections and never answers.
    let mirror = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/debian", mirror.local_addr().unwrap());
    let mut command = fixture.host.command(&[]);
    command.args(fixture.arguments(&["--debian", "bookworm", "--mirror", &address]));
    let mut making = command.stdout(Stdio::null()).spawn().unwrap();
    let connection = mirror.accept().unwrap();
    assert_eq!(::sys::file::entries(&fixture.work()).unwrap().len(), 1);
    making.kill().unwrap();
    making.wait().unwrap();
    wait_until("its directory is deleted", || fixture.left().is_empty());
    // The other end of the connection has ended.
    connection
        .0
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    std::io::copy(&mut &connection.0, &mut std::io::sink()).unwrap();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_container_whose_init_is_systemd_is_refused() {
    let (host, files) = (BuildHost::new(256), tempfile::tempdir().unwrap());
    let root = files.path().join("root");
    for directory in ["sbin", "lib/systemd"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    write_file(&root.join("lib/systemd/systemd"), "");
    std::os::unix::fs::symlink("/lib/systemd/systemd", root.join("sbin/init")).unwrap();
    let manifest = ": 1\nid: x\nsummary: y\ntype: nspawn\n";
    write_file(&files.path().join("manifest"), manifest);
    let path = files.path().display().to_string();
    let answer = host.machinectl(&["import", "linux", &path], b"");
    answer.refused(3, "/sbin/init must be a script");
    assert!(host.listing().is_empty(), "{:?}", host.listing());
}
