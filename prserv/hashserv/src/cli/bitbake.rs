//! The command line of `bitbake-hashserv`, for compatibility with existing scripts.

use std::ffi::OsString;
use std::path::Path;

use anyhow::bail;
use clap::Parser;
use linerpc::{Limits, logging};

use super::{ExitStatus, serve};

/// Hash equivalence server with the command line of bitbake-hashserv.
#[derive(Debug, Parser)]
#[command(name = "bitbake-hashserv", version)]
pub(crate) struct Arguments {
    /// The address to listen on: `unix://PATH`, `ws://ADDRESS:PORT` or `ADDRESS:PORT`.
    #[arg(
        short,
        long,
        env = "HASHSERVER_BIND",
        default_value = "unix://./hashserve.sock"
    )]
    bind: String,

    /// The database: a file, or `postgresql+…://HOST/NAME`.
    #[arg(short, long, env = "HASHSERVER_DB", default_value = "./hashserv.db")]
    database: String,

    /// The log level: ERROR, WARNING, INFO or DEBUG.
    #[arg(short, long, env = "HASHSERVER_LOG_LEVEL", default_value = "WARNING")]
    log: String,

    /// The upstream server to pull hashes from.
    #[arg(short, long, env = "HASHSERVER_UPSTREAM")]
    upstream: Option<String>,

    /// Disallow write operations from clients ($HASHSERVER_READ_ONLY=1).
    #[arg(short, long)]
    read_only: bool,

    /// The user name for the database.
    #[arg(long, env = "HASHSERVER_DB_USERNAME")]
    db_username: Option<String>,

    /// The password for the database.
    #[arg(long, env = "HASHSERVER_DB_PASSWORD", hide_env_values = true)]
    db_password: Option<String>,

    /// The permissions of anonymous users, separated by commas or spaces.
    #[arg(long, value_name = "PERM[,PERM[,...]]", env = "HASHSERVER_ANON_PERMS")]
    #[arg(default_value = "@read,@report,@db-admin")]
    anon_perms: String,

    /// The name of an administrator to create.
    #[arg(long, env = "HASHSERVER_ADMIN_USER")]
    admin_user: Option<String>,

    /// The token of the administrator.
    #[arg(long, env = "HASHSERVER_ADMIN_PASSWORD", hide_env_values = true)]
    admin_password: Option<String>,

    /// Let several servers listen on the same port.
    #[arg(long)]
    reuseport: bool,
}

/// Returns true if the program has the name of BitBake's server.
pub(crate) fn is_invoked(program: Option<OsString>) -> bool {
    program.is_some_and(|path| Path::new(&path).file_name() == Some("bitbake-hashserv".as_ref()))
}

/// Serves until a signal.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitStatus> {
    logging::start(Some(level(&arguments.log)?));
    let is_read_only = std::env::var_os("HASHSERVER_READ_ONLY").is_some_and(|value| value == "1");
    serve::run(&arguments.into_own(is_read_only)?)
}

impl Arguments {
    fn into_own(self, is_read_only: bool) -> anyhow::Result<serve::Arguments> {
        let read_only = self.read_only || is_read_only;
        let upstream = self.upstream.filter(|text| !text.is_empty());
        if read_only && upstream.is_some() {
            bail!("Read-only hashserv cannot pull from an upstream server");
        }
        let db = database(
            &self.database,
            self.db_username.as_deref(),
            self.db_password.as_deref(),
        )?;
        let separators = [',', ' '];
        let names = self.anon_perms.split(separators);
        let limits = Limits::default();
        Ok(serve::Arguments {
            listen: vec![serve::listen_address(&self.bind)?],
            db,
            read_only,
            upstream,
            proxy: None,
            anonymous: names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            admin_token: self.admin_user.as_ref().and(self.admin_password),
            admin_user: self.admin_user,
            admin_token_file: None,
            keep_days: None,
            keep_unused_days: None,
            reuse_port: self.reuseport,
            allowed_host: Vec::new(),
            connections_max: limits.connections_max,
            connections_per_peer_max: limits.connections_per_peer_max,
            idle_seconds_max: 3600,
            write_seconds_max: 30,
        })
    }
}

fn level(name: &str) -> anyhow::Result<&'static str> {
    Ok(match name.to_ascii_uppercase().as_str() {
        "CRITICAL" | "FATAL" | "ERROR" => "error",
        "WARNING" | "WARN" => "warn",
        "INFO" => "info",
        "DEBUG" | "NOTSET" => "debug",
        _ => bail!("Invalid log level: {name} (Try ERROR/WARNING/INFO/DEBUG)"),
    })
}

/// Returns the database of a file or of a URL of SQLAlchemy.
fn database(text: &str, username: Option<&str>, password: Option<&str>) -> anyhow::Result<String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(text.to_owned());
    };
    let kind = scheme.split('+').next().unwrap_or_default();
    match kind {
        "postgresql" | "postgres" => {}
        // sqlite:///relative and sqlite:////absolute.
        "sqlite" => return Ok(rest.strip_prefix('/').unwrap_or(rest).to_owned()),
        _ => bail!("the database `{kind}` is not supported; use a file or PostgreSQL"),
    }
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let given = rest.rsplit_once('@').map(|(user, _)| user);
    let user = match (username, password, given) {
        (None, None, given) => given.map(str::to_owned),
        (Some(username), None, _) => Some(username.to_owned()),
        (Some(username), Some(password), _) => Some(format!("{username}:{password}")),
        (None, Some(password), given) => {
            let name = given
                .and_then(|given| given.split(':').next())
                .unwrap_or_default();
            Some(format!("{name}:{password}"))
        }
    };
    let user = user.map_or_else(String::new, |user| format!("{user}@"));
    Ok(format!("postgresql://{user}{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_of_sqlalchemy_are_understood() {
        for (text, user, password, expected) in [
            ("./hashserv.db", None, None, "./hashserv.db"),
            ("sqlite+aiosqlite:////var/h.db", None, None, "/var/h.db"),
            ("sqlite:///h.db", None, None, "h.db"),
            (
                "postgresql+asyncpg://db:5432/hash",
                Some("me"),
                Some("secret"),
                "postgresql://me:secret@db:5432/hash",
            ),
            (
                "postgresql+asyncpg://you:old@db/hash",
                None,
                Some("new"),
                "postgresql://you:new@db/hash",
            ),
            (
                "postgresql://you@db/hash",
                None,
                None,
                "postgresql://you@db/hash",
            ),
        ] {
            assert_eq!(database(text, user, password).unwrap(), expected);
        }
        assert!(database("mysql://db/hash", None, None).is_err());
    }

    #[test]
    fn the_arguments_are_those_of_bitbake() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        let line = "x -b ws://:8686 -d h.db -l info --anon-perms @read,@report --admin-user a --admin-password p --reuseport";
        let own = parse(line).unwrap().into_own(false).unwrap();
        assert_eq!(
            (own.listen.as_slice(), own.reuse_port),
            (&[":8686".parse().unwrap()][..], true)
        );
        assert_eq!(own.anonymous, ["@read", "@report"]);
        assert_eq!(own.admin_token.as_deref(), Some("p"));
        let both = parse("x -r -u h:1").unwrap().into_own(false);
        assert!(both.unwrap_err().to_string().contains("upstream"));
        assert!(level("loud").is_err());
    }
}
