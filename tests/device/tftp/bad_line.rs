//! Clients of others, and our own, over a line that loses, doubles, delays and reorders:
//! what arrives is right, and what is not right was not called complete.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use config::task::GATEWAY;
use sys::command;
use tests::net::Net;
use tftp::client::{Client, PORT, Patience};
use tftp::server::Event;

use super::cable::{Cable, Faults};
use super::{CLIENTS, Ground, SAMPLE};

/// So often a client may give up, or say that it has done what it has not.
const TRIES_MAX: usize = 10;
/// So many seconds one try may take.
const TRY_SECONDS_MAX: u32 = 240;
const NONE: Faults = Faults {
    lost: 0,
    doubled: 0,
    late: 0,
    delay: Duration::ZERO,
};
/// The faults of a line, by the words of the table.
const LINES: [(&str, Faults); 7] = [
    ("good", NONE),
    ("1 % lost", Faults { lost: 1, ..NONE }),
    ("5 % lost", Faults { lost: 5, ..NONE }),
    ("20 % lost", Faults { lost: 20, ..NONE }),
    (
        "20 % doubled",
        Faults {
            doubled: 20,
            ..NONE
        },
    ),
    ("20 % reordered", Faults { late: 20, ..NONE }),
    ("5 % of each, 10 ms", WORST),
];
const WORST: Faults = Faults {
    lost: 5,
    doubled: 5,
    late: 5,
    delay: Duration::from_millis(10),
};
/// Each of its blocks goes in 45 pieces, of which none may be lost.
const TOO_LARGE: &str = "busybox, 65464";
const OURS: &str = "our worker";

/// What became of one file that went one way.
struct Told {
    /// How often it was begun.
    tries: usize,
    /// How often the client said that it had succeeded, and had not.
    lies: usize,
    took: Duration,
}

/// A server and the network of a client, and a bad cable between them.
struct Line {
    ground: Ground,
    far: Net,
    _cable: Cable,
}

impl Line {
    fn new(size: usize, faults: Faults) -> Self {
        let ground = Ground::new(size);
        let (cable, far) = Cable::lay(&ground.net, faults);
        Self {
            ground,
            far,
            _cable: cable,
        }
    }

    /// Whether a program says that it succeeded.
    fn succeeds(&self, line: &str) -> bool {
        let mut timeout = command::prepare("timeout");
        timeout.args([&TRY_SECONDS_MAX.to_string(), "sh", "-c", line]);
        timeout.current_dir(self.ground.directory.path());
        self.far.run(timeout).status.success()
    }

    fn is_right(&self, name: &str) -> bool {
        let source = fs::read(self.ground.path("source")).unwrap();
        fs::read(self.ground.path(name)).is_ok_and(|it| it == source)
    }

    /// Whether the server has called a transfer complete since it was asked last.
    fn was_complete(&mut self, is_put: bool) -> bool {
        let events = std::iter::from_fn(|| self.ground.events.try_recv().ok());
        let complete = events.filter(|event| match event {
            Event::Put { .. } => is_put,
            Event::Fetched { .. } => !is_put,
            _ => false,
        });
        complete.count() > 0
    }

    /// Transfers until it is right, and holds the server to what it said.
    fn transfer(&mut self, what: &str, is_put: bool, run: impl Fn(&Self, &str) -> bool) -> Told {
        let began = Instant::now();
        let mut lies = 0;
        for tries in 1..=TRIES_MAX {
            let name = format!("{}{tries}", if is_put { "put" } else { "got" });
            let says_so = run(self, &name);
            let took = began.elapsed();
            let is_right = self.is_right(&name);
            let complete = self.was_complete(is_put);
            assert!(is_right || !complete, "{what}: wrong, and called complete");
            if is_right {
                return Told { tries, lies, took };
            }
            lies += usize::from(says_so);
        }
        panic!("{what}: not right in {TRIES_MAX} tries, {lies} times called a success");
    }

