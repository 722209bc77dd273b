//! Death and failure at system calls, by strace, on real btrfs: whatever call
//! `machinectl` or its receiver dies at or sees failing, the machine is the old or
//! the new one. `BUILDHOST_LONG=1` tries every call, else a sample.

use std::time::Duration;

use tests::shell::{Answer, BuildHost, DevelopmentHost, run};

/// The calls by which something changes on the disk.
const CHANGING: [&str; 16] = [
    "ioctl",
    "rename",
    "symlink",
    "mkdir",
    "rmdir",
    "unlink",
    "unlinkat",
    "flock",
    "pwrite64",
    "write",
    "fsync",
    "chmod",
    "lchown",
    "utimensat",
    "truncate",
    "openat",
];
/// Those that are tried in the normal run too.
const SAMPLED: usize = 6;

fn is_long() -> bool {
    std::env::var("BUILDHOST_LONG").is_ok_and(|value| value == "1")
}

/// A call of `machinectl` that is disturbed.
struct Trial {
    host: BuildHost,
    arguments: Vec<&'static str>,
    input: Vec<u8>,
    before: Vec<String>,
    after: Vec<String>,
    /// May be there or not when it died: a whole revision without its link.
    between: Option<&'static str>,
}

impl Trial {
    fn call(&self) -> Answer {
        self.host.machinectl(&self.arguments, &self.input)
    }

    /// The answer of a disturbed call; `None` when it makes fewer such system calls.
    fn disturbed(&self, call: &str, what: &str, when: usize) -> Option<Answer> {
        let plain = self.host.command(&self.arguments);
        let mut strace = ::store::command::prepare("strace");
        let log = tempfile::NamedTempFile::new().unwrap();
        strace.args(["-f", "-o"]).arg(log.path());
        strace.arg(format!("--trace={call}"));
        strace.arg(format!("--inject={call}:{what}:when={when}"));
        strace.arg(plain.get_program()).args(plain.get_args());
        strace.envs(
            plain
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let answer = run(strace, &self.input);
        let log = std::fs::read_to_string(log.path()).unwrap();
        let disturbed = log.contains("(INJECTED)") || log.contains("killed by SIGKILL");
        disturbed.then_some(answer)
    }

    /// Whether everything is as before; what a dead process may leave aside.
    fn is_before(&self, listing: &[String]) -> bool {
        let aside = |line: &&String| self.between.is_some_and(|name| line.starts_with(name));
        listing.iter().filter(|line| !aside(line)).eq(&self.before)
    }

    /// Brings everything back to where it was before.
    fn reset(&self, prepare: impl Fn(&BuildHost)) {
        for machine in self.host.volume.machines().unwrap() {
            if self
                .host
                .volume
                .delete(&machine, Duration::ZERO, true)
                .is_err()
            {
                // A directory in which nothing is ours any more.
                std::fs::remove_dir(self.host.volume.directory(&machine)).unwrap();
            }
        }
        prepare(&self.host);
        assert_eq!(self.host.listing(), self.before);
    }

    /// Disturbs the call at each of its system calls in turn.
    fn run(&self, what: &str, prepare: impl Fn(&BuildHost)) {
        let calls = if is_long() { CHANGING.len() } else { SAMPLED };
        let mut trials = 0;
        for call in &CHANGING[..calls] {
            for when in 1.. {
                let answer = self.disturbed(call, what, when);
                if let Some(answer) = &answer {
                    trials += 1;
                    self.check(&format!("{what} at {call} {when}: {answer:?}"));
                }
                self.reset(&prepare);
                if answer.is_none() {
                    break;
                }
            }
        }
        println!("{:?}: {trials} times {what}", self.arguments);
        assert!(trials > 6, "{trials}");
    }

    fn check(&self, told: &str) {
        for machine in self.host.volume.machines().unwrap() {
            // The receiver may outlive its parent for an instant, with the lock.
            let view = self.host.volume.look(&machine).unwrap();
            assert_eq!(view.link_fault, None, "{told}");
        }
        let report = self.host.volume.clean_after_boot();
        assert!(report.failed.is_empty(), "{told}: {:?}", report.failed);
        let cleaned = self.host.listing();
        let empty = cleaned.iter().all(|line| !line.contains(['/', ' ']));
        let before = self.is_before(&cleaned) || (empty && self.before.is_empty());
        assert!(
            before || cleaned == self.after || empty && self.after.is_empty(),
            "{told}: {cleaned:#?}"
        );
        if cleaned != self.after && !(empty && self.after.is_empty()) {
            let again = self.call();
            assert_eq!(again.code, Some(0), "{told}, then again: {again:?}");
            assert_eq!(self.host.listing(), self.after, "{told}, then again");
        }
    }
}

/// Two hosts and the streams of two revisions.
fn streams() -> Option<(BuildHost, Vec<u8>, Vec<u8>)> {
    if !tests::may_use_devices() {
        return None;
    }
    let (host, development) = (BuildHost::new(512), DevelopmentHost::new(256));
    let disk = vec![1; 100_000];
    development.image(
        "linux-1",
        None,
        &[("disk.img", &disk), ("manifest", b": 1\n")],
    );
    development.image(
        "linux-2",
        Some("linux-1"),
        &[("disk.img", b"two"), ("kernel", b"k")],
    );
    let one = development.send("linux-1", None);
    Some((host, one, development.send("linux-2", Some("linux-1"))))
}

fn add(host: &BuildHost, stream: &[u8]) {
    host.machinectl(&["add", "linux"], stream).good();
}

const ONE: [&str; 5] = [
    "linux",
    "linux/linux -> linux-1",
    "linux/linux-1 (read-only)",
    "linux/linux-1/disk.img 100000 bytes",
    "linux/linux-1/manifest 4 bytes",
];

const TWO: [&str; 9] = [
    "linux",
    "linux/linux -> linux-2",
    "linux/linux-1 (read-only)",
    "linux/linux-1/disk.img 100000 bytes",
    "linux/linux-1/manifest 4 bytes",
    "linux/linux-2 (read-only)",
    "linux/linux-2/disk.img 3 bytes",
    "linux/linux-2/kernel 1 bytes",
    "linux/linux-2/manifest 4 bytes",
];

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(ToString::to_string).collect()
}

