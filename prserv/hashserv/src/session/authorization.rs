//! The permissions that requests need.

use std::borrow::Cow;

use linerpc::host_names::HostNames;

use super::HashSession;
use crate::permission::{Permission, Permissions};
use crate::protocol::request::UserRequest;
use crate::protocol::{Request, StreamMode};

/// The access rules of a server.
#[derive(Debug, Clone)]
pub struct Access {
    /// The permissions of clients without a login.
    pub anonymous: Permissions,
    /// True if users may log in.
    pub login: bool,
    /// The owner of reports without a login. The client names it if `None`.
    pub owner: Option<String>,
    /// The names under which HTTP clients address the server.
    pub host_names: HostNames,
}

impl Default for Access {
    /// Returns the rules of BitBake's server.
    fn default() -> Self {
        Self {
            anonymous: Permissions::ANONYMOUS_DEFAULT,
            login: true,
            owner: None,
            host_names: HostNames::default(),
        }
    }
}

impl AsRef<HostNames> for Access {
    fn as_ref(&self) -> &HostNames {
        &self.host_names
    }
}

/// The error that a user lacks permissions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{user} is not allowed to access permissions(s) {missing}")]
pub struct Denied {
    user: String,
    missing: String,
}

/// The needs of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement<'r> {
    /// Nothing.
    Nothing,
    /// Permissions, which clients without a login may have as well.
    Permissions(&'static [Permission]),
    /// The permission to manage users.
    Manager,
    /// The permission to manage users, unless it is the own user; by default it is.
    ManagerOrSelf(Option<&'r str>),
}

impl HashSession {
    /// Checks that the user may make a request.
    pub(super) fn authorize(&self, request: &Request) -> Result<(), Denied> {
        let manager = [Permission::UserAdmin];
        let missing = match Requirement::of(request) {
            Requirement::Nothing => return Ok(()),
            Requirement::Permissions(required) if self.may(required) => return Ok(()),
            Requirement::Permissions(required) => required,
            Requirement::ManagerOrSelf(name) if self.is_self(name) => return Ok(()),
            Requirement::Manager | Requirement::ManagerOrSelf(_) => {
                if self
                    .user
                    .as_ref()
                    .is_some_and(|user| user.permissions.allow(&manager))
                {
                    return Ok(());
                }
                &manager
            }
        };
        let user = self.user.as_ref();
        let user = user.map_or(Cow::from("Anonymous user"), |user| (&user.username).into());
        let missing: Vec<&str> = missing
            .iter()
            .map(|permission| permission.as_str())
            .collect();
        let missing = missing.join(", ");
        tracing::info!(client = %self.peer, %user, missing, "denied a request");
        Err(Denied {
            user: user.into_owned(),
            missing,
        })
    }

    /// Returns true if everybody has the permissions, or the user has.
    pub(super) fn may(&self, required: &[Permission]) -> bool {
        let user = self.user.as_ref();
        self.access.anonymous.allow(required)
            || user.is_some_and(|user| user.permissions.allow(required))
    }

    fn is_self(&self, name: Option<&str>) -> bool {
        let user = self.user.as_ref();
        user.is_some_and(|user| name.is_none_or(|name| name == user.username))
    }
}

impl<'r> Requirement<'r> {
    fn of(request: &'r Request) -> Self {
        match request {
            Request::Close | Request::Ping | Request::Auth { .. } => Self::Nothing,
            Request::Get { .. }
            | Request::GetOuthash { .. }
            | Request::Stream(StreamMode::Get | StreamMode::Exists)
            | Request::GetStats
            | Request::Report(_)
            | Request::BackfillWait => Self::Permissions(&[Permission::Read]),
            Request::ReportEquivalence(_) => {
                Self::Permissions(&[Permission::Read, Permission::Report])
            }
            Request::ResetStats
            | Request::GetDbUsage
            | Request::GetDbQueryColumns
            | Request::Remove(_)
            | Request::GcMark(_)
            | Request::Stream(StreamMode::GcMark)
            | Request::GcSweep { .. }
            | Request::GcStatus
            | Request::CleanUnused { .. } => Self::Permissions(&[Permission::DbAdmin]),
            Request::User(request) => match request {
                UserRequest::Get(name)
                | UserRequest::RefreshToken(name)
                | UserRequest::Delete(name) => Self::ManagerOrSelf(name.as_deref()),
                UserRequest::GetAll
                | UserRequest::Become(_)
                | UserRequest::SetPermissions(..)
                | UserRequest::New(..) => Self::Manager,
            },
        }
    }
}
