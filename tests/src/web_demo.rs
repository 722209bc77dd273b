//! A host with builds as they are in a farm: running, waiting, failed and finished ones, with logs and
//! files. The web pages are tested and shown with it.

use std::fmt::Write;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use config::builds::{Build, Count, Progress, State, Status, Submitter};
use config::task::Outcome;
use jiff::{SignedDuration, Timestamp};
use records::Records;
use session::console::{ConsoleHandle, ConsoleInput};
use sys::file::digest_of;

use crate::api_host::{ApiHost, request};
use crate::write_file;

/// The packages, each with the seconds that its builds take.
const PACKAGES: [(&str, f64); 8] = [
    ("busybox", 48.0),
    ("zlib", 21.0),
    ("openssl", 214.0),
    ("linux-yocto", 1310.0),
    ("gcc-cross-arm", 2204.0),
    ("hello", 3.1),
    ("python3", 402.0),
    ("core-image-minimal", 1720.0),
];
const MACHINES: [&str; 3] = ["linux", "debian-12", "yocto-arm"];
const SUBMITTERS: [&str; 4] = ["alice", "bob", "token:nightly", "root"];
const SOURCE: &[u8] = b"the source of a demo\n";

/// A host with many builds.
#[derive(Debug)]
pub struct WebDemo {
    /// The host.
    pub api: ApiHost,
    /// The builds that run.
    pub running: Vec<Build>,
    /// The console of the first running build.
    pub console: Option<ConsoleHandle>,
}

impl WebDemo {
    /// Starts a host with so many finished builds, and some that run and wait.
    pub fn start(settings: &str, finished: usize) -> Self {
        let name = "host.name = \"farm1\"\nlayers.git_hosts = [\"git.example.org\"]\n";
        let api = ApiHost::new(&format!("{name}{settings}"));
        std::fs::create_dir_all(api.path("run/guests")).expect("a directory");
        let sources = api.path("state/sources");
        let source = std::str::from_utf8(SOURCE).expect("text");
        write_file(&sources.join(digest_of(SOURCE).as_str()), source);
        let mut demo = Self {
            api,
            running: Vec::new(),
            console: None,
        };
        for number in 0..finished {
            demo.finish(number, finished);
        }
        demo.run();
        demo.publish();
        demo.console = Some(demo.open_console());
        demo.add_services();
        demo
    }

    /// Gives the first running build a console, which shows what is typed.
    fn open_console(&self) -> ConsoleHandle {
        let (mut guest, input) = UnixStream::pair().expect("sockets");
        input.set_nonblocking(true).expect("a socket");
        let entered = self.api.runtime.enter();
        let input = tokio::net::UnixStream::from_std(input).expect("a socket");
        let input = ConsoleInput::Socket(input.into_split().1);
        drop(entered);
        let build = &self.running[0];
        let consoles = &self.api.host.guests.consoles;
        let handle = consoles.add(&build.id.to_string(), &build.machine, Some(input));
        let console = handle.console().clone();
        console.show(b"Debian GNU/Linux 12 build hvc0\r\n\r\nroot@build:/buildhost/build/work# ");
        // It ends with the other end of the sockets.
        std::thread::spawn(move || {
            let mut typed = [0; 256];
            while let Ok(count @ 1..) = guest.read(&mut typed) {
                console.show(&typed[..count]);
            }
        });
        handle
    }

    /// Adds revisions of packages, a schedule and a project.
    fn add_services(&self) {
        for (number, (package, _)) in PACKAGES.iter().enumerate() {
            for checksum in 0..=number % 4 {
                let version = format!("{package}-1.2-r0");
                let tuple = prserv::Tuple::new(version, "core2-64", format!("{checksum}"));
                let pr = &self.api.host.bitbake.pr;
                let value = self
                    .api
                    .block_on(pr.get_pr(&tuple, prserv::History::Ignore));
                value.expect("a value");
            }
        }
        let source = serde_json::json!({"name": "all.tar", "sha256": digest_of(SOURCE)});
        let build = serde_json::json!({"machine": "linux", "sources": [source]});
        let cron = serde_json::json!({"pattern": "0 3 * * *", "zone": "Europe/Berlin"});
        let nightly =
            serde_json::json!({"name": "nightly", "timing": {"cron": cron}, "build": build});
        self.put("POST", "schedules", &nightly);
        let place = |name: &str| serde_json::json!({"url": format!("https://git.example.org/{name}"), "reference": "scarthgap"});
        let core = serde_json::json!({"name": "core", "location": place("openembedded-core")});
        self.put("PUT", "layers/core", &core);
        let release = serde_json::json!({"name": "scarthgap", "branch": "scarthgap", "bitbake": place("bitbake"), "layers": ["core"]});
        self.put("PUT", "releases/scarthgap", &release);
        let layers = serde_json::json!([{"name": "core"}]);
        let camera = serde_json::json!({"release": "scarthgap", "host_machine": "linux", "targets": ["core-image-minimal"], "layers": layers});
        self.put("PUT", "projects/camera", &camera);
    }

