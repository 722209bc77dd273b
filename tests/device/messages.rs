//! Messages that name the cause and the remedy: a table of situations on real btrfs.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::store::SubvolumeBackend;
use ::store::subvolumes::BtrfsBackend;
use rustix::fs::{Mode, OFlags};
use tests::hosts::{BuildHost, CommandOutput, run};
use tests::mount::enter_own_namespace;
use tests::ssh::SshServer;
use tests::write_file;

const BANNER: &str = "Only for employees of the farm";

/// A development host with machine `linux` and its working subvolume, and a build host that has
/// the machine, too.
struct Fixture {
    here: BuildHost,
    remote: BuildHost,
    files: tempfile::TempDir,
}

impl Fixture {
    fn new(server: &SshServer) -> Self {
        let fixture = Self {
            here: BuildHost::new(256),
            remote: BuildHost::new(256),
            files: tempfile::tempdir().unwrap(),
        };
        let work = fixture.here.mount.path().join("work");
        BtrfsBackend.create(&work).unwrap();
        write_file(&work.join("manifest"), ": 1\nid: linux\nsummary: Linux\n");
        write_file(&work.join("disk.img"), "disk");
        let elsewhere = fixture.remote.mount.path().join("image");
        BtrfsBackend.create(&elsewhere).unwrap();
        fixture
            .run("push linux HOST --from WORK", &server.ssh())
            .success();
        fixture
    }

    /// Runs a command line, in which words in capitals stand for paths, with this ssh.
    fn run(&self, line: &str, ssh: &str) -> CommandOutput {
        let line = line
            .replace("HOST", "root@127.0.0.1")
            .replace("WORK", &path(self.here.mount.path().join("work")))
            .replace("ELSEWHERE", &path(self.remote.mount.path().join("image")))
            .replace("FILES", &path(self.files.path().to_owned()));
        let mut command = self.here.command(&line.split(' ').collect::<Vec<_>>());
        command.env("BUILDHOST_SSH", ssh);
        if line.contains("root@") {
            command.arg("--remote-volume");
            command.arg(self.remote.volume.path());
        }
        if line.contains("root@") && !line.contains("--remote-program") {
            command.arg("--remote-program");
            command.arg(tests::program("machinectl"));
        }
        run(command, b"")
    }

    /// Returns the directory of the machine on a host.
    fn machine(host: &BuildHost) -> PathBuf {
        host.volume.path().join("linux")
    }
}

fn path(path: PathBuf) -> String {
    path.into_os_string().into_string().unwrap()
}

fn call(program: &str, arguments: &[&str]) {
    let mut command = ::sys::command::prepare(program);
    command.args(arguments);
    ::sys::command::run(command, Duration::from_mins(1)).unwrap();
}

/// Starts an sshd that sees the volumes of hosts that are created later.
fn server(banner: &str) -> SshServer {
    enter_own_namespace();
    SshServer::start_with_banner(banner)
}

/// Makes the current link lead to a revision that does not exist.
fn break_link(host: &BuildHost) {
    let link = Fixture::machine(host).join("linux");
    fs::remove_file(&link).unwrap();
    symlink("linux-9", &link).unwrap();
}

/// Creates a directory whose path is longer than the kernel accepts.
fn create_deep_directory(top: &Path) {
    let name = "d".repeat(250);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut directory: OwnedFd = fs::File::open(top).unwrap().into();
    for _ in 0..20 {
        rustix::fs::mkdirat(&directory, &name, Mode::RWXU).unwrap();
        directory = rustix::fs::openat(&directory, &name, flags, Mode::empty()).unwrap();
    }
}

/// A situation, and the answer in it.
struct Situation {
    /// The situation in a few words.
    name: &'static str,
    prepare: fn(&Fixture),
    line: &'static str,
    code: i32,
    /// The texts in the answer.
    words: &'static [&'static str],
    /// The texts that are not in the answer.
    absent: &'static [&'static str],
}

