//! The decision what to fetch and from where, from the answers of the hosts alone.

use std::collections::BTreeMap;

use config::Revision;

use crate::send::{RemoteRevision, RemoteView};
use crate::{ContentIdentity, Note, Uuid};

/// The decision about a fetch. Hosts are named by their position among the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// The newest current revision of any host.
    pub(super) revision: Revision,
    /// The identity of its content.
    pub(super) content: ContentIdentity,
    /// The note on it.
    pub(super) note: Option<Note>,
    /// The hosts that have this content, in the order of the answers.
    pub(super) sources: Vec<SourceChoice>,
    /// The hosts with other content under the same number.
    pub(super) others: Vec<usize>,
}

/// A host that can send the chosen revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourceChoice {
    /// The host.
    pub(super) host: usize,
    /// The UUID of the newest revision on which its stream may build; empty for a full stream.
    pub(super) known: Vec<Uuid>,
}

/// Chooses the newest current revision among the answers, and its sources. The first host that has
/// it as the current one decides about its content. Returns `None` if no machine is in service.
/// A `wanted` revision is chosen instead if a host has it, current or not.
///
/// `here` are the complete revisions of this host.
pub(super) fn choose(
    answers: &[Option<RemoteView>],
    here: &BTreeMap<Revision, ContentIdentity>,
    wanted: Option<Revision>,
) -> Option<Choice> {
    let views = || {
        let numbered = answers.iter().enumerate();
        numbered.filter_map(|(host, view)| Some((host, view.as_ref()?)))
    };
    let newest = || views().filter_map(|(_, view)| view.current).max();
    let revision = wanted.or_else(newest)?;
    let is_current = |view: &&RemoteView| wanted.is_some() || view.current == Some(revision);
    let mut deciding = views().map(|(_, view)| view).filter(is_current);
    let chosen = deciding.find_map(|view| view.revision(revision))?;
    let (mut sources, mut others) = (Vec::new(), Vec::new());
    for (host, view) in views() {
        let Some(sent) = view.revision(revision) else {
            continue;
        };
        if sent.content.may_have_same_content(&chosen.content) {
            let known = common_parent(here, sent, view).into_iter().collect();
            sources.push(SourceChoice { host, known });
        } else {
            others.push(host);
        }
    }
    Some(Choice {
        revision,
        content: chosen.content.clone(),
        note: chosen.note.clone(),
        sources,
        others,
    })
}

/// Returns the newest revision of a host on top of which a stream is accepted here, as the UUID
/// that the host's stream names it by.
fn common_parent(
    here: &BTreeMap<Revision, ContentIdentity>,
    sent: &RemoteRevision,
    view: &RemoteView,
) -> Option<Uuid> {
    let manifest = sent.content.content_manifest.as_ref();
    let accepts = |parent: &&RemoteRevision| {
        let mut here = here.values();
        here.any(|it| it.accepts_stream(&parent.content, manifest))
    };
    let others = view.revisions.iter();
    let mut complete = others.filter(|it| it.complete && it.revision != sent.revision);
    let newest = complete.rfind(accepts);
    newest.map(|it| it.content.stream_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the identity of an original.
    fn original(number: u8) -> ContentIdentity {
        ContentIdentity {
            uuid: Uuid::from_bytes([number; 16]),
            transaction: Some(number.into()),
            received_uuid: None,
            received_transaction: None,
            content_manifest: None,
        }
    }

    /// Returns the identity of a copy that was received from an original.
    fn copy(number: u8, of: &ContentIdentity) -> ContentIdentity {
        ContentIdentity {
            received_uuid: Some(of.uuid),
            received_transaction: of.transaction,
            ..original(number)
        }
    }

    fn host(current: u32, revisions: &[(u32, &ContentIdentity)]) -> RemoteView {
        let revision = |(number, content): &(u32, &ContentIdentity)| RemoteRevision {
            revision: Revision(*number),
            complete: true,
            content: (*content).clone(),
            note: None,
        };
        RemoteView {
            current: Some(Revision(current)),
            fault: None,
            revisions: revisions.iter().map(revision).collect(),
        }
    }

    fn hosts(choice: &Choice) -> Vec<usize> {
        choice.sources.iter().map(|it| it.host).collect()
    }

    #[test]
    fn the_newest_revision_is_fetched_from_each_host_that_has_it() {
        let (one, two) = (original(1), original(2));
        let mirror = copy(3, &two);
        let answers = [
            Some(host(1, &[(1, &copy(4, &one))])),
            Some(host(2, &[(2, &mirror)])),
            None,
            Some(host(2, &[(1, &one), (2, &two)])),
        ];
        let here = BTreeMap::from([(Revision(1), copy(5, &one))]);
        let choice = choose(&answers, &here, None).unwrap();
        assert_eq!(choice.revision, Revision(2));
        assert_eq!(hosts(&choice), [1, 3]);
        assert!(choice.others.is_empty());
        // Only the last host has the parent, too.
        assert!(choice.sources[0].known.is_empty());
        assert_eq!(choice.sources[1].known, [one.uuid]);
    }

    #[test]
    fn the_first_host_decides_between_equal_numbers_with_different_content() {
        let (one, other) = (original(1), original(2));
        let answers = [
            Some(host(7, &[(7, &one)])),
            Some(host(7, &[(7, &other)])),
            Some(host(7, &[(7, &copy(3, &one))])),
        ];
        let choice = choose(&answers, &BTreeMap::new(), None).unwrap();
        assert_eq!(choice.content, one);
        assert_eq!((hosts(&choice), choice.others), (vec![0, 2], vec![1]));
    }

    #[test]
    fn a_host_that_has_rolled_back_is_a_source_but_does_not_decide() {
        let (one, two) = (original(1), original(2));
        let rolled_back = Some(host(1, &[(1, &one), (2, &copy(3, &two))]));
        let choice = choose(std::slice::from_ref(&rolled_back), &BTreeMap::new(), None).unwrap();
        assert_eq!(choice.revision, Revision(1));
        let answers = [rolled_back, Some(host(2, &[(2, &two)]))];
        let choice = choose(&answers, &BTreeMap::new(), None).unwrap();
        assert_eq!((choice.revision, hosts(&choice)), (Revision(2), vec![0, 1]));
    }

    #[test]
    fn a_wanted_revision_need_not_be_the_newest_one() {
        let (one, two) = (original(1), original(2));
        let answers = [Some(host(2, &[(1, &one), (2, &two)]))];
        let wanted = |number| choose(&answers, &BTreeMap::new(), Some(Revision(number)));
        assert_eq!(wanted(1).unwrap().revision, Revision(1));
        assert_eq!(wanted(3), None);
    }

    #[test]
    fn without_a_machine_in_service_nothing_is_chosen() {
        let broken = RemoteView {
            current: None,
            fault: Some("broken".to_owned()),
            revisions: Vec::new(),
        };
        assert_eq!(choose(&[None, Some(broken)], &BTreeMap::new(), None), None);
    }
}
