//! Trials of revisions over the whole farm: what hosts are told, what they have, and the verdicts.
//!
//! Any coordinator may give a verdict: it is a function of rows that all of them read, and counts only if
//! the trial is still open.

use std::collections::BTreeMap;

use config::canary::{self, Evidence, TrialBuild, TrialResult, TrialVerdict};
use config::task::Outcome;
use config::{BuildId, MachineName, ToolchainName};
use serde::{Deserialize, Serialize};

use crate::{Offer, OfferedMachine, OfferedTrial, Published};

/// The number of a trial among all trials of a farm. A later one has a higher number.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TrialNumber(pub u64);

/// A trial, as hosts are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialOrder {
    /// The number. An answer that a coordinator took from what it read before has no higher one.
    pub number: TrialNumber,
    /// The revision and its content.
    #[serde(flatten)]
    pub candidate: Published,
    /// The reason for which the revision was rolled back; `None` while the trial is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<String>,
}

/// The last trial of a machine on a host that the farm has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostTrial {
    /// The number.
    pub number: TrialNumber,
    /// True until the host has noted the end.
    pub is_open: bool,
}

/// A trial of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The number.
    pub number: TrialNumber,
    /// The revision on trial, and its content.
    pub candidate: Published,
    /// The terms.
    pub terms: canary::Terms,
    /// The verdict and its reason; `None` while the trial is open.
    pub end: Option<(TrialVerdict, String)>,
}

impl Trial {
    /// Returns true until there is a verdict.
    pub fn is_open(&self) -> bool {
        self.end.is_none()
    }

    /// Returns what hosts are told. A revision that was promoted is published instead.
    pub fn order(&self) -> Option<TrialOrder> {
        let rolled_back = match &self.end {
            None => None,
            Some((TrialVerdict::RolledBack, reason)) => Some(reason.clone()),
            Some((TrialVerdict::Promoted, _)) => return None,
        };
        Some(TrialOrder {
            number: self.number,
            candidate: self.candidate.clone(),
            rolled_back,
        })
    }

    /// Returns true if a build of the share could run on the candidate of a host that has the machine.
    pub fn takes(&self, build: BuildId, toolchain: &ToolchainName, host: &OfferedMachine) -> bool {
        let offered = host.trial.as_ref().filter(|it| it.is_of(&self.candidate));
        let is_ready = offered.is_some_and(|it| it.toolchains.contains(toolchain));
        self.is_open() && is_ready && self.terms.select(build)
    }
}

impl OfferedTrial {
    /// Returns true if this is the revision, with its content.
    pub fn is_of(&self, candidate: &Published) -> bool {
        self.revision == candidate.revision && self.content == candidate.content
    }
}

/// Returns the result of a build on a candidate that a host has reported, and that is repeated.
pub fn failure(outcome: Outcome) -> TrialResult {
    let message = outcome.to_string();
    match outcome {
        Outcome::Abnormal => TrialResult::HostFailed { message },
        _ => TrialResult::Failed { outcome, message },
    }
}

/// The last trial of a machine with its builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialState {
    /// The machine.
    pub machine: MachineName,
    /// The trial.
    pub trial: Trial,
    /// The begin, in milliseconds since 1970 by the clock of the store.
    pub began_ms: u64,
    /// The end.
    pub ended_ms: Option<u64>,
    /// The revision that is published now.
    pub published: Published,
    /// The builds that ran on the candidate, by number. Those that a silent host had are left out.
    pub builds: Vec<TrialBuild>,
}