    /// Sends something new to the API as root.
    fn put(&self, method: &str, path: &str, body: &serde_json::Value) {
        let url = format!("http://agent/api/v1/{path}");
        let sent = request(&self.api.local(), method, &url).json(body).send();
        let answer = sent.expect("an answer");
        let status = answer.status();
        assert!(status.is_success(), "{path}: {:?}", answer.text());
    }

    /// Leaves the directory of a guest that does not exist, which the doctor finds and repairs.
    pub fn leave_directory(&self) {
        let left = self.api.path("run/guests/7777");
        std::fs::create_dir_all(left).expect("a directory");
    }

    fn records(&self) -> &Records {
        &self.api.host.records
    }

    fn submit(&self, target: &str, machine: &str, who: &str, at: Timestamp) -> Build {
        let file = format!("{target}-1.2.tar.gz");
        let source = serde_json::json!({"name": file, "sha256": digest_of(SOURCE)});
        let request =
            serde_json::json!({"machine": machine, "sources": [source], "target": target});
        let request = serde_json::from_value(request).expect("a request");
        let (toolchain, who) = ("default".parse().expect("a name"), who.parse::<Submitter>());
        let build = self
            .records()
            .submit(request, toolchain, who.expect("a name"), at);
        self.api.block_on(build).expect("a record")
    }

    fn save(&self, build: &mut Build) {
        let saved = self.api.block_on(self.records().save(build));
        saved.expect("a record");
    }

    /// Records a build that has finished, with its log and files.
    fn finish(&self, number: usize, of: usize) {
        let (target, seconds) = PACKAGES[number * 5 % PACKAGES.len()];
        let machine = MACHINES[number * 7 / 3 % MACHINES.len()];
        let who = SUBMITTERS[number / 5 % SUBMITTERS.len()];
        let outcome = outcome(number, of, target);
        let ago = SignedDuration::from_mins(i64::try_from((of - number) * 23).expect("few"));
        let submitted = Timestamp::now() - ago;
        let mut build = self.submit(target, machine, who, submitted);
        let starts = submitted + SignedDuration::from_secs(4);
        let after = |share: f64| starts + SignedDuration::from_secs_f64(seconds * share);
        build.enter(State::Starting, starts).expect("a state");
        build.enter(State::Running, after(0.02)).expect("a state");
        build.enter(State::Storing, after(0.97)).expect("a state");
        build.enter(State::Finished, after(1.0)).expect("a state");
        build.outcome = Some(outcome);
        build.attempts = 1;
        build.restored = !number.is_multiple_of(4);
        build.revision = Some(config::Revision(if number * 3 > of * 2 { 3 } else { 2 }));
        build.usage.cpu_milliseconds = Some(1900 * number as u64 % 90_000);
        build.usage.memory_bytes_max = Some(300 << 20);
        build.message = match outcome {
            Outcome::Error => {
                format!("src/{target}.c:87: error: 'struct session' has no member named 'peer'")
            }
            Outcome::Abnormal => "the guest did not request its task within 60 s".to_owned(),
            Outcome::Abort => "it was canceled".to_owned(),
            _ => String::new(),
        };
        let directory = self.api.host.paths.build(build.id);
        let log = log(target, outcome.is_good(), 700);
        write_files(&directory, &log, seconds);
        if outcome.is_good() {
            produce(&mut build, target, &directory);
        }
        self.save(&mut build);
    }

