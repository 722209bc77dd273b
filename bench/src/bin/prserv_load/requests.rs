//! The requests as bytes.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;

/// The greeting of a client.
pub(crate) const GREETING: &[u8] = b"PRSERVICE 1.0\nneeds-headers: false\n\n";

/// The number of known tuples.
const KNOWN: u64 = 1000;

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
        let known = (0..KNOWN).map(|number| request(&format!("known-{number}-r0"), number));
        Self {
            load,
            run,
            known: known.collect(),
        }
    }

    /// Returns the requests that record the known tuples.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.known
            .iter()
            .filter(|_| matches!(self.load, Load::Known | Load::Connect))
    }

    /// Appends the request with a number.
    pub(crate) fn append(&self, out: &mut Vec<u8>, number: u64) {
        let run = self.run;
        match self.load {
            Load::Known | Load::Connect => {
                let index = usize::try_from(number.wrapping_mul(7919) % KNOWN).unwrap_or(0);
                out.extend_from_slice(&self.known[index]);
            }
            Load::Fresh => out.extend(request(&format!("fresh-{run}-{number}-r0"), number)),
            Load::Shared => {
                out.extend(request(&format!("shared-{run}-{}-r0", number / 16), number));
            }
            Load::Growing => out.extend(request(&format!("growing-{run}-r0"), number)),
        }
    }
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
