//! The identity of a revision's content, by which two hosts find out whether they have the same.
//!
//! btrfs names a subvolume by a UUID and counts the changes to it by transactions. A received
//! subvolume keeps the UUID of the first sender and the transaction of the last one. A UUID alone
//! says nothing about the content: a person can make a subvolume writable, change it, and make it
//! read-only again.

use config::task::Digest;
use serde::{Deserialize, Serialize};

use crate::{Subvolume, Uuid};

/// The properties by which a revision's content is compared with one on another host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentIdentity {
    /// The subvolume's UUID.
    pub uuid: Uuid,
    /// The transaction of its last change; `None` from a host that does not tell.
    #[serde(default)]
    pub transaction: Option<u64>,
    /// The UUID that it was received with.
    pub received_uuid: Option<Uuid>,
    /// The transaction of its last change at the host that it was received from.
    #[serde(default)]
    pub received_transaction: Option<u64>,
    /// The SHA-256 of its content manifest; `None` without one.
    #[serde(default)]
    pub content_manifest: Option<Digest>,
}

impl ContentIdentity {
    /// Returns the identity of a subvolume with this content manifest.
    pub fn new(subvolume: &Subvolume, content_manifest: Option<Digest>) -> Self {
        Self {
            uuid: subvolume.uuid,
            transaction: Some(subvolume.transaction),
            received_uuid: subvolume.received_uuid,
            received_transaction: subvolume.received_transaction,
            content_manifest,
        }
    }

    /// Returns the UUID by which a stream refers to the revision.
    pub fn stream_uuid(&self) -> Uuid {
        self.received_uuid.unwrap_or(self.uuid)
    }

    /// Returns true if this revision was received from `sender`, and neither has changed since.
    fn is_received_from(&self, sender: &Self) -> bool {
        sender.transaction.is_some()
            && self.received_uuid == Some(sender.stream_uuid())
            && self.received_transaction == sender.transaction
    }

    /// Returns true if both are the same original, or were received from it in one state.
    fn has_same_origin(&self, other: &Self) -> bool {
        let origin = |it: &Self| match it.received_uuid {
            Some(uuid) => Some((uuid, it.received_transaction?)),
            None => Some((it.uuid, it.transaction?)),
        };
        origin(self).is_some() && origin(self) == origin(other)
    }

    /// Returns true if the content manifests of both are equal. Only a received revision
    /// certainly has the content that its manifest names.
    fn has_same_manifest(&self, other: &Self) -> bool {
        self.content_manifest.is_some() && self.content_manifest == other.content_manifest
    }

    /// Returns true if both revisions certainly have the same content.
    pub fn has_same_content(&self, other: &Self) -> bool {
        let are_received = self.received_uuid.is_some() && other.received_uuid.is_some();
        self.is_received_from(other)
            || other.is_received_from(self)
            || self.has_same_origin(other)
            || (are_received && self.has_same_manifest(other))
    }

    /// Returns true if both revisions have the same content, provided that this one has not
    /// changed since its content manifest was written.
    pub fn may_have_same_content(&self, other: &Self) -> bool {
        self.has_same_content(other) || self.has_same_manifest(other)
    }

    /// Returns true if a receiver with this revision accepts a stream on top of `parent`, a
    /// revision of the sender. `sent` is the hash of the sent revision's content manifest, which
    /// the receiver verifies; one that is also the parent's proves nothing.
    pub fn accepts_stream(&self, parent: &Self, sent: Option<&Digest>) -> bool {
        let is_relayed = parent.received_uuid.is_some() && self.may_accept_stream(parent, sent);
        self.is_received_from(parent) || is_relayed
    }

    /// Returns true if [`ContentIdentity::accepts_stream`] holds for a parent that has not changed
    /// since its content manifest was written.
    pub fn may_accept_stream(&self, parent: &Self, sent: Option<&Digest>) -> bool {
        let is_verified = sent.is_some() && sent != parent.content_manifest.as_ref();
        is_verified && self.is_named_like(parent) && self.has_same_manifest(parent)
    }

    /// Returns true if a stream on top of `parent` could refer to this revision.
    pub fn is_named_like(&self, parent: &Self) -> bool {
        [Some(self.uuid), self.received_uuid].contains(&Some(parent.stream_uuid()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the identity of an original that was last changed in a transaction.
    fn original(uuid: u128, transaction: u64) -> ContentIdentity {
        ContentIdentity {
            uuid: Uuid::from_u128(uuid),
            transaction: Some(transaction),
            received_uuid: None,
            received_transaction: None,
            content_manifest: None,
        }
    }

    /// Returns the identity of a copy that was received from `sender`.
    fn received(uuid: u128, transaction: u64, sender: &ContentIdentity) -> ContentIdentity {
        ContentIdentity {
            received_uuid: Some(sender.stream_uuid()),
            received_transaction: sender.transaction,
            content_manifest: sender.content_manifest.clone(),
            ..original(uuid, transaction)
        }
    }

    fn digest(digit: &str) -> Digest {
        digit.repeat(64).parse().unwrap()
    }

    fn with_manifest(identity: &ContentIdentity) -> ContentIdentity {
        ContentIdentity {
            content_manifest: Some(digest("a")),
            ..identity.clone()
        }
    }

    #[test]
    fn a_copy_has_the_content_of_its_unchanged_sender() {
        let one = original(1, 7);
        let copy = received(2, 20, &one);
        assert!(copy.has_same_content(&one) && one.has_same_content(&copy));
        assert!(copy.accepts_stream(&one, None));
        let changed = original(1, 9);
        assert!(!copy.has_same_content(&changed) && !changed.has_same_content(&copy));
        assert!(!copy.accepts_stream(&changed, Some(&digest("b"))));
    }

    #[test]
    fn relayed_copies_are_compared_by_their_manifests() {
        let one = original(1, 7);
        let relay = received(2, 20, &one);
        let far = received(3, 30, &relay);
        assert!(far.has_same_content(&relay));
        assert!(!far.may_have_same_content(&one));
        assert!(!far.accepts_stream(&one, Some(&digest("b"))));

        let one = with_manifest(&one);
        let relay = received(2, 20, &one);
        let far = received(3, 30, &relay);
        assert!(far.has_same_content(&relay) && relay.has_same_content(&far));
        // The original could have been changed without its manifest.
        assert!(!one.has_same_content(&far) && one.may_have_same_content(&far));
        assert!(!far.accepts_stream(&one, Some(&digest("b"))));
        assert!(far.may_accept_stream(&one, Some(&digest("b"))));
        let other = received(4, 40, &one);
        assert!(far.accepts_stream(&other, Some(&digest("b"))));
        // Nothing would verify the result.
        assert!(!far.accepts_stream(&other, None));
        assert!(!far.accepts_stream(&other, Some(&digest("a"))));
    }

    #[test]
    fn nothing_is_certain_about_a_host_that_tells_no_transactions() {
        let one = original(1, 7);
        let copy = ContentIdentity {
            transaction: None,
            received_transaction: None,
            ..received(2, 20, &one)
        };
        assert!(!copy.has_same_content(&one));
        assert!(!copy.accepts_stream(&one, Some(&digest("b"))));
    }
}