    /// Records builds that run and wait.
    fn run(&mut self) {
        let now = Timestamp::now();
        let ago = |seconds| now - SignedDuration::from_secs(seconds);
        for (number, (target, machine, who, since, done)) in [
            ("openssl", "debian-12", "alice", 97, 3),
            (
                "core-image-minimal",
                "yocto-arm",
                "token:nightly",
                1100,
                812,
            ),
            ("zlib", "linux", "bob", 6, 0),
        ]
        .into_iter()
        .enumerate()
        {
            let mut build = self.submit(target, machine, who, ago(since + 9));
            build.enter(State::Starting, ago(since)).expect("a state");
            build
                .enter(State::Running, ago(since - 1))
                .expect("a state");
            build.attempts = 1;
            build.revision = Some(config::Revision(3));
            self.save(&mut build);
            let progress = Progress {
                task: Count {
                    done,
                    total: [12, 1240, 0][number],
                },
                ..Progress::default()
            };
            let saved = self.records().save_progress(build.id, progress);
            self.api.block_on(saved).expect("a record");
            let directory = self.api.host.paths.build(build.id);
            write_files(&directory, &log(target, true, 300), 90.0);
            std::fs::rename(directory.join("log"), directory.join("log.live")).expect("a log");
            let job = state::BuildJob::new(&build, self.api.host.stopping.child_token());
            self.api
                .host
                .jobs
                .with(|jobs| jobs.builds.insert(build.id, job));
            self.running.push(build);
        }
        self.wait(now);
    }

    /// Records builds that wait.
    fn wait(&self, now: Timestamp) {
        let ago = |seconds| now - SignedDuration::from_secs(seconds);
        for (target, machine, who, since, message) in [
            (
                "python3",
                "debian-12",
                "bob",
                40,
                "for processors: 4 wanted, 1 of 8 free",
            ),
            (
                "gcc-cross-arm",
                "yocto-arm",
                "token:nightly",
                31,
                "for a license of the resource `icc`: 1 wanted, 0 of 1 free",
            ),
            (
                "hello",
                "alpine",
                "alice",
                12,
                "until the image of alpine/default is bootstrapped",
            ),
        ] {
            let mut build = self.submit(target, machine, who, ago(since));
            message.clone_into(&mut build.message);
            self.save(&mut build);
        }
    }

    /// Publishes the status of the host.
    fn publish(&self) {
        let machines = serde_json::json!([
            {"machine": "alpine", "toolchain": "default", "image": "missing", "message": "", "bootstrap_wait": "is being bootstrapped"},
            {"machine": "debian-12", "toolchain": "default", "image": "ready", "message": "", "start": "frozen"},
            {"machine": "linux", "toolchain": "default", "image": "outdated", "message": "revision 3 is newer", "start": "frozen"},
            {"machine": "yocto-arm", "toolchain": "bitbake", "image": "failed", "message": "", "bootstrap_error": "the recipes could not be parsed: meta-demo/conf/layer.conf is missing"},
        ]);
        let status = serde_json::json!({
            "name": "farm1", "version": "0.1.0", "machines": machines, "queued": 3, "guests": 3,
            "notices": ["the volume /var/lib/buildhost/machines is 91 % full; `buildhost prune` deletes old revisions"],
            "volumes": [{"path": "/var/lib/buildhost/machines", "bytes_free": 43_000_000_000_u64}],
        });
        let status: Status = serde_json::from_value(status).expect("a status");
        self.api.host.publish_status(status);
        let mut observed = planner::Observed::default();
        (observed.capacity.cpus, observed.capacity.memory) = (8, 32_768);
        let request = planner::ResourceRequest {
            cpus: 2,
            memory: 4096,
            ..Default::default()
        };
        let keys = self.running.iter().map(config::ImageKey::of);
        observed.requests = keys.map(|key| (key, request.clone())).collect();
        self.api.host.publish_queue(state::QueueSnapshot {
            observed: observed.into(),
            order: Vec::new(),
        });
    }

