//! The hosts and the machines of a farm, as clients see them.

use std::collections::BTreeMap;
use std::fmt;

use config::MachineName;
use config::task::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::placement::unlike;
use crate::windows::{UNKNOWN_MS, Weekly, Window, WindowId, ends_before};
use crate::{Offer, OfferedMachine, Published, Revision, Standing};

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
    /// Notes the machines whose revision is newer than the published one, or whose content is another one or
    /// unknown. An older revision is not among them: the host fetches the published one by itself.
    #[must_use]
    pub fn compared(mut self, published: &BTreeMap<MachineName, Published>) -> Self {
        let needs_person = |(name, offered): (&MachineName, &OfferedMachine)| {
            let row = published.get(name)?;
            let standing = row.standing(offered.revision, offered.content.as_ref());
            let refusal = unlike(name, offered, row)?;
            let fetches = matches!(standing, Standing::Current | Standing::Older);
            (!fetches).then(|| (name.clone(), refusal.to_string()))
        };
        let machines = self.offer.machines.iter();
        self.unlike = machines.filter_map(needs_person).collect();
        self
    }

    /// Returns the window that is open.
    pub fn open_window(&self) -> Option<&WindowView> {
        self.windows.iter().find(|it| it.open)
    }

    /// Returns the reason for which a window keeps a build off the host, if one does: it is open, or would
    /// begin before the build usually ends.
    pub fn window_refusal(&self, now: Timestamp, usual_seconds: Option<u64>) -> Option<String> {
        if let Some(open) = self.open_window() {
            return Some(format!(
                "maintenance until {}{}",
                open.until,
                open.because()
            ));
        }
        let next = self.windows.iter().min_by_key(|it| it.from)?;
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

    /// Returns the state in one word.
    pub fn state(&self) -> &'static str {
        let is_in_window = self.open_window().is_some();
        match self {
            Self { revoked: true, .. } => "revoked",
            Self { seen: None, .. } => "new",
            Self { alive: false, .. } => "silent",
            Self { drained: true, .. } => "drained",
            _ if is_in_window => "maintenance",
            _ => "alive",
        }
    }
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
    /// The revisions on the hosts that have the machine.
    pub hosts: BTreeMap<String, Revision>,
    /// Those of these hosts that get no builds of the machine until a person mends that, each with a
    /// sentence.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unlike: BTreeMap<String, String>,
}

/// Returns the machines of a farm from what it has published and what its hosts offer.
pub fn machines(
    published: &BTreeMap<MachineName, Published>,
    hosts: &[HostView],
) -> Vec<MachineView> {
    let mut machines: BTreeMap<&MachineName, MachineView> = BTreeMap::new();
    let view = |name: &MachineName| MachineView {
        name: name.clone(),
        revision: published.get(name).map(|it| it.revision),
        content: published.get(name).and_then(|it| it.content.clone()),
        hosts: BTreeMap::new(),
        unlike: BTreeMap::new(),
    };
    for name in published.keys() {
        machines.insert(name, view(name));
    }
    for host in hosts {
        for (name, offered) in &host.offer.machines {
            let machine = machines.entry(name).or_insert_with(|| view(name));
            machine.hosts.insert(host.name.clone(), offered.revision);
            if let Some(reason) = host.unlike.get(name) {
                machine.unlike.insert(host.name.clone(), reason.clone());
            }
        }
    }
    machines.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let hosts = [host.compared(&published)];
            let machine = &machines(&published, &hosts)[0];
            machine.unlike.get("a").cloned().unwrap_or_default()
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
        assert_eq!(host.window_refusal(now, Some(300)), None);
        assert_eq!(host.state(), "alive");
        assert_eq!(
            host.window_refusal(now, Some(301)).unwrap(),
            "maintenance begins at 2026-12-01T14:00:00Z, kernel, and the build usually takes 301 s"
        );
        assert!(
            host.window_refusal(now, None)
                .unwrap()
                .ends_with("counts as 600 s")
        );
        host.windows[0].open = true;
        assert_eq!(
            host.window_refusal(now, Some(1)).unwrap(),
            "maintenance until 2026-12-01T16:00:00Z, kernel"
        );
        assert_eq!(host.state(), "maintenance");
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
        let hosts = [
            host("a", "linux", 2),
            host("b", "linux", 1),
            host("c", "mac", 7),
        ];
        let found = machines(&published.into(), &hosts);
        let found: Vec<_> = found
            .iter()
            .map(|it| (it.name.as_str(), it.revision.map(|it| it.0), it.hosts.len()))
            .collect();
        assert_eq!(
            found,
            [("bsd", Some(3), 0), ("linux", Some(2), 2), ("mac", None, 1)]
        );
    }
}
