//! The publication of a revision: its content is that which the hosts of the farm have.

use std::collections::BTreeMap;

use config::MachineName;
use config::task::Digest;

use crate::site::Site;
use crate::{Published, Revision};

/// A publication without a content that can be known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicationError {
    /// No host that is alive has the revision.
    #[error(
        "no host that is alive has revision {} of {machine}; push it to one of them first, or name its content",
        revision.0
    )]
    Absent {
        /// The machine.
        machine: MachineName,
        /// The revision.
        revision: Revision,
    },
    /// None of the hosts that have it knows its content.
    #[error(
        "host {host} does not know the content of revision {} of {machine}; `buildhost record {machine} {}` there reads it",
        revision.0, revision.0
    )]
    Unknown {
        /// The machine.
        machine: MachineName,
        /// The revision.
        revision: Revision,
        /// A host that has it.
        host: String,
    },
    /// Two hosts have different contents under its number.
    #[error(
        "hosts {} and {} have different contents of revision {} of {machine}; delete the wrong one with \
         `buildhost delete {machine}` there, name the right one ({} or {}), or push a newer revision",
        hosts[0], hosts[1], revision.0, contents[0], contents[1]
    )]
    Different {
        /// The machine.
        machine: MachineName,
        /// The revision.
        revision: Revision,
        /// Two hosts.
        hosts: Box<[String; 2]>,
        /// Their contents.
        contents: Box<[Digest; 2]>,
    },
}

/// Returns a publication with its content: the one that is named, that of an earlier publication, or that
/// of the hosts that are alive and have the revision.
///
/// # Errors
/// The content is not known, or the hosts do not agree.
pub fn publication(
    machine: &MachineName,
    wanted: Published,
    published: Option<&Published>,
    hosts: &[Site],
) -> Result<Published, PublicationError> {
    let revision = wanted.revision;
    let is_older = published.is_some_and(|it| it.revision > revision);
    if wanted.content.is_some() || is_older {
        return Ok(wanted);
    }
    let same = published.filter(|it| it.revision == revision);
    if let Some(known) = same.filter(|it| it.content.is_some()) {
        return Ok(known.clone());
    }
    let (mut known, mut unknown) = (BTreeMap::new(), None);
    for host in hosts.iter().filter(|it| it.state.is_seen()) {
        let Some(offered) = host.offer.machines.get(machine) else {
            continue;
        };
        for (_, content) in offered.revisions().filter(|(it, _)| *it == revision) {
            match content {
                Some(content) => drop(known.entry(content).or_insert(&host.name)),
                None => unknown = Some(host.name.clone()),
            }
        }
    }
    let machine = machine.clone();
    let mut known = known.into_iter();
    match (known.next(), known.next(), unknown) {
        (Some((content, _)), None, _) => Ok(Published {
            revision,
            content: Some(content.clone()),
        }),
        (Some((one, first)), Some((other, second)), _) => Err(PublicationError::Different {
            machine,
            revision,
            hosts: Box::new([first.clone(), second.clone()]),
            contents: Box::new([one.clone(), other.clone()]),
        }),
        (None, _, Some(host)) => Err(PublicationError::Unknown {
            machine,
            revision,
            host,
        }),
        (None, _, None) => Err(PublicationError::Absent { machine, revision }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::HostState;
    use crate::{Offer, OfferedMachine};

    fn content(digit: &str) -> Option<Digest> {
        digit.repeat(64).parse().ok()
    }

    fn host(name: &str, content: Option<Digest>) -> Site {
        let machine = OfferedMachine {
            revision: Revision(2),
            content,
            ..OfferedMachine::default()
        };
        let offer = Offer {
            machines: [("linux".parse().unwrap(), machine)].into(),
            ..Offer::default()
        };
        Site {
            name: name.to_owned(),
            state: HostState::Alive,
            offer: offer.into(),
        }
    }

    fn published(revision: u64, content: Option<Digest>) -> Published {
        let revision = Revision(revision);
        Published { revision, content }
    }

    fn publish(
        wanted: Published,
        known: Option<&Published>,
        hosts: &[Site],
    ) -> Result<Published, String> {
        let machine = "linux".parse().unwrap();
        publication(&machine, wanted, known, hosts).map_err(|it| it.to_string())
    }

    #[test]
    fn a_publication_has_the_content_of_the_hosts() {
        let hosts = [
            host("a", None),
            host("b", content("b")),
            host("c", content("b")),
        ];
        let second = published(2, content("b"));
        assert_eq!(
            publish(published(2, None), None, &hosts),
            Ok(second.clone())
        );
        // Also if that is gone since.
        assert_eq!(publish(published(2, None), Some(&second), &[]), Ok(second));
        let named = published(2, content("c"));
        assert_eq!(publish(named.clone(), None, &hosts), Ok(named));
        let older = published(1, None);
        let newer = published(3, content("a"));
        assert_eq!(publish(older.clone(), Some(&newer), &hosts), Ok(older));
    }

    #[test]
    fn a_candidate_has_the_content_of_the_hosts_that_have_it_on_trial() {
        let mut trying = host("a", content("a"));
        for machine in std::sync::Arc::make_mut(&mut trying.offer)
            .machines
            .values_mut()
        {
            machine.trial = Some(crate::OfferedTrial {
                revision: Revision(3),
                content: content("c"),
                ..crate::OfferedTrial::default()
            });
        }
        let third = publish(published(3, None), None, &[trying, host("b", content("a"))]);
        assert_eq!(third, Ok(published(3, content("c"))));
    }

    #[test]
    fn a_content_that_nobody_knows_or_that_differs_is_refused() {
        let refused = |hosts: &[Site]| publish(published(2, None), None, hosts).unwrap_err();
        assert_eq!(
            refused(&[]),
            "no host that is alive has revision 2 of linux; push it to one of them first, or name its content"
        );
        assert_eq!(
            refused(&[host("a", None)]),
            "host a does not know the content of revision 2 of linux; `buildhost record linux 2` there reads it"
        );
        let mut hosts = [host("a", content("a")), host("b", content("b"))];
        assert!(
            refused(&hosts)
                .starts_with("hosts a and b have different contents of revision 2 of linux;")
        );
        hosts[0].state = HostState::Silent;
        let second = published(2, content("b"));
        assert_eq!(publish(published(2, None), None, &hosts), Ok(second));
    }
}
