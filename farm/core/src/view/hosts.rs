//! The hosts and the machines of a farm, as clients see them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use config::MachineName;
use config::task::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::TrialView;
use crate::placement::unlike;
use crate::site::{HostState, Site};
use crate::trials::TrialState;
use crate::windows::{UNKNOWN_MS, Weekly, Window, WindowId, ends_before};
use crate::{Offer, Published, Revision, Standing};

/// The largest number of hosts with one revision of a machine that are named, and of its revisions.
pub const NAMED_MAX: usize = 12;

/// The query of `GET /farm/v1/hosts`. A filter that is `None` matches all hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostQuery {
    /// The state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<HostState>,
    /// A machine that it offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineName>,
    /// A part of its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The host whose name comes before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The length of the page; without it all hosts that match, as clients expect that know no pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// A host of a farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// The name.
    pub name: String,
    /// True if no build is placed there.
    pub drained: bool,
    /// True if it has given a sign of life within half a lease.
    pub alive: bool,
    /// True if its key was taken away.
    #[serde(default)]
    pub revoked: bool,
    /// The last sign of life.
    pub seen: Option<Timestamp>,
    /// The number of its builds.
    pub builds: u64,
    /// The last offer.
    pub offer: Offer,
    /// The machines for which it gets no builds until a person mends that, each with a sentence.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unlike: BTreeMap<MachineName, String>,
    /// The maintenance windows, the next one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowView>,
}

/// A maintenance window of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowView {
    /// The number.
    pub id: WindowId,
    /// The begin of the present or next occurrence.
    pub from: Timestamp,
    /// Its end.
    pub until: Timestamp,
    /// The days and times at which it comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<Weekly>,
    /// The reason, for people.
    #[serde(default)]
    pub reason: String,
    /// True if the host gets no builds now because of it.
    pub open: bool,
}

impl WindowView {
    /// Returns a window as a time of the store shows it.
    pub fn new(window: Window, now_ms: u64) -> Self {
        let time = |milliseconds: u64| {
            Timestamp::from_millisecond(milliseconds.cast_signed()).unwrap_or_default()
        };
        Self {
            id: window.id,
            from: time(window.occurrence.opens_ms),
            until: time(window.occurrence.closes_ms),
            open: window.is_open(now_ms),
            weekly: window.weekly,
            reason: window.reason,
        }
    }

    /// Returns the reason with a comma before it, if there is one.
    fn because(&self) -> String {
        if self.reason.is_empty() {
            return String::new();
        }
        format!(", {}", self.reason)
    }
}

impl fmt::Display for WindowView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id, from, until, ..
        } = self;
        write!(f, "{}: {from} to {until}", id.0)?;
        if let Some(weekly) = &self.weekly {
            write!(f, ", each {weekly}")?;
        }
        f.write_str(&self.because())?;
        if self.open {
            write!(f, " (open)")?;
        }
        Ok(())
    }
}

impl HostView {
    /// Notes the machines for which it gets no builds until a person mends that.
    #[must_use]
    pub fn compared(mut self, published: &BTreeMap<MachineName, Published>) -> Self {
        let machines = unlike_machines(&self.offer, published);
        self.unlike = machines.map(|(name, it)| (name.clone(), it)).collect();
        self
    }

    /// Returns the window that is open.
    pub fn open_window(&self) -> Option<&WindowView> {
        self.windows.iter().find(|it| it.open)
    }

    /// Returns the state.
    pub fn state(&self) -> HostState {
        let is_in_window = self.open_window().is_some();
        match self {
            Self { revoked: true, .. } => HostState::Revoked,
            Self { seen: None, .. } => HostState::New,
            Self { alive: false, .. } => HostState::Silent,
            Self { drained: true, .. } => HostState::Drained,
            _ if is_in_window => HostState::Maintenance,
            _ if self.offer.halt.is_some() => HostState::Halted,
            _ => HostState::Alive,
        }
    }
}

