//! A host of a farm whose guests end at once. Its leases and results are in a file, so that it may be
//! killed at any time. The tests of the farm run many of them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use config::BuildId;
use config::task::Outcome;
use farm_core::host::{Effect, HostAgent, Input, OnDisk, Recovered};
use farm_core::messages::{Poll, PollAnswer, Report};
use farm_core::{Capacity, Epoch, Lease, Moment, Offer, OfferedMachine, Terms};
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Runs builds that end at once.
#[derive(Debug, Parser)]
struct Arguments {
    /// The key of the host.
    #[arg(long)]
    key: String,
    /// The file with leases and results.
    #[arg(long)]
    disk: std::path::PathBuf,
    /// The guests that it runs at once.
    #[arg(long, default_value_t = 8)]
    guests: u64,
    /// The seconds of a lease.
    #[arg(long, default_value_t = 2)]
    lease_seconds: u64,
    /// The coordinators, `http://ADDRESS`.
    #[arg(required = true)]
    coordinators: Vec<String>,
}

/// The file: each line is a lease, a result or a deletion.
struct Disk(File);

impl Disk {
    fn open(path: &Path) -> anyhow::Result<(Self, BTreeMap<Lease, OnDisk>)> {
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).read(true).open(path);
        let mut file = file.with_context(|| format!("cannot open {}", path.display()))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut found = BTreeMap::new();
        // A line without an end was not written to its end.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let fields: Vec<_> = line.split(' ').collect();
            let [kind, build, epoch] = fields[..] else {
                continue;
            };
            let lease = Lease {
                build: BuildId(build.parse()?),
                epoch: Epoch(epoch.parse()?),
            };
            match kind {
                "lease" => found.insert(lease, OnDisk::Lease),
                "result" => found.insert(lease, OnDisk::Result(Outcome::Success)),
                "forget" => found.remove(&lease),
                _ => bail!("{} has the line {line:?}", path.display()),
            };
        }
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok((Self(file), found))
    }

    fn write(&mut self, kind: impl Display, lease: Lease) -> anyhow::Result<()> {
        let line = format!("{kind} {} {}\n", lease.build.0, lease.epoch.0);
        Ok(self.0.write_all(line.as_bytes())?)
    }
}

/// The connections to the coordinators.
struct Link {
    http: reqwest::Client,
    key: String,
    coordinators: Vec<String>,
    inputs: UnboundedSender<Input>,
}

impl Link {
    async fn send(&self, number: usize, path: &str, body: &impl Serialize) -> Option<String> {
        let base = &self.coordinators[number % self.coordinators.len()];
        let request = self.http.post(format!("{base}/farm/v1/{path}"));
        let answer = request.bearer_auth(&self.key).json(body).send().await;
        let answer = answer.ok()?;
        match answer.status().as_u16() {
            200..=299 | 409 => answer.text().await.ok(),
            _ => None,
        }
    }

    /// Sends a poll, and gives its answer to the host.
    async fn poll(self: Arc<Self>, number: usize, poll: Poll) {
        let answer = self.send(number, "poll", &poll).await;
        let answer = answer.and_then(|it| serde_json::from_str::<PollAnswer>(&it).ok());
        let input = answer.map_or(Input::Unanswered(poll.id), Input::Answered);
        let _ = self.inputs.send(input);
    }

    /// Sends a result or a lease that is given back.
    async fn settle(
        self: Arc<Self>,
        number: usize,
        path: &str,
        lease: Lease,
        body: impl Serialize,
    ) {
        if self.send(number, path, &body).await.is_some() {
            let _ = self.inputs.send(Input::Settled(lease));
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let terms = Terms {
        lease_ms: arguments.lease_seconds * 1_000,
        hold_ms: arguments.lease_seconds * 200,
        request_ms: 500,
        poll_ms: 10,
        attempts_max: 5,
    };
    let (mut disk, found) = Disk::open(&arguments.disk)?;
    let started = Instant::now();
    let now = || Moment(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    let incarnation = u64::from(std::process::id());
    let recovered = Recovered {
        disk: found,
        ..Recovered::default()
    };
    let (mut agent, mut effects) = HostAgent::new(terms, incarnation, now(), recovered);
    let (inputs, mut events) = unbounded_channel();
    let http = reqwest::Client::builder()
        .connect_timeout(Duration::from_millis(500))
        .timeout(Duration::from_secs(5))
        .build()?;
    let link = Arc::new(Link {
        http,
        key: arguments.key,
        coordinators: arguments.coordinators,
        inputs,
    });
    let mut requests = 0;
    loop {
        for effect in std::mem::take(&mut effects) {
            requests += 1;
            let busy = agent.busy().count() as u64;
            let offer = offer(arguments.guests, busy);
            execute(&link, &mut disk, requests, offer, effect)?;
        }
        let wait = Duration::from_millis(agent.wake().since(now()));
        let input = tokio::time::timeout(wait, events.recv()).await;
        let input = input.ok().flatten().unwrap_or(Input::Tick);
        effects = agent.step(now(), input);
        if agent.wake() <= now() {
            effects.extend(agent.step(now(), Input::Tick));
        }
    }
}

/// Executes an effect. Requests go to the coordinators in turn, by their number.
fn execute(
    link: &Arc<Link>,
    disk: &mut Disk,
    number: usize,
    offer: Offer,
    effect: Effect,
) -> anyhow::Result<()> {
    let inputs = &link.inputs;
    let link = Arc::clone(link);
    match effect {
        Effect::Poll { id, held, hold_ms } => {
            let poll = Poll {
                id,
                held,
                hold_ms,
                offer,
            };
            tokio::spawn(link.poll(number, poll));
        }
        Effect::Report(report) => {
            let Report { lease, .. } = report;
            tokio::spawn(link.settle(number, "report", lease, report));
        }
        Effect::Release(release) => {
            tokio::spawn(link.settle(number, "release", release.lease, release));
        }
        Effect::Record(lease, ..) => {
            disk.write("lease", lease)?;
            inputs.send(Input::Recorded(lease))?;
        }
        Effect::Start(lease, _) => inputs.send(Input::Ended(lease, Outcome::Success))?,
        Effect::Stop(lease) => inputs.send(Input::Gone(lease))?,
        Effect::Store(report) => {
            disk.write("result", report.lease)?;
            inputs.send(Input::Stored(report.lease))?;
        }
        Effect::Forget(lease) => disk.write("forget", lease)?,
        Effect::Guard(..) | Effect::Fetch(..) | Effect::Try(..) | Effect::EndTrial(..) => {}
    }
    Ok(())
}

/// Returns the offer of a host.
fn offer(guests: u64, busy: u64) -> Offer {
    let capacity = |guests| Capacity {
        guests,
        cpus: guests,
        memory_mib: guests,
        resources: BTreeMap::new(),
    };
    let toolchain = "default".parse().ok();
    let machine = OfferedMachine {
        toolchains: toolchain.into_iter().collect(),
        ..OfferedMachine::default()
    };
    let linux = "linux".parse().ok().map(|it| (it, machine));
    Offer {
        machines: linux.into_iter().collect(),
        total: capacity(guests),
        free: capacity(guests.saturating_sub(busy)),
        ..Offer::default()
    }
}
