//! The parser from messages to requests. A message's first known member determines the request.

use std::time::Duration;

use serde_json::Value as Json;

use super::arguments::{flag, into_text, long_text, optional_text, text};
use super::{ProtocolError, is_unihash};
use crate::condition::Condition;
use crate::permission::{Permissions, UnknownPermission};
use crate::row::{Mapping, Origin, Report, TaskKey};

/// A request of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Closes the connection. JSON's null.
    Close,
    /// Checks that the server responds.
    Ping,
    /// Returns the unihash of a task; with `all`, also its first report.
    Get {
        /// The task.
        task: TaskKey,
        /// True if the first report is wanted.
        all: bool,
    },
    /// Returns the first report with an outhash.
    GetOuthash {
        /// The method and the taskhash. The taskhash is only used to ask an upstream server.
        task: TaskKey,
        /// The outhash.
        outhash: String,
        /// True if only reports of tasks with a unihash are wanted.
        with_unihash: bool,
    },
    /// Begins a stream.
    Stream(StreamMode),
    /// Returns the statistics of requests.
    GetStats,
    /// Returns the statistics of requests and clears them.
    ResetStats,
    /// Returns the number of rows of each table.
    GetDbUsage,
    /// Returns the columns that conditions may name.
    GetDbQueryColumns,
    /// Reports the outhash of a task and returns its unihash.
    Report(Box<Report>),
    /// Reports the unihash of a task and returns the one that is recorded.
    ReportEquivalence(Mapping),
    /// Waits until everything of the upstream server is recorded that was looked up there.
    BackfillWait,
    /// Deletes rows.
    Remove(Condition),
    /// Begins or continues a garbage collection: marks rows that are kept.
    GcMark(Mark),
    /// Ends a garbage collection: deletes the rows without its mark.
    GcSweep {
        /// The mark.
        mark: String,
    },
    /// Returns the current mark and the number of rows with and without it.
    GcStatus,
    /// Deletes reports of a minimum age whose tasks have no unihash.
    CleanUnused {
        /// The minimum age.
        age: Duration,
    },
    /// Logs a user in.
    Auth {
        /// The name of the user.
        username: String,
        /// The secret.
        token: String,
    },
    /// Manages a user.
    User(UserRequest),
}

/// A request about users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRequest {
    /// Returns a user, by default the one who asks.
    Get(Option<String>),
    /// Returns all users.
    GetAll,
    /// Continues as another user.
    Become(String),
    /// Replaces a token, by default that of the user who asks.
    RefreshToken(Option<String>),
    /// Replaces the permissions of a user.
    SetPermissions(String, Result<Permissions, UnknownPermission>),
    /// Creates a user.
    New(String, Result<Permissions, UnknownPermission>),
    /// Deletes a user, by default the one who asks.
    Delete(Option<String>),
}

/// A stream of queries without JSON, one line each, until `END`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamMode {
    /// Lines of method and taskhash; the answers are unihashes or empty.
    Get,
    /// Lines of unihashes; the answers are `true` or `false`.
    Exists,
    /// Lines of JSON with a mark and a condition; the answers are counts.
    GcMark,
}

/// Rows to keep in a garbage collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The name of the collection.
    pub mark: String,
    /// The rows.
    pub condition: Condition,
}

type Parser = fn(&mut Json) -> Result<Request, ProtocolError>;

/// The parsers in the order in which their names are searched in a message.
const PARSERS: [(&str, Parser); 26] = [
    ("ping", |_| Ok(Request::Ping)),
    ("get", |args| {
        let all = flag(args, "all", false);
        Ok(Request::Get {
            task: task(args)?,
            all,
        })
    }),
    ("get-outhash", |args| {
        Ok(Request::GetOuthash {
            with_unihash: flag(args, "with_unihash", true),
            outhash: text(args, "outhash")?,
            task: task(args)?,
        })
    }),
    ("get-stream", |_| Ok(Request::Stream(StreamMode::Get))),
    ("exists-stream", |_| Ok(Request::Stream(StreamMode::Exists))),
    ("get-stats", |_| Ok(Request::GetStats)),
    ("get-db-usage", |_| Ok(Request::GetDbUsage)),
    ("get-db-query-columns", |_| Ok(Request::GetDbQueryColumns)),
    ("report", |args| {
        report(args).map(Box::new).map(Request::Report)
    }),
    ("auth", |args| {
        Ok(Request::Auth {
            username: text(args, "username")?,
            token: text(args, "token")?,
        })
    }),
    ("get-user", |args| {
        user(UserRequest::Get(optional_text(args, "username")?))
    }),
    ("get-all-users", |_| user(UserRequest::GetAll)),
    ("become-user", |args| {
        user(UserRequest::Become(text(args, "username")?))
    }),
    ("report-equiv", |args| {
        let unihash = unihash(args)?;
        Ok(Request::ReportEquivalence(Mapping {
            task: task(args)?,
            unihash,
        }))
    }),
    ("reset-stats", |_| Ok(Request::ResetStats)),
    ("backfill-wait", |_| Ok(Request::BackfillWait)),
    ("remove", |args| condition(args).map(Request::Remove)),
    ("gc-mark", |args| mark(args).map(Request::GcMark)),
    ("gc-mark-stream", |_| {
        Ok(Request::Stream(StreamMode::GcMark))
    }),
    ("gc-sweep", |args| {
        Ok(Request::GcSweep {
            mark: text(args, "mark")?,
        })
    }),
    ("gc-status", |_| Ok(Request::GcStatus)),
    ("clean-unused", |args| clean_unused(args)),
    ("refresh-token", |args| {
        user(UserRequest::RefreshToken(optional_text(args, "username")?))
    }),
    ("set-user-perms", |args| {
        let username = text(args, "username")?;
        user(UserRequest::SetPermissions(username, permissions(args)?))
    }),
    ("new-user", |args| {
        let username = text(args, "username")?;
        user(UserRequest::New(username, permissions(args)?))
    }),
    ("delete-user", |args| {
        user(UserRequest::Delete(optional_text(args, "username")?))
    }),
];

