//! The requests as bytes.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;

/// The greeting of a client of the PR service.
const PR_GREETING: &[u8] = b"PRSERVICE 1.0\nneeds-headers: false\n\n";

/// The greeting of a client of the hash equivalence service.
const HASH_GREETING: &[u8] = b"OEHASHEQUIV 1.1\nneeds-headers: false\n\n";

/// The request that begins a stream of look-ups.
const STREAM: &[u8] = b"{\"get-stream\": null}\n";

/// The number of known tuples.
const KNOWN: u64 = 1000;

/// The versions in the database for exports.
const VERSIONS: u64 = 20_000;

/// The kinds of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Load {
    /// Tuples with a recorded value.
    Known,
    /// New tuples, each of a new package.
    Fresh,
    /// New tuples, sixteen checksums to each new package.
    Shared,
    /// Known tuples, each on a new connection.
    Connect,
    /// New tuples, all of one package.
    Growing,
    /// Exports of one version each, of the database that `scripts/bench` fills.
    Export,
    /// Unihashes of known tasks, in a stream.
    HashKnown,
    /// Unihashes of unknown tasks, in a stream.
    HashUnknown,
    /// Unihashes of known tasks, each on a new connection.
    HashConnect,
    /// Reports of new tasks, each with an outhash of its own.
    HashReport,
    /// Reports of new tasks, sixteen to each new outhash.
    HashEquivalent,
}

impl Load {
    /// Returns true for requests to the hash equivalence service.
    fn is_hash(self) -> bool {
        match self {
            Self::Known
            | Self::Fresh
            | Self::Shared
            | Self::Connect
            | Self::Growing
            | Self::Export => false,
            Self::HashKnown
            | Self::HashUnknown
            | Self::HashConnect
            | Self::HashReport
            | Self::HashEquivalent => true,
        }
    }

    /// Returns true if each request has its own connection.
    pub(crate) fn connects(self) -> bool {
        matches!(self, Self::Connect | Self::HashConnect)
    }

    /// Returns true for lines of a stream.
    fn is_stream(self) -> bool {
        matches!(self, Self::HashKnown | Self::HashUnknown)
    }
}

/// The requests of one run.
#[derive(Debug)]
pub(crate) struct Requests {
    load: Load,
    /// The start time, which makes the packages of this run unique.
    run: u128,
    known: Vec<Vec<u8>>,
}

impl Requests {
    /// Prepares the requests of a load.
    pub(crate) fn new(load: Load) -> Self {
        let run = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos());
        let known = (0..KNOWN).map(|number| match load {
            Load::HashKnown => format!("bench {number:064x}\n").into_bytes(),
            Load::HashConnect => look_up(number),
            _ => request(&format!("known-{number}-r0"), number),
        });
        Self {
            load,
            run,
            known: known.collect(),
        }
    }

    /// Returns the greeting.
    pub(crate) fn greeting(&self) -> &'static [u8] {
        if self.load.is_hash() {
            HASH_GREETING
        } else {
            PR_GREETING
        }
    }

    /// Returns the request before the first one, which has a reply of one line.
    pub(crate) fn begin(&self) -> Option<&'static [u8]> {
        self.load.is_stream().then_some(STREAM)
    }

    /// Returns the requests that record the known tuples or tasks.
    pub(crate) fn preparation(&self) -> Vec<Vec<u8>> {
        match self.load {
            Load::Known | Load::Connect => self.known.clone(),
            Load::HashKnown | Load::HashConnect => {
                (0..KNOWN).map(|number| report(number, number)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Appends the request with a number.
    pub(crate) fn append(&self, out: &mut Vec<u8>, number: u64) {
        let run = self.run;
        match self.load {
            Load::Known | Load::Connect | Load::HashKnown | Load::HashConnect => {
                let index = usize::try_from(number.wrapping_mul(7919) % KNOWN).unwrap_or(0);
                out.extend_from_slice(&self.known[index]);
            }
            Load::Fresh => out.extend(request(&format!("fresh-{run}-{number}-r0"), number)),
            Load::Shared => {
                out.extend(request(&format!("shared-{run}-{}-r0", number / 16), number));
            }
            Load::Export => out.extend(export(number.wrapping_mul(7919) % VERSIONS)),
            Load::Growing => out.extend(request(&format!("growing-{run}-r0"), number)),
            Load::HashUnknown => {
                let written = writeln!(out, "bench {run:032x}{number:032x}");
                debug_assert!(written.is_ok());
            }
            Load::HashReport => out.extend(self.new_report(number, number)),
            Load::HashEquivalent => out.extend(self.new_report(number, number / 16)),
        }
    }
}

impl Requests {
    /// Returns the report of a task that only this run has.
    fn new_report(&self, task: u64, outhash: u64) -> Vec<u8> {
        let run = self.run;
        report_of(
            &format!("{run:032x}{task:032x}"),
            &format!("{run:032x}{outhash:032x}"),
        )
    }
}

fn look_up(task: u64) -> Vec<u8> {
    format!(
        "{{\"get\": {{\"taskhash\": \"{task:064x}\", \"method\": \"bench\", \"all\": false}}}}\n"
    )
    .into_bytes()
}

fn report(task: u64, outhash: u64) -> Vec<u8> {
    report_of(&format!("{task:064x}"), &format!("{outhash:064x}"))
}

/// Returns a report as BitBake sends it.
fn report_of(taskhash: &str, outhash: &str) -> Vec<u8> {
    format!(
        "{{\"report\": {{\"PN\": \"busybox\", \"PV\": \"1.36.1\", \"PR\": \"r0\", \"task\": \"do_compile\", \
         \"owner\": null, \"taskhash\": \"{taskhash}\", \"method\": \"bench\", \
         \"outhash\": \"{outhash}\", \"unihash\": \"{taskhash}\"}}}}\n"
    )
    .into_bytes()
}

fn request(version: &str, checksum: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(200);
    let written = writeln!(
        out,
        "{{\"get-pr\": {{\"version\": \"{version}\", \"pkgarch\": \"core2-64\", \
         \"checksum\": \"{checksum:064x}\", \"history\": false}}}}"
    );
    debug_assert!(written.is_ok());
    out
}

fn export(version: u64) -> Vec<u8> {
    format!(
        "{{\"export\": {{\"version\": \"rows-{version}-r0\", \"pkgarch\": null, \
         \"checksum\": null, \"colinfo\": false, \"history\": true}}}}\n"
    )
    .into_bytes()
}
