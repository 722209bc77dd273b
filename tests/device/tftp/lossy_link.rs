//! Foreign clients, and the worker's, over a link that loses packets: a file that differs
//! is never reported as complete.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use config::task::GATEWAY;
use sys::command;
use tests::net::Net;
use tftp::client::{Client, PORT, Timeouts};
use tftp::server::Event;

use super::lossy_cable::LossyCable;
use super::{CLIENTS, SAMPLE, TransferFixture};

const LOST_PERCENT: u32 = 1;
/// The number of attempts that a client has for one file.
const ATTEMPTS_MAX: usize = 10;
/// The limit of one attempt.
const ATTEMPT_SECONDS_MAX: u32 = 240;
/// The client that is left out: each of its blocks is sent in 45 fragments, and none of
/// them may be lost.
const FRAGMENTED: &str = "busybox, 65464";
const WORKER: &str = "the worker";

/// The attempts of a client to transfer one file in one direction.
struct Attempts {
    number: usize,
    /// The attempts that the client wrongly reported as successful.
    false_successes: usize,
    took: Duration,
}

/// A server, the network of a client, and the lossy cable between them.
struct LossyLink {
    fixture: TransferFixture,
    client_net: Net,
    _cable: LossyCable,
}

impl LossyLink {
    fn new(size: usize) -> Self {
        let fixture = TransferFixture::new(size);
        let (cable, client_net) = LossyCable::connect(&fixture.net, LOST_PERCENT);
        Self {
            fixture,
            client_net,
            _cable: cable,
        }
    }

    /// Runs a command line and returns whether it reports success.
    fn succeeds(&self, line: &str) -> bool {
        let mut timeout = command::prepare("timeout");
        timeout.args([&ATTEMPT_SECONDS_MAX.to_string(), "sh", "-c", line]);
        timeout.current_dir(self.fixture.directory.path());
        self.client_net.run(timeout).status.success()
    }

    fn is_right(&self, name: &str) -> bool {
        let source = fs::read(self.fixture.path("source")).unwrap();
        fs::read(self.fixture.path(name)).is_ok_and(|it| it == source)
    }

    /// Returns true if the server has reported a complete transfer since the last call.
    fn was_complete(&mut self, is_put: bool) -> bool {
        let events = std::iter::from_fn(|| self.fixture.events.try_recv().ok());
        let complete = events.filter(|event| match event {
            Event::Put { .. } => is_put,
            Event::Fetched { .. } => !is_put,
            _ => false,
        });
        complete.count() > 0
    }

    /// Attempts a transfer until the file is right, and checks the server's events.
    fn transfer(
        &mut self,
        client: &str,
        is_put: bool,
        run: impl Fn(&Self, &str) -> bool,
    ) -> Attempts {
        let began = Instant::now();
        let mut false_successes = 0;
        for number in 1..=ATTEMPTS_MAX {
            let name = format!("{}{number}", if is_put { "put" } else { "got" });
            let succeeded = run(self, &name);
            let took = began.elapsed();
            let is_right = self.is_right(&name);
            let complete = self.was_complete(is_put);
            assert!(is_right || !complete, "{client}: wrong, but complete");
            if is_right {
                return Attempts {
                    number,
                    false_successes,
                    took,
                };
            }
            false_successes += usize::from(succeeded);
        }
        panic!("{client}: not right in {ATTEMPTS_MAX} attempts, {false_successes} false successes");
    }

    /// Fetches and puts with a foreign client.
    fn foreign(&mut self, client: &str) -> [Attempts; 2] {
        let mut known = CLIENTS.into_iter();
        let (_, fetch, put) = known.find(|it| it.0 == client).unwrap();
        // Without a limit, curl retransmits only after 72 seconds.
        let curl = format!("curl -m {ATTEMPT_SECONDS_MAX}");
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

    /// Fetches and puts with the worker's client.
    fn worker(&mut self) -> [Attempts; 2] {
        let server = format!("{GATEWAY}:{PORT}").parse().unwrap();
        let client = || Client::new(server, Timeouts::default());
        let fetched = self.transfer(WORKER, false, |it, name| {
            let path = it.fixture.path(name);
            let fetch = || {
                let mut file = fs::File::create(&path)?;
                client().get("big", &mut file).map_err(io::Error::other)
            };
            it.client_net.enter(fetch).is_ok()
        });
        let put = self.transfer(WORKER, true, |it, name| {
            let source = it.fixture.path("source");
            let put = || {
                let mut file = fs::File::open(&source)?;
                let size = file.metadata()?.len();
                let name = format!("artifacts/{name}");
                client()
                    .put(&name, &mut file, size)
                    .map_err(io::Error::other)
            };
            it.client_net.enter(put).is_ok()
        });
        [fetched, put]
    }
}

/// Returns the size of the file. tftp-hpa waits 5 s before it retransmits a lost block.
fn size(client: &str) -> usize {
    let blocks = match client {
        "tftp-hpa" => 30,
        _ => 200,
    };
    blocks * 512 + 77
}

/// Runs one client and returns its row of the table.
fn row(client: &str) -> String {
    let size = size(client);
    let mut link = LossyLink::new(size);
    let attempts = match client {
        WORKER => link.worker(),
        _ => link.foreign(client),
    };
    let cell = |attempts: &Attempts| {
        let seconds = attempts.took.as_secs_f64();
        let (number, false_successes) = (attempts.number, attempts.false_successes);
        format!("{seconds:>7.2} s {number:>8} {false_successes:>5}")
    };
    let [fetched, put] = attempts.each_ref().map(cell);
    format!("{client:<22} {:>5} KB {fetched} {put}", size / 1000)
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn files_over_a_lossy_link_are_right_or_reported_as_incomplete() {
    let wanted =
        |client: &&str| *client != FRAGMENTED && (tests::is_long_run() || SAMPLE.contains(client));
    let foreign = CLIENTS.iter().map(|it| it.0).filter(wanted);
    println!(
        "{:<22} {:>8} {:>9} attempts false {:>9} attempts false",
        "client", "", "fetch", "put"
    );
    // In parallel: they mostly wait.
    let rows: Vec<_> = thread::scope(|scope| {
        let started: Vec<_> = foreign
            .chain([WORKER])
            .map(|client| scope.spawn(|| row(client)))
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