/// Returns the reason for which the windows of a host keep a build off it, if one does: it is open, or would
/// begin before the build usually ends.
pub fn window_refusal(
    windows: &[WindowView],
    now: Timestamp,
    usual_seconds: Option<u64>,
) -> Option<String> {
    if let Some(open) = windows.iter().find(|it| it.open) {
        return Some(format!(
            "maintenance until {}{}",
            open.until,
            open.because()
        ));
    }
    let next = windows.iter().min_by_key(|it| it.from)?;
    let left = u64::try_from(next.from.duration_since(now).as_millis()).unwrap_or(0);
    let usual_ms = usual_seconds.map(|it| it.saturating_mul(1000));
    if ends_before(Some(left), usual_ms) {
        return None;
    }
    let lasts = usual_ms.unwrap_or(UNKNOWN_MS) / 1000;
    let known = if usual_seconds.is_some() {
        "usually takes"
    } else {
        "counts as"
    };
    Some(format!(
        "maintenance begins at {}{}, and the build {known} {lasts} s",
        next.from,
        next.because()
    ))
}

/// Returns the machines of an offer that get no builds until a person mends that: their revision is newer
/// than the published one, or their content is another one or unknown. An older revision is not among them: the
/// host fetches the published one by itself.
pub fn unlike_machines<'a>(
    offer: &'a Offer,
    published: &'a BTreeMap<MachineName, Published>,
) -> impl Iterator<Item = (&'a MachineName, String)> {
    offer.machines.iter().filter_map(|(name, offered)| {
        let row = published.get(name)?;
        let standing = row.standing(offered.revision, offered.content.as_ref());
        if matches!(standing, Standing::Current | Standing::Older) {
            return None;
        }
        Some((name, unlike(name, offered, row)?.to_string()))
    })
}

/// A machine of a farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineView {
    /// The name.
    pub name: MachineName,
    /// The published revision; `None` if hosts have it and the farm has published none.
    pub revision: Option<Revision>,
    /// The digest of its content manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
    /// The newest revisions on hosts that may get builds of the machine, the newest first.
    #[serde(default)]
    pub revisions: Vec<RevisionView>,
    /// The number of hosts that get no builds of the machine until a person mends that.
    #[serde(default)]
    pub unlike_hosts: u64,
    /// The revisions on some of the hosts that have the machine: [`NAMED_MAX`] of each revision at most.
    pub hosts: BTreeMap<String, Revision>,
    /// Some of the hosts that get no builds of the machine until a person mends that, each with a sentence.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unlike: BTreeMap<String, String>,
    /// The last trial of a revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialView>,
}

/// A revision of a machine on hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionView {
    /// The revision.
    pub revision: Revision,
    /// The number of hosts that have it.
    pub hosts: u64,
}

impl MachineView {
    fn new(name: &MachineName, published: Option<&Published>) -> Self {
        Self {
            name: name.clone(),
            revision: published.map(|it| it.revision),
            content: published.and_then(|it| it.content.clone()),
            revisions: Vec::new(),
            unlike_hosts: 0,
            hosts: BTreeMap::new(),
            unlike: BTreeMap::new(),
            trial: None,
        }
    }

    /// Counts a host that may get builds of the machine, and names the first ones.
    fn add(&mut self, host: &str, revision: Revision) {
        let found = self
            .revisions
            .binary_search_by_key(&Reverse(revision), |it| Reverse(it.revision));
        let place = found.unwrap_or_else(|place| {
            let new = RevisionView { revision, hosts: 0 };
            self.revisions.insert(place, new);
            place
        });
        self.revisions[place].hosts += 1;
        if self.revisions[place].hosts <= NAMED_MAX as u64 {
            self.hosts.insert(host.to_owned(), revision);
        }
    }