    /// Multiplies the finished builds up to a number, by copies with earlier times.
    pub fn multiply(&self, builds: u32) {
        let path = self.records().path();
        let connection = rusqlite::Connection::open(path).expect("records");
        let columns = "machine, toolchain, sources, state, outcome, message, attempts, revision,
            started, finished, packages, artifacts, submitter, target, task, phases, seconds";
        let sql = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO builds (submitted, {columns})
             SELECT strftime('%Y-%m-%dT%H:%M:%S.000000000Z', 1700000000 + i * 60, 'unixepoch'), {columns}
             FROM n JOIN builds ON id = 1 + i % (SELECT min(id) - 1 FROM builds WHERE outcome IS NULL)"
        );
        connection.execute(&sql, [builds]).expect("builds");
        let names = "INSERT OR IGNORE INTO names SELECT target, submitted, id FROM builds";
        connection.execute(names, []).expect("names");
    }

    /// Gives the first finished build a log with so many lines of 80 bytes, and returns the build.
    pub fn long_log(&self, lines: u64) -> u64 {
        let mut log = String::new();
        for number in 1..=lines {
            let _ = writeln!(
                log,
                "cc -O2 -Wall -Iinclude -c src/unit_{number:07}.c -o build/unit_{number:07}.o    # line"
            );
        }
        write_file(
            &self.api.host.paths.build(config::BuildId(1)).join("log"),
            &log,
        );
        1
    }

    /// Adds lines to the log of the first running build.
    pub fn log_more(&self, text: &str) {
        let directory = self.api.host.paths.build(self.running[0].id);
        let path = directory.join("log.live");
        let appended = std::fs::OpenOptions::new().append(true).open(path);
        std::io::Write::write_all(&mut appended.expect("a log"), text.as_bytes()).expect("written");
    }

    /// Ends the first running build.
    pub fn end(&self) {
        let id = self.running[0].id;
        self.api.host.jobs.with(|jobs| jobs.builds.remove(&id));
        let mut build = self
            .api
            .block_on(self.records().get(id))
            .expect("records")
            .expect("a record");
        build
            .enter(State::Finished, Timestamp::now())
            .expect("a state");
        build.outcome = Some(Outcome::Success);
        self.save(&mut build);
    }
}

/// Adds the packages and files of a build.
fn produce(build: &mut Build, target: &str, directory: &std::path::Path) {
    let names = [
        format!("{target}_1.2-r0.{}_arm.ipk", build.id.0 % 9),
        "build.log.xz".to_owned(),
    ];
    std::fs::create_dir_all(directory.join("artifacts")).expect("a directory");
    for name in &names {
        let content = format!("{name} of build {}\n", build.id);
        write_file(&directory.join("artifacts").join(name), &content);
        let artifact = serde_json::json!({
            "name": name, "bytes": content.len(), "sha256": digest_of(content.as_bytes()),
        });
        build
            .artifacts
            .push(serde_json::from_value(artifact).expect("an artifact"));
    }
    write_file(&directory.join("provenance.json"), "{}\n");
}

/// Returns the outcome of a demo's build. Two packages fail at the end.
fn outcome(number: usize, of: usize, target: &str) -> Outcome {
    let is_late = number * 20 > of * 19;
    match (target, number % 41) {
        ("zlib" | "python3", _) if is_late => Outcome::Error,
        ("linux-yocto", _) if is_late => Outcome::Abnormal,
        (_, 7) => Outcome::Warning,
        (_, 13) => Outcome::Error,
        (_, 29) => Outcome::Abort,
        _ => Outcome::Success,
    }
}

/// Returns a log with colors, warnings, and an error if the build failed.
fn log(target: &str, is_good: bool, lines: usize) -> String {
    let mut log = format!(
        "buildhost-worker: build of {target}\n\u{1b}[1m./configure\u{1b}[0m --prefix=/usr\n"
    );
    for number in 0..lines {
        let _ = match number % 97 {
            40 => writeln!(
                log,
                "\u{1b}[33msrc/{target}_{number}.c:{number}:9: warning: \u{1b}[0munused variable 'length'"
            ),
            61 => writeln!(
                log,
                "[\u{1b}[32m{:3} %\u{1b}[0m] Linking C static library lib{target}.a",
                number * 100 / lines
            ),
            _ => writeln!(
                log,
                "cc -O2 -Wall -Iinclude -c src/{target}_{number}.c -o build/{target}_{number}.o"
            ),
        };
    }
    if is_good {
        log.push_str("\u{1b}[32minstalled\u{1b}[0m\n");
        return log;
    }
    let _ = write!(
        log,
        "\u{1b}[1msrc/{target}.c:87:14: \u{1b}[31merror: \u{1b}[0m'struct session' has no member named 'peer'\n   87 |   session->peer = peer;\n      |          \u{1b}[31m^~\u{1b}[0m\nmake: *** [Makefile:31: build/{target}.o] Error 1\n"
    );
    log
}

/// Writes a log with the times of its lines.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "times of a demo"
)]
fn write_files(directory: &PathBuf, log: &str, seconds: f64) {
    std::fs::create_dir_all(directory).expect("a directory");
    write_file(&directory.join("log"), log);
    let mut times = String::new();
    for offset in (0..log.len()).step_by(2000) {
        let at = seconds * 1000.0 * offset as f64 / log.len() as f64;
        let _ = writeln!(times, "{offset} {}", 1_700_000_000_000 + at as i64);
    }
    write_file(&directory.join("log.times"), &times);
}
