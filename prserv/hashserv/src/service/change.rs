//! Changes of a few rows.

use crate::equivalence::{self, Decision, Rows};
use crate::row::{Mapping, RecordedReport, Report, TaskKey};
use crate::store::{Store, StoreError, User};

/// A change of a few rows.
#[derive(Debug)]
pub enum Change {
    /// Records a report, with the unihash that the upstream server has for its outhash.
    Report(Box<Report>, Option<String>),
    /// Records the unihash of a task unless it has one.
    Equate(Mapping),
    /// Records a report of the upstream server.
    Copy(Box<RecordedReport>),
    /// Changes the users.
    User(UserChange),
}

/// A change of the users.
#[derive(Debug)]
pub enum UserChange {
    /// Adds a user with the hash of a token.
    Add(User, String),
    /// Replaces the token of a user by another one, given as its hash.
    SetToken(String, String),
    /// Replaces the permissions of a user.
    SetPermissions(User),
    /// Adds a user or replaces token and permissions.
    Set(User, String),
    /// Deletes a user.
    Delete(String),
}

/// The answer to a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The unihash of the task.
    Unihash(Decision),
    /// True if something was changed.
    Done(bool),
}

impl Change {
    /// Returns the task whose unihash is the answer.
    pub(super) fn task(&self) -> Option<&TaskKey> {
        match self {
            Self::Report(report, _) => Some(&report.task),
            Self::Equate(mapping) => Some(&mapping.task),
            Self::Copy(_) | Self::User(_) => None,
        }
    }

    /// Makes a change in the open transaction.
    pub(super) fn make(&self, store: &mut Store) -> Result<Answer, StoreError> {
        Ok(match self {
            Self::Report(report, upstream) => {
                Answer::Unihash(equivalence::report(store, report, upstream.as_deref())?)
            }
            Self::Equate(mapping) => Answer::Unihash(equivalence::equate(store, mapping)?),
            Self::Copy(copied) => {
                if let Some(mapping) = copied.mapping() {
                    store.add_unihash(&mapping)?;
                }
                Answer::Done(store.add_report(&copied.to_report())?)
            }
            Self::User(change) => Answer::Done(change_users(store, change)?),
        })
    }
}

fn change_users(store: &mut Store, change: &UserChange) -> Result<bool, StoreError> {
    match change {
        UserChange::Add(user, hash) => store.add_user(user, hash),
        UserChange::SetToken(username, hash) => store.set_token(username, hash),
        UserChange::SetPermissions(user) => store.set_permissions(user),
        UserChange::Set(user, hash) => {
            let is_new = store.add_user(user, hash)?;
            Ok(is_new || store.set_permissions(user)? && store.set_token(&user.username, hash)?)
        }
        UserChange::Delete(username) => store.delete_user(username),
    }
}