/// What the disturbed call sees.
const DISTURBANCES: [&str; 3] = ["signal=KILL", "error=ENOSPC", "error=EIO"];

#[test]
fn add_dies_or_fails_at_system_calls() {
    let Some((host, one, _)) = streams() else {
        return;
    };
    let trial = Trial {
        host,
        arguments: vec!["add", "linux"],
        input: one,
        before: Vec::new(),
        after: lines(&ONE),
        between: None,
    };
    for what in DISTURBANCES {
        trial.run(what, |_| ());
    }
}

#[test]
fn delete_dies_or_fails_at_system_calls() {
    let Some((host, one, _)) = streams() else {
        return;
    };
    add(&host, &one);
    let trial = Trial {
        host,
        arguments: vec!["delete", "linux"],
        input: Vec::new(),
        before: lines(&ONE),
        after: Vec::new(),
        between: None,
    };
    for what in DISTURBANCES {
        trial.run(what, |host| add(host, &one));
    }
}

#[test]
fn upgrade_dies_or_fails_at_system_calls() {
    let Some((host, one, two)) = streams() else {
        return;
    };
    add(&host, &one);
    let trial = Trial {
        host,
        arguments: vec!["upgrade", "linux"],
        input: two,
        before: lines(&ONE),
        after: lines(&TWO),
        between: Some("linux/linux-2"),
    };
    for what in DISTURBANCES {
        trial.run(what, |host| add(host, &one));
    }
}

#[test]
fn an_arrival_that_fails_leaves_everything_as_it_was() {
    let Some((host, one, two)) = streams() else {
        return;
    };
    let trial = |arguments: &[&'static str], input: &[u8], before: Vec<String>| Trial {
        host: BuildHost::new(128),
        arguments: arguments.to_vec(),
        input: input.to_vec(),
        before,
        after: Vec::new(),
        between: None,
    };
    drop(host);
    let first = trial(&["add", "linux"], &one, Vec::new());
    let next = trial(&["upgrade", "linux"], &two, lines(&ONE));
    add(&next.host, &one);
    for trial in [first, next] {
        for call in ["symlink", "rename", "openat2", "pwrite64"] {
            for error in ["error=ENOSPC", "error=EIO"] {
                if let Some(answer) = trial.disturbed(call, error, 1) {
                    assert!(matches!(answer.code, Some(1 | 16)), "{call}: {answer:?}");
                    assert_eq!(trial.host.listing(), trial.before, "{error} at {call}");
                }
            }
        }
    }
}