/// Runs each command in its situation.
fn check(situations: &[Situation], server: &SshServer, ssh: &str) {
    for it in situations {
        let fixture = Fixture::new(server);
        (it.prepare)(&fixture);
        let output = fixture.run(it.line, ssh);
        let (name, text) = (it.name, format!("{}{}", output.stdout, output.stderr));
        assert_eq!(output.code, Some(it.code), "{name}: {output:?}");
        for word in it.words {
            assert!(text.contains(word), "{name} lacks `{word}`: {output:?}");
        }
        for word in it
            .absent
            .iter()
            .chain(&[BANNER, "os error", "exit status: 1)"])
        {
            assert!(!text.contains(word), "{name} has `{word}`: {output:?}");
        }
        if it.code != 0 && !it.line.starts_with("doctor") {
            let errors = text.lines().filter(|line| line.starts_with("machinectl: "));
            assert_eq!(errors.count(), 1, "{name}: {output:?}");
        }
        println!("{name} ({}):\n{text}", it.code);
    }
}

fn nothing(_: &Fixture) {}

const HERE: &[Situation] = &[
    Situation {
        name: "a revision is the default subvolume",
        prepare: |fixture| {
            let revision = path(Fixture::machine(&fixture.here).join("linux-1"));
            call("btrfs", &["subvolume", "set-default", &revision]);
        },
        line: "delete linux",
        code: 3,
        words: &[
            "linux-1` is the default subvolume of its file system",
            "`btrfs subvolume set-default 5 ",
        ],
        absent: &["is being sent"],
    },
    Situation {
        name: "a working subvolume contains an active swap file",
        prepare: |fixture| {
            let file = path(fixture.here.mount.path().join("work/swap"));
            call(
                "btrfs",
                &["filesystem", "mkswapfile", "--size", "8M", &file],
            );
            call("swapon", &[&file]);
        },
        line: "upgrade linux --from WORK",
        code: 3,
        words: &["/work` contains an active swap file", "`swapoff FILE`"],
        absent: &[],
    },
    Situation {
        name: "a writable subvolume is on another file system",
        prepare: nothing,
        line: "add other --from ELSEWHERE",
        code: 3,
        words: &[
            "is writable and on another file system",
            "`btrfs property set -ts ",
            "`buildhost import`",
        ],
        absent: &["ERROR"],
    },
    Situation {
        name: "the link here is broken, and something is imported",
        prepare: |fixture| break_link(&fixture.here),
        line: "import linux WORK",
        code: 0,
        words: &["revision 2 is now current"],
        absent: &[],
    },
    Situation {
        name: "an archive has a top directory",
        prepare: |fixture| {
            let top = fixture.files.path().join("top");
            fs::create_dir(&top).unwrap();
            write_file(&top.join("disk.img"), "disk");
            let (archive, from) = (
                path(fixture.files.path().join("a.tar")),
                path(fixture.files.path().to_owned()),
            );
            call("tar", &["-C", &from, "-cf", &archive, "top"]);
        },
        line: "import other FILES/a.tar",
        code: 3,
        words: &[
            "/a.tar` has neither `disk.img` nor `manifest`",
            "its files lie in `top/` and not at the top",
        ],
        absent: &["machines/other"],
    },
    Situation {
        name: "revisions were made on a development host",
        prepare: |fixture| {
            fixture.run("upgrade linux --from WORK -q", "").success();
        },
        line: "doctor",
        code: 0,
        words: &["no problems found"],
        absent: &["was not received"],
    },
    Situation {
        name: "the link leads to a writable revision",
        prepare: |fixture| {
            let revision = Fixture::machine(&fixture.here).join("linux-1");
            libbtrfsutil::set_subvolume_read_only(&revision, false).unwrap();
        },
        line: "doctor",
        code: 22,
        words: &[
            "`buildhost rollback linux`",
            "`btrfs property set -ts linux-1 ro true`",
        ],
        absent: &["settle"],
    },
];

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn messages_about_this_host_name_cause_and_remedy() {
    let server = server("");
    check(HERE, &server, &server.ssh());
}