impl TrialState {
    /// Returns the evidence on the candidate.
    pub fn evidence(&self) -> Evidence<'_> {
        Evidence::new(self.trial.terms, &self.builds)
    }

    /// Returns the number of builds that may start on the candidate now.
    pub fn vacancies(&self) -> usize {
        match self.verdict(&BTreeMap::new()) {
            Some(_) => 0,
            None => self.evidence().vacancies(),
        }
    }

    /// Returns the verdict on an open trial and its reason; `None` while more builds must run. The hosts are
    /// those that are alive, by name.
    pub fn verdict(&self, hosts: &BTreeMap<String, &Offer>) -> Option<(TrialVerdict, String)> {
        let (published, candidate) = (&self.published, &self.trial.candidate);
        if published == candidate {
            return Some((TrialVerdict::Promoted, "it was published".to_owned()));
        }
        if published.revision >= candidate.revision {
            let reason = format!("revision {} was published", published.revision.0);
            return Some((TrialVerdict::RolledBack, reason));
        }
        if let Some(reason) = self.failed_bootstrap(hosts) {
            return Some((TrialVerdict::RolledBack, reason));
        }
        self.evidence().verdict(published.revision.0)
    }

    /// Returns the failure of a bootstrap that has succeeded on no host.
    fn failed_bootstrap(&self, hosts: &BTreeMap<String, &Offer>) -> Option<String> {
        let offered = hosts.iter().filter_map(|(host, offer)| {
            let trial = offer.machines.get(&self.machine)?.trial.as_ref()?;
            trial.is_of(&self.trial.candidate).then_some((host, trial))
        });
        let offered: Vec<_> = offered.collect();
        let is_ready = |toolchain: &ToolchainName| {
            let mut trials = offered.iter().map(|(_, trial)| trial);
            trials.any(|it| it.toolchains.contains(toolchain))
        };
        offered.iter().find_map(|(host, trial)| {
            let mut failures = trial.failures.iter();
            let (toolchain, message) = failures.find(|(toolchain, _)| !is_ready(toolchain))?;
            Some(format!(
                "its bootstrap with toolchain {toolchain} failed on host {host}: {message}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Revision;

    fn revision(number: u64) -> Published {
        Published {
            revision: Revision(number),
            content: "a".repeat(64).parse().ok(),
        }
    }

    fn state(published: u64, builds: Vec<TrialBuild>) -> TrialState {
        TrialState {
            machine: "linux".parse().unwrap(),
            trial: Trial {
                number: TrialNumber(1),
                candidate: revision(5),
                terms: "1 of 1".parse().unwrap(),
                end: None,
            },
            began_ms: 0,
            ended_ms: None,
            published: revision(published),
            builds,
        }
    }

    fn succeeded() -> TrialBuild {
        TrialBuild {
            id: BuildId(1),
            target: "hello".to_owned(),
            result: Some(TrialResult::Succeeded),
            outcome: Some(Outcome::Success),
        }
    }

    fn offer(toolchain: &str, failure: Option<&str>) -> Offer {
        let toolchain: ToolchainName = toolchain.parse().unwrap();
        let mut trial = OfferedTrial {
            revision: Revision(5),
            content: revision(5).content,
            ..OfferedTrial::default()
        };
        match failure {
            Some(message) => drop(trial.failures.insert(toolchain, message.to_owned())),
            None => drop(trial.toolchains.insert(toolchain)),
        }
        let machine = OfferedMachine {
            trial: Some(trial),
            ..OfferedMachine::default()
        };
        Offer {
            machines: [("linux".parse().unwrap(), machine)].into(),
            ..Offer::default()
        }
    }

    fn verdict(state: &TrialState, hosts: &[(&str, &Offer)]) -> Option<String> {
        let hosts = hosts
            .iter()
            .map(|(name, offer)| ((*name).to_owned(), *offer));
        let (verdict, reason) = state.verdict(&hosts.collect())?;
        Some(format!("{verdict}: {reason}"))
    }

    #[test]
    fn evidence_decides_unless_a_publication_has_decided() {
        let said = |published, builds| verdict(&state(published, builds), &[]);
        assert_eq!(said(4, vec![]), None);
        let enough = said(4, vec![succeeded()]);
        assert_eq!(enough.unwrap(), "promoted: 1 build succeeded on it");
        assert_eq!(said(5, vec![]).unwrap(), "promoted: it was published");
        let newer = said(6, vec![succeeded()]);
        assert_eq!(newer.unwrap(), "rolled back: revision 6 was published");
        let mut other = state(5, vec![]);
        other.published.content = None;
        assert!(verdict(&other, &[]).unwrap().starts_with("rolled back"));
        assert_eq!(state(4, vec![]).vacancies(), 1);
        assert_eq!(state(4, vec![succeeded()]).vacancies(), 0);
        assert_eq!(state(6, vec![]).vacancies(), 0);
    }

    #[test]
    fn a_bootstrap_that_fails_on_a_host_and_succeeds_on_none_rolls_back() {
        let (failed, other) = (offer("gcc", Some("no make")), offer("clang", None));
        let state = state(4, vec![]);
        assert_eq!(
            verdict(&state, &[("a", &other), ("b", &failed)]).unwrap(),
            "rolled back: its bootstrap with toolchain gcc failed on host b: no make"
        );
        let ready = offer("gcc", None);
        assert_eq!(verdict(&state, &[("a", &ready), ("b", &failed)]), None);
        let mut earlier = state.clone();
        earlier.trial.candidate.revision = Revision(6);
        assert_eq!(verdict(&earlier, &[("b", &failed)]), None);
    }

    #[test]
    fn hosts_are_told_of_open_trials_and_of_rollbacks() {
        let mut trial = state(4, vec![]).trial;
        assert_eq!(trial.order().unwrap().rolled_back, None);
        trial.end = Some((TrialVerdict::RolledBack, "it failed".to_owned()));
        let reason = trial.order().unwrap().rolled_back;
        assert_eq!(reason.as_deref(), Some("it failed"));
        trial.end = Some((TrialVerdict::Promoted, "it was published".to_owned()));
        assert_eq!(trial.order(), None);
    }
}