    /// Counts a host that gets no builds of the machine, and names the first ones.
    fn add_unlike(&mut self, host: &str, revision: Revision, sentence: String) {
        self.unlike_hosts += 1;
        if self.unlike.len() < NAMED_MAX {
            self.hosts.insert(host.to_owned(), revision);
            self.unlike.insert(host.to_owned(), sentence);
        }
    }

    /// Forgets the hosts of old revisions, of which there may be as many as hosts.
    fn shorten(&mut self) {
        self.revisions.truncate(NAMED_MAX);
        if let Some(oldest) = self.revisions.last().map(|it| it.revision) {
            let unlike = &self.unlike;
            self.hosts
                .retain(|host, revision| *revision >= oldest || unlike.contains_key(host));
        }
    }
}

/// Returns the machines of a farm from what it has published, the last trials and what its hosts offer.
pub fn machines(
    published: &BTreeMap<MachineName, Published>,
    trials: &[TrialState],
    hosts: &[Site],
) -> Vec<MachineView> {
    let view = |name: &MachineName| MachineView::new(name, published.get(name));
    let mut machines: BTreeMap<_, _> = published.keys().map(|it| (it, view(it))).collect();
    for state in trials {
        let machine = machines.get_mut(&state.machine);
        if let Some(machine) = machine {
            machine.trial = Some(TrialView::from(state));
        }
    }
    for host in hosts {
        let mut unlike: BTreeMap<_, _> = unlike_machines(&host.offer, published).collect();
        for (name, offered) in &host.offer.machines {
            let machine = machines.entry(name).or_insert_with(|| view(name));
            match unlike.remove(name) {
                Some(sentence) => machine.add_unlike(&host.name, offered.revision, sentence),
                None => machine.add(&host.name, offered.revision),
            }
        }
    }
    machines.values_mut().for_each(MachineView::shorten);
    machines.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OfferedMachine;

    #[test]
    fn a_host_with_another_revision_says_so_and_one_that_is_behind_does_not() {
        let digest = |digit: &str| digit.repeat(64).parse().ok();
        let published = Published {
            revision: Revision(2),
            content: digest("a"),
        };
        let published = [("linux".parse().unwrap(), published)].into();
        let said = |revision, content: Option<Digest>| {
            let machine = OfferedMachine {
                revision: Revision(revision),
                content,
                ..OfferedMachine::default()
            };
            let mut host = host("a", "linux", 0);
            host.offer.machines = [("linux".parse().unwrap(), machine)].into();
            let machine = &machines(&published, &[], &[site(&host)])[0];
            assert_eq!(machine.unlike_hosts, machine.unlike.len() as u64);
            let unlike = machine.unlike.get("a").cloned().unwrap_or_default();
            let shown: Vec<_> = host.compared(&published).unlike.into_values().collect();
            assert_eq!(shown.concat(), unlike);
            unlike
        };
        assert_eq!(said(2, digest("a")), "");
        assert_eq!(said(1, digest("b")), "");
        assert_eq!(
            said(3, None),
            "has revision 3 of linux, and 2 is published; `buildhost publish linux 3` in the farm gives it to \
             all hosts, and `buildhost rollback linux` there takes it back"
        );
        assert_eq!(
            said(2, digest("b")),
            "has revision 2 of linux with other content than the published one; after `buildhost \
             delete linux` there it fetches the published one"
        );
        assert_eq!(
            said(2, None),
            "does not know the content of revision 2 of linux; `buildhost record linux 2` there reads it"
        );
    }

    fn site(host: &HostView) -> Site {
        Site {
            name: host.name.clone(),
            state: host.state(),
            offer: host.offer.clone().into(),
        }
    }

    fn host(name: &str, machine: &str, revision: u64) -> HostView {
        HostView {
            name: name.to_owned(),
            drained: false,
            alive: true,
            revoked: false,
            seen: None,
            builds: 0,
            offer: Offer {
                machines: [(
                    machine.parse().unwrap(),
                    OfferedMachine {
                        revision: Revision(revision),
                        ..OfferedMachine::default()
                    },
                )]
                .into(),
                ..Offer::default()
            },
            unlike: BTreeMap::new(),
            windows: Vec::new(),
        }
    }

    #[test]
    fn a_window_keeps_builds_off_while_it_is_open_and_when_they_would_not_end_in_time() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut host = host("a", "linux", 1);
        host.seen = Some(at("2026-12-01T12:00:00Z"));
        let window = WindowView {
            id: WindowId(7),
            from: at("2026-12-01T14:00:00Z"),
            until: at("2026-12-01T16:00:00Z"),
            weekly: None,
            reason: "kernel".to_owned(),
            open: false,
        };
        assert_eq!(
            window.to_string(),
            "7: 2026-12-01T14:00:00Z to 2026-12-01T16:00:00Z, kernel"
        );
        host.windows = vec![window];
        let now = at("2026-12-01T13:55:00Z");
        assert_eq!(window_refusal(&host.windows, now, Some(300)), None);
        assert_eq!(host.state(), HostState::Alive);
        assert_eq!(
            window_refusal(&host.windows, now, Some(301)).unwrap(),
            "maintenance begins at 2026-12-01T14:00:00Z, kernel, and the build usually takes 301 s"
        );
        assert!(
            window_refusal(&host.windows, now, None)
                .unwrap()
                .ends_with("counts as 600 s")
        );
        host.windows[0].open = true;
        assert_eq!(
            window_refusal(&host.windows, now, Some(1)).unwrap(),
            "maintenance until 2026-12-01T16:00:00Z, kernel"
        );
        assert_eq!(host.state(), HostState::Maintenance);
    }

    #[test]
    fn machines_are_those_that_are_published_or_offered() {
        let published = [("bsd", 3), ("linux", 2)];
        let published = published.map(|(name, it)| {
            let revision = Revision(it);
            let published = Published {
                revision,
                content: None,
            };
            (name.parse().unwrap(), published)
        });
        let hosts = [("a", "linux", 2), ("b", "linux", 1), ("c", "mac", 7)];
        let hosts = hosts.map(|(name, machine, revision)| site(&host(name, machine, revision)));
        let found = machines(&published.into(), &[], &hosts);
        let found: Vec<_> = found
            .iter()
            .map(|it| (it.name.as_str(), it.revision.map(|it| it.0), it.hosts.len()))
            .collect();
        assert_eq!(
            found,
            [("bsd", Some(3), 0), ("linux", Some(2), 2), ("mac", None, 1)]
        );
    }

    #[test]
    fn a_machine_names_few_of_many_hosts_and_counts_them() {
        let published = Published {
            revision: Revision(100),
            content: None,
        };
        let published = [("linux".parse().unwrap(), published)].into();
        let hosts = (0..1000_u64).map(|it| {
            let revision = match it {
                0..500 => 100,
                500..900 => 99,
                _ => it - 900,
            };
            site(&host(&format!("host{it:03}"), "linux", revision))
        });
        let mut hosts: Vec<_> = hosts.collect();
        let machine = &machines(&published, &[], &hosts)[0];
        let counts = machine.revisions.iter().map(|it| (it.revision.0, it.hosts));
        let counts: Vec<_> = counts.take(3).collect();
        assert_eq!(counts, [(100, 500), (99, 401), (98, 1)]);
        assert_eq!(machine.revisions.len(), NAMED_MAX);
        assert_eq!(machine.hosts.len(), 2 * NAMED_MAX + (NAMED_MAX - 2));
        for it in &mut hosts {
            *it = site(&host(&it.name, "linux", 101));
        }
        let machine = &machines(&published, &[], &hosts)[0];
        assert_eq!(machine.unlike_hosts, 1000);
        assert_eq!(
            (machine.unlike.len(), machine.hosts.len()),
            (NAMED_MAX, NAMED_MAX)
        );
    }
}