const REMOTE: &[Situation] = &[
    Situation {
        name: "the link on the remote host is broken, and a revision is pushed",
        prepare: |fixture| break_link(&fixture.remote),
        line: "push linux HOST --from WORK",
        code: 0,
        words: &[
            "not in service on root@127.0.0.1: its link leads to revision 9, which does not exist",
            "revision 2 is now current on",
        ],
        absent: &[],
    },
    Situation {
        name: "the link on the remote host is broken, and the same revision is pushed",
        prepare: |fixture| break_link(&fixture.remote),
        line: "push linux HOST",
        code: 0,
        words: &["revision 1 is now current on"],
        absent: &[],
    },
    Situation {
        name: "the link on the remote host is broken, and a revision is pulled",
        prepare: |fixture| break_link(&fixture.remote),
        line: "pull linux HOST",
        code: 10,
        words: &["not in service on root@127.0.0.1: its link leads to revision 9"],
        absent: &[],
    },
    Situation {
        name: "the remote host lacks the program",
        prepare: nothing,
        line: "push linux HOST --remote-program no-such-program",
        code: 1,
        words: &[
            "root@127.0.0.1: there is no program `no-such-program`",
            "`scripts/install`",
            "`--remote-program`",
        ],
        absent: &["command not found"],
    },
];

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn messages_about_a_remote_host_name_cause_and_remedy() {
    let server = server(BANNER);
    check(REMOTE, &server, &server.ssh());
    let login = |name, words| Situation {
        name,
        prepare: nothing,
        line: "push linux HOST",
        code: 24,
        words,
        absent: &["retry later"],
    };
    let refused = login(
        "the key is refused",
        &[
            "cannot log in to root@127.0.0.1: ",
            "Permission denied (",
            "retrying does not help",
            "`ssh-copy-id root@127.0.0.1`",
        ],
    );
    check(&[refused], &server, &server.ssh_with_other_key());
    let unknown = login(
        "the host key is not known",
        &[
            "cannot log in to root@127.0.0.1: ",
            "retrying does not help",
            "`ssh root@127.0.0.1`",
        ],
    );
    check(&[unknown], &server, &server.ssh_to_unknown_host());
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn an_ssh_that_dies_or_says_nothing_is_reported() {
    let server = server("");
    let scripts = tempfile::tempdir().unwrap();
    for (name, script, code, words) in [
        (
            "ssh is killed",
            "kill -9 $$",
            24,
            &["was ended without a message (signal: 9"][..],
        ),
        (
            "the program there is killed",
            "exit 255",
            24,
            &["was ended without a message"],
        ),
        (
            "the program there answers nothing",
            "exit 0",
            24,
            &["` answered nothing"],
        ),
        (
            "the program there fails silently",
            "exit 1",
            1,
            &["` failed without a message (1)"],
        ),
        (
            "the stream is for another machine",
            "echo machinectl: wrong name >&2; exit 13",
            13,
            &["root@127.0.0.1: wrong name"],
        ),
        (
            "the machine there is in use",
            "echo machinectl: in use >&2; exit 17",
            17,
            &["root@127.0.0.1: in use"],
        ),
    ] {
        let file = scripts.path().join("ssh");
        write_file(&file, &format!("{script}\n"));
        let situation = Situation {
            name,
            prepare: nothing,
            line: "push linux HOST",
            code,
            words,
            absent: &[],
        };
        check(&[situation], &server, &format!("sh {}", file.display()));
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_path_that_is_too_long_is_shortened_in_the_message() {
    let host = BuildHost::new(256);
    let work = host.mount.path().join("work");
    BtrfsBackend.create(&work).unwrap();
    create_deep_directory(&work);
    let push = [
        "push",
        "linux",
        "root@127.0.0.1",
        "--from",
        work.to_str().unwrap(),
    ];
    let server = server("");
    let mut command = host.command(&push);
    command.env("BUILDHOST_SSH", server.ssh());
    command
        .arg("--remote-program")
        .arg(tests::program("machinectl"));
    command
        .arg("--remote-volume")
        .arg(host.mount.directory("remote"));
    let output = run(command, b"");
    let error = output.stderr.lines().last().unwrap();
    assert!(error.contains("File name too long"), "{output:?}");
    assert!(error.len() < 500, "{} bytes: {error}", error.len());
}