impl Request {
    /// Parses a message.
    pub fn parse(mut message: Json) -> Result<Self, ProtocolError> {
        if message.is_null() {
            return Ok(Self::Close);
        }
        let members = message
            .as_object_mut()
            .ok_or(ProtocolError::UnknownRequest)?;
        PARSERS
            .iter()
            .find_map(|(name, parse)| Some(parse(members.get_mut(*name)?)))
            .unwrap_or(Err(ProtocolError::UnknownRequest))
    }
}

impl StreamMode {
    /// Returns the name of the request that begins the stream.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get-stream",
            Self::Exists => "exists-stream",
            Self::GcMark => "gc-mark-stream",
        }
    }
}

impl Mark {
    /// Parses a line of `gc-mark-stream`.
    pub fn parse_line(line: &str) -> Result<Self, ProtocolError> {
        let mut json = serde_json::from_str(line)
            .map_err(|error| ProtocolError::MarkLine(error.to_string()))?;
        mark(&mut json)
    }
}

/// Splits a line of `get-stream` into method and taskhash.
pub fn split_task_line(line: &str) -> Result<(&str, &str), ProtocolError> {
    let mut words = line.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(taskhash), None) => Ok((method, taskhash)),
        _ => Err(ProtocolError::StreamLine),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the result of a parser")]
fn user(request: UserRequest) -> Result<Request, ProtocolError> {
    Ok(Request::User(request))
}

fn task(args: &mut Json) -> Result<TaskKey, ProtocolError> {
    Ok(TaskKey {
        method: text(args, "method")?,
        taskhash: text(args, "taskhash")?,
    })
}

fn unihash(args: &mut Json) -> Result<String, ProtocolError> {
    match args.get_mut("unihash") {
        Some(Json::String(text)) if is_unihash(text) => Ok(std::mem::take(text)),
        _ => Err(ProtocolError::Unihash),
    }
}

fn report(args: &mut Json) -> Result<Report, ProtocolError> {
    Ok(Report {
        unihash: unihash(args)?,
        outhash: text(args, "outhash")?,
        task: task(args)?,
        origin: Origin {
            owner: optional_text(args, "owner")?,
            pn: optional_text(args, "PN")?,
            pv: optional_text(args, "PV")?,
            pr: optional_text(args, "PR")?,
            task: optional_text(args, "task")?,
            outhash_siginfo: long_text(args, "outhash_siginfo")?,
        },
    })
}

fn mark(args: &mut Json) -> Result<Mark, ProtocolError> {
    let Some(Json::String(_)) = args.get("mark") else {
        return Err(ProtocolError::WrongType("mark"));
    };
    Ok(Mark {
        mark: text(args, "mark")?,
        condition: condition(args)?,
    })
}

fn condition(args: &mut Json) -> Result<Condition, ProtocolError> {
    let members = match args.get_mut("where") {
        Some(Json::Object(members)) => members,
        Some(_) => return Err(ProtocolError::WrongType("where")),
        None => return Err(ProtocolError::MissingMember("where")),
    };
    let mut condition = Condition::default();
    for (name, value) in members {
        let column = name
            .parse()
            .map_err(|_| ProtocolError::UnknownColumn(name.clone()))?;
        if let Some(text) = into_text(value, "where")? {
            condition.require(column, text);
        }
    }
    Ok(condition)
}

fn clean_unused(args: &mut Json) -> Result<Request, ProtocolError> {
    const NAME: &str = "max_age_seconds";
    let age = match args.get(NAME) {
        Some(Json::Number(number)) => number.as_f64().map(Duration::try_from_secs_f64),
        Some(_) => None,
        None => return Err(ProtocolError::MissingMember(NAME)),
    };
    match age {
        Some(Ok(age)) => Ok(Request::CleanUnused { age }),
        _ => Err(ProtocolError::WrongType(NAME)),
    }
}

fn permissions(args: &Json) -> Result<Result<Permissions, UnknownPermission>, ProtocolError> {
    const NAME: &str = "permissions";
    let names = args
        .get(NAME)
        .ok_or(ProtocolError::MissingMember(NAME))?
        .as_array()
        .ok_or(ProtocolError::WrongType(NAME))?;
    let names: Option<Vec<&str>> = names.iter().map(Json::as_str).collect();
    let names = names.ok_or(ProtocolError::WrongType(NAME))?;
    Ok(Permissions::from_names(names))
}

#[cfg(test)]
mod tests;
