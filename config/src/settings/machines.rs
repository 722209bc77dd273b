//! The settings of machines: their revisions, and where new ones come from.

use std::time::Duration;

use super::reader::Reader;
use crate::canary::Terms;
use crate::ssh::SshHost;

/// The settings of machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machines {
    /// The number of newest revisions of each machine that are kept; all if `None`. The current
    /// revision, pinned ones and those in use are always kept.
    pub keep_revisions: Option<usize>,
    /// The age up to which revisions are kept.
    pub keep_age: Duration,
    /// The free space of a volume above which nothing is deleted; if `None`, free space
    /// does not matter.
    pub free_bytes_enough: Option<u64>,
    /// The terms on which revisions that the agent fetches are put on trial; `None` to make them
    /// current at once.
    pub trial: Option<Terms>,
    /// The source of new revisions.
    pub pull: Pull,
}

/// The hosts that new revisions are fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// The hosts, nearest first.
    pub hosts: Vec<SshHost>,
    /// The interval.
    pub interval: Duration,
    /// The ssh command: a program and its options.
    pub ssh: Vec<String>,
}

pub(super) fn machines(reader: &mut Reader<'_>) -> Machines {
    let days = reader.number("machines.keep_days", 0, 0..=36_500);
    Machines {
        keep_revisions: reader.optional_count("machines.keep_revisions", 0, 1_000_000),
        keep_age: Duration::from_hours(24 * days),
        free_bytes_enough: reader.optional_mebibytes("machines.enough_free_mib"),
        trial: trial(reader),
        pull: pull(reader),
    }
}

fn trial(reader: &mut Reader<'_>) -> Option<Terms> {
    let text = reader.optional_text("machines.canary", |text| match text.parse::<Terms>() {
        Ok(_) => Ok(()),
        Err(_) => Err("a number of builds such as `3 of 10` is expected"),
    });
    text?.parse().ok()
}

fn pull(reader: &mut Reader<'_>) -> Pull {
    let hosts = reader.list("machines.pull_from", "hosts such as `user@host`", |text| {
        text.parse().ok()
    });
    let minutes = reader.number("machines.pull_minutes", 60, 1..=100_000);
    let ssh = reader.list("machines.pull_ssh", "the words of a command", |text| {
        Some(text.to_owned())
    });
    Pull {
        hosts,
        interval: Duration::from_mins(minutes),
        ssh: if ssh.is_empty() {
            vec!["ssh".to_owned()]
        } else {
            ssh
        },
    }
}
