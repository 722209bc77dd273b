//! The replies whose form is more than one member.

use serde::Serialize;

use crate::statistics::Statistics;

/// The unihash of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnihashReply<'a> {
    /// The task.
    pub taskhash: &'a str,
    /// The method.
    pub method: &'a str,
    /// The unihash.
    pub unihash: &'a str,
}

/// A number of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CountReply {
    /// The number.
    pub count: u64,
}

/// The statistics of requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatsReply {
    /// The statistics.
    pub requests: Statistics,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserReply {
    /// The name.
    pub username: String,
    /// The names of the permissions.
    pub permissions: Vec<&'static str>,
}

/// A user with a new token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenReply {
    /// The name.
    pub username: String,
    /// The names of the permissions, for a new user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<&'static str>>,
    /// The token.
    pub token: String,
}