    /// Fetches and puts with a client of others.
    fn others(&mut self, client: &str) -> [Told; 2] {
        let mut known = CLIENTS.into_iter();
        let (_, fetch, put) = known.find(|it| it.0 == client).unwrap();
        // curl asks again after a fiftieth of an hour, unless its time is limited.
        let curl = format!("curl -m {TRY_SECONDS_MAX}");
        let line = |text: &str, name: &str| {
            let text = text.replace("HOST", GATEWAY).replace("curl", &curl);
            text.replace("NAME", name)
                .replace("got ", &format!("{name} "))
        };
        let fetch = fetch.replace("big got", "big got ");
        let fetched = self.transfer(client, false, |it, name| it.succeeds(&line(&fetch, name)));
        let put = self.transfer(client, true, |it, name| it.succeeds(&line(put, name)));
        [fetched, put]
    }

    /// Fetches and puts as our worker does.
    fn ours(&mut self) -> [Told; 2] {
        let server = format!("{GATEWAY}:{PORT}").parse().unwrap();
        let client = || Client::new(server, Patience::default());
        let fetched = self.transfer(OURS, false, |it, name| {
            let path = it.ground.path(name);
            let fetch = || {
                let mut file = fs::File::create(&path)?;
                client().get("big", &mut file).map_err(io::Error::other)
            };
            it.far.enter(fetch).is_ok()
        });
        let put = self.transfer(OURS, true, |it, name| {
            let source = it.ground.path("source");
            let put = || {
                let mut file = fs::File::open(&source)?;
                let size = file.metadata()?.len();
                let name = format!("artifacts/{name}");
                client()
                    .put(&name, &mut file, size)
                    .map_err(io::Error::other)
            };
            it.far.enter(put).is_ok()
        });
        [fetched, put]
    }
}

/// How much a client transfers. tftp-hpa needs 5 s for every block of a put that is lost:
/// it sends nothing again before.
fn size(client: &str, faults: Faults) -> usize {
    let blocks = match client {
        "tftp-hpa" if faults.lost >= 20 => 6,
        "tftp-hpa" if faults.lost > 0 => 30,
        _ => 200,
    };
    blocks * 512 + 77
}

/// One row of the table.
fn row(words: &str, faults: Faults, client: &str) -> String {
    let size = size(client, faults);
    let mut line = Line::new(size, faults);
    let told = match client {
        OURS => line.ours(),
        _ => line.others(client),
    };
    let cell = |told: &Told| {
        let seconds = told.took.as_secs_f64();
        format!("{seconds:>7.2} s {:>5} {:>4}", told.tries, told.lies)
    };
    let [fetched, put] = told.each_ref().map(cell);
    format!(
        "{words:<18} {client:<22} {:>5} KB {fetched} {put}",
        size / 1000
    )
}

#[test]
fn what_comes_over_a_bad_line_is_right() {
    if !tests::may_use_devices() {
        return;
    }
    let wanted =
        |client: &&str| *client != TOO_LARGE && (tests::is_long() || SAMPLE.contains(client));
    let others = CLIENTS.iter().map(|it| it.0).filter(wanted);
    let clients: Vec<_> = others.chain([OURS]).collect();
    println!(
        "{:<18} {:<22} {:>8} {:>9} tries lies {:>9} tries lies",
        "line", "client", "", "fetch", "put"
    );
    // All that they do is wait.
    let rows: Vec<_> = thread::scope(|scope| {
        let cells = LINES
            .iter()
            .flat_map(|line| clients.iter().map(move |it| (line, *it)));
        let started: Vec<_> = cells
            .map(|((words, faults), client)| scope.spawn(|| row(words, *faults, client)))
            .collect();
        started
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect()
    });
    for row in &rows {
        println!("{}", row.as_deref().unwrap_or("  it failed"));
    }
    assert!(rows.iter().all(Result::is_ok), "see above");
}
