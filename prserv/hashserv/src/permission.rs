//! The permissions of users.

use std::fmt;
use std::str::FromStr;

/// A permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// Every permission, including those of later versions.
    All,
    /// Deleting equivalences, garbage collection and statistics of the database.
    DbAdmin,
    /// Looking up hashes.
    Read,
    /// Reporting equivalences.
    Report,
    /// Managing users.
    UserAdmin,
}

/// All permissions, sorted by name.
const PERMISSIONS: [Permission; 5] = [
    Permission::All,
    Permission::DbAdmin,
    Permission::Read,
    Permission::Report,
    Permission::UserAdmin,
];

/// The name that grants nothing.
const NONE: &str = "@none";

/// A set of permissions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permissions(u8);

/// The error of a name that is not a permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Unknown permissions {0}")]
pub struct UnknownPermission(pub String);

/// The error of permissions that clients without a login must not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("clients without a login cannot have {0}; grant at most @read, @report and @db-admin")]
pub struct NotForAnonymous(Permission);

impl Permission {
    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "@all",
            Self::DbAdmin => "@db-admin",
            Self::Read => "@read",
            Self::Report => "@report",
            Self::UserAdmin => "@user-admin",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(text: &str) -> Result<Self, UnknownPermission> {
        PERMISSIONS
            .into_iter()
            .find(|permission| permission.as_str() == text)
            .ok_or_else(|| UnknownPermission(text.to_owned()))
    }
}

impl Permissions {
    /// The permissions that BitBake's server grants to clients without a login.
    pub const ANONYMOUS_DEFAULT: Self = Self(
        1 << Permission::Read as u8
            | 1 << Permission::Report as u8
            | 1 << Permission::DbAdmin as u8,
    );

    /// Parses names. `@none` adds nothing.
    ///
    /// # Errors
    /// Returns all names that are not permissions.
    pub fn from_names<'a>(
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, UnknownPermission> {
        let mut permissions = Self::default();
        let mut unknown: Vec<&str> = Vec::new();
        for name in names.into_iter().filter(|name| *name != NONE) {
            match name.parse() {
                Ok(permission) => permissions = permissions.with(permission),
                Err(UnknownPermission(_)) => unknown.push(name),
            }
        }
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            Ok(permissions)
        } else {
            Err(UnknownPermission(unknown.join(", ")))
        }
    }

    /// Parses the names in a database, separated by white space. Unknown names grant nothing.
    pub fn from_record(text: &str) -> Self {
        text.split_whitespace()
            .filter_map(|name| name.parse().ok())
            .fold(Self::default(), Self::with)
    }

    /// Adds a permission.
    #[must_use]
    pub fn with(self, permission: Permission) -> Self {
        Self(self.0 | 1 << permission as u8)
    }

    /// Returns true if all of the permissions are granted.
    pub fn allow(self, required: &[Permission]) -> bool {
        self.has(Permission::All) || required.iter().all(|permission| self.has(*permission))
    }

    /// Returns the names, sorted.
    pub fn names(self) -> Vec<&'static str> {
        self.iter().map(Permission::as_str).collect()
    }

    /// Returns the names, sorted. `@all` includes every other one.
    pub fn effective_names(self) -> Vec<&'static str> {
        if self.has(Permission::All) {
            PERMISSIONS.map(Permission::as_str).to_vec()
        } else {
            self.names()
        }
    }

    /// Checks that clients without a login may have the permissions: they must not manage users.
    pub fn check_anonymous(self) -> Result<Self, NotForAnonymous> {
        match [Permission::All, Permission::UserAdmin]
            .into_iter()
            .find(|permission| self.has(*permission))
        {
            Some(permission) => Err(NotForAnonymous(permission)),
            None => Ok(self),
        }
    }

    fn has(self, permission: Permission) -> bool {
        self.0 & 1 << permission as u8 != 0
    }

    fn iter(self) -> impl Iterator<Item = Permission> {
        PERMISSIONS
            .into_iter()
            .filter(move |permission| self.has(*permission))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> Permissions {
        Permissions::from_names(names.iter().copied()).unwrap()
    }

    #[test]
    fn names_are_parsed_and_sorted_and_unknown_ones_listed() {
        assert_eq!(
            set(&["@report", "@read", "@none", "@read"]).names(),
            ["@read", "@report"]
        );
        assert_eq!(
            Permissions::from_names(["@x", "@read", "@a"]),
            Err(UnknownPermission("@a, @x".into()))
        );
        assert_eq!(Permissions::from_record(" @read\t@later "), set(&["@read"]));
    }

    #[test]
    fn all_includes_every_permission() {
        let all = set(&["@all"]);
        assert!(all.allow(&[Permission::UserAdmin, Permission::Read]));
        assert_eq!(all.names(), ["@all"]);
        assert_eq!(all.effective_names().len(), 5);
        assert!(!set(&["@report"]).allow(&[Permission::Read, Permission::Report]));
        assert!(set(&[]).allow(&[]));
    }

    #[test]
    fn clients_without_a_login_never_manage_users() {
        assert!(Permissions::ANONYMOUS_DEFAULT.check_anonymous().is_ok());
        for name in ["@all", "@user-admin"] {
            assert!(set(&[name]).check_anonymous().is_err(), "{name}");
        }
        assert_eq!(
            Permissions::ANONYMOUS_DEFAULT.names(),
            ["@db-admin", "@read", "@report"]
        );
    }
}
