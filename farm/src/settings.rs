//! The settings of a coordinator: as written in the file and on the command line, and as checked; pure.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use config::settings::{NotifyRules, farm_notify};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

mod objects;

pub use objects::{ObjectsSettings, WrittenObjects};

use crate::sources::Rules;

/// A settings file that shows every key with its default.
pub const EXAMPLE: &str = include_str!("settings/example.toml");

/// The largest length of the name of a farm, in bytes.
const NAME_MAX: usize = 60;

/// The settings as they are written. Every key may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// The database of the farm.
    pub database: Option<String>,
    /// The name of the farm on its pages and in notifications.
    pub name: Option<String>,
    /// The address for hosts and clients.
    pub listen: Option<String>,
    /// The address at which hosts reach this coordinator and no other one.
    pub url: Option<String>,
    /// The file with a token that may do everything.
    pub client_token: Option<PathBuf>,
    /// The most connections to the database.
    pub connections_max: Option<usize>,
    /// The seconds of a lease.
    pub lease_seconds: Option<u64>,
    /// The months for which results are kept.
    pub keep_months: Option<u32>,
    /// The sources of builds.
    #[serde(default)]
    pub sources: WrittenSources,
    /// The PR service.
    pub prserv: Option<WrittenPrserv>,
    /// The hash equivalence service.
    pub hashserv: Option<WrittenHashserv>,
    /// The object store.
    pub objects: Option<WrittenObjects>,
    /// The rules for notifications, which are checked when the file is parsed.
    #[serde(default, deserialize_with = "ignore")]
    pub notify: Vec<NotifyRules>,
}

/// Skips the rules for notifications: [`farm_notify`] reads them.
fn ignore<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NotifyRules>, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|IgnoredAny| Vec::new())
}

/// A reason for which a settings file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text is no TOML, or has unknown keys.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// Rules for notifications cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Notify(Vec<config::settings::Fault>),
}

/// The section `[sources]` as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenSources {
    /// The directory.
    directory: Option<PathBuf>,
    mib_max: Option<u64>,
    keep_days: Option<u32>,
    ca: Option<PathBuf>,
}

/// The section `[prserv]` as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenPrserv {
    listen: Option<Vec<String>>,
    database: Option<String>,
    writers: Option<Vec<String>>,
    token_file: Option<PathBuf>,
}

/// The section `[hashserv]` as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenHashserv {
    listen: Option<Vec<String>>,
    database: Option<String>,
    anonymous: Option<Vec<String>>,
}

/// The settings of a coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The database of the farm.
    pub database: String,
    /// The name of the farm on its pages and in notifications.
    pub name: String,
    /// The address for hosts and clients.
    pub listen: SocketAddr,
    /// The address at which hosts reach this coordinator; `None` if that is the one it listens on.
    pub url: Option<String>,
    /// The file with a token that may do everything, beside those of the database.
    pub client_token: Option<PathBuf>,
    /// The most connections to the database.
    pub connections_max: usize,
    /// The seconds without a sign of life after which a host loses its builds.
    pub lease_seconds: u64,
    /// The months for which results and idempotency keys are kept; 0 keeps all.
    pub keep_months: u32,
    /// The sources of builds.
    pub sources: Rules,
    /// The PR service, if it is served.
    pub prserv: Option<Prserv>,
    /// The hash equivalence service, if it is served.
    pub hashserv: Option<Hashserv>,
    /// The object store, if logs and artifacts are put into one.
    pub objects: Option<ObjectsSettings>,
    /// The rules for notifications.
    pub notify: Vec<NotifyRules>,
}

/// The settings of the PR service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prserv {
    /// Its addresses.
    pub listen: Vec<String>,
    /// Its database.
    pub database: String,
    /// The networks whose clients may get new values; all networks if there are none.
    pub writers: Vec<ipnet::IpNet>,
    /// The file with tokens.
    pub token_file: Option<PathBuf>,
}

/// The settings of the hash equivalence service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashserv {
    /// Its addresses.
    pub listen: Vec<String>,
    /// Its database.
    pub database: String,
    /// The permissions of clients without a login, by their names.
    pub anonymous: Vec<String>,
}

/// A reason not to use settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// There is no database, as on a new coordinator.
    #[error("the setting `database` is missing")]
    NoDatabase,
    /// Values cannot be used.
    #[error("{}", Faults(.0))]
    Faulty(Vec<Fault>),
}

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The setting.
    pub key: &'static str,
    /// The reason, with what would be right.
    pub text: String,
}

struct Faults<'a>(&'a [Fault]);

impl fmt::Display for Faults<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Fault { key, text }) in self.0.iter().enumerate() {
            let end = if index == 0 { "" } else { "; " };
            write!(f, "{end}the setting {key} {text}")?;
        }
        Ok(())
    }
}

impl Written {
    /// Parses a settings file.
    ///
    /// # Errors
    /// The text is no TOML, or has unknown keys or faulty rules for notifications; the error names the line.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let written: Self = toml::from_str(text)?;
        let notify = farm_notify(text).map_err(ParseError::Notify)?;
        Ok(Self { notify, ..written })
    }

    /// Returns these settings, and those of `other` where a key is missing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            database: self.database.or(other.database),
            name: self.name.or(other.name),
            listen: self.listen.or(other.listen),
            url: self.url.or(other.url),
            client_token: self.client_token.or(other.client_token),
            connections_max: self.connections_max.or(other.connections_max),
            lease_seconds: self.lease_seconds.or(other.lease_seconds),
            keep_months: self.keep_months.or(other.keep_months),
            sources: self.sources.or(other.sources),
            prserv: self.prserv.or(other.prserv),
            hashserv: self.hashserv.or(other.hashserv),
            objects: self.objects.or(other.objects),
            notify: [self.notify, other.notify].concat(),
        }
    }

    /// Checks all keys and adds the defaults.
    ///
    /// # Errors
    /// The database is missing, or values cannot be used.
    pub fn check(self) -> Result<Settings, SettingsError> {
        let mut faults = Vec::new();
        let mut fault = |key, text: String| faults.push(Fault { key, text });
        let listen = self.listen.as_deref().unwrap_or("127.0.0.1:8590");
        let address = listen.parse().unwrap_or_else(|_| {
            let text = format!("is `{listen}`, not an address such as `127.0.0.1:8590`");
            fault("listen", text);
            SocketAddr::from(([127, 0, 0, 1], 0))
        });
        match &self.url {
            None if address.ip().is_unspecified() => fault(
                "listen",
                format!("is `{listen}`, which hosts cannot reach; set `url` as well"),
            ),
            Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => fault(
                "url",
                format!("is `{url}`; it must begin with `http://` or `https://`"),
            ),
            _ => {}
        }
        let name = self.name.unwrap_or_else(|| "farm".to_owned());
        if name.trim().is_empty() || name.len() > NAME_MAX || name.contains(char::is_control) {
            let text = format!("must have from 1 to {NAME_MAX} bytes of text in one line");
            fault("name", text);
        }
        let connections_max = self.connections_max.unwrap_or(8);
        if connections_max == 0 {
            fault("connections_max", "is 0; it must be 1 at least".to_owned());
        }
        let lease_seconds = self.lease_seconds.unwrap_or(60);
        if !(4..=3_600).contains(&lease_seconds) {
            let text = format!("is {lease_seconds}; it must be from 4 to 3600");
            fault("lease_seconds", text);
        }
        let sources = self.sources.check(&mut fault);
        let database = self.database.unwrap_or_default();
        let prserv = self.prserv.map(|it| it.check(&database, &mut fault));
        let hashserv = self.hashserv.map(|it| it.check(&database, &mut fault));
        let objects = self.objects.and_then(|it| it.check(&mut fault));
        if !faults.is_empty() {
            return Err(SettingsError::Faulty(faults));
        }
        if database.is_empty() {
            return Err(SettingsError::NoDatabase);
        }
        Ok(Settings {
            database,
            name,
            listen: address,
            url: self.url.map(|it| it.trim_end_matches('/').to_owned()),
            client_token: self.client_token,
            connections_max,
            lease_seconds,
            keep_months: self.keep_months.unwrap_or(24),
            sources,
            prserv,
            hashserv,
            objects,
            notify: self.notify,
        })
    }
}

impl WrittenSources {
    /// Returns the settings that name a directory, if there is one.
    pub fn below(directory: Option<PathBuf>) -> Self {
        Self {
            directory,
            ..Self::default()
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            directory: self.directory.or(other.directory),
            mib_max: self.mib_max.or(other.mib_max),
            keep_days: self.keep_days.or(other.keep_days),
            ca: self.ca.or(other.ca),
        }
    }

    fn check(self, fault: &mut impl FnMut(&'static str, String)) -> Rules {
        let mib_max = self.mib_max.unwrap_or(2_048);
        if !(1..=1 << 30).contains(&mib_max) {
            let text = format!("is {mib_max}; it must be from 1 to {}", 1 << 30);
            fault("sources.mib_max", text);
        }
        let keep_days = self.keep_days.unwrap_or(7);
        if keep_days == 0 {
            let text = "is 0; it must be 1 at least, so that a build can follow its sources";
            fault("sources.keep_days", text.to_owned());
        }
        Rules {
            directory: self.directory,
            bytes_max: mib_max.saturating_mul(1 << 20),
            keep_days,
            ca: self.ca,
        }
    }
}

impl WrittenPrserv {
    fn check(self, database: &str, fault: &mut impl FnMut(&'static str, String)) -> Prserv {
        let writers = self.writers.unwrap_or_default();
        let writers = writers.iter().filter_map(|text| {
            let parsed = text.parse();
            if parsed.is_err() {
                let text = format!("has `{text}`, not a network such as `10.1.0.0/16`");
                fault("prserv.writers", text);
            }
            parsed.ok()
        });
        Prserv {
            writers: writers.collect(),
            listen: self.listen.unwrap_or_else(|| vec!["localhost:8585".into()]),
            database: self.database.unwrap_or_else(|| database.to_owned()),
            token_file: self.token_file,
        }
    }
}

impl WrittenHashserv {
    fn check(self, database: &str, fault: &mut impl FnMut(&'static str, String)) -> Hashserv {
        let anonymous = self.anonymous.unwrap_or_else(|| vec!["@read".into()]);
        for name in &anonymous {
            if !["@read", "@report", "@db-admin", "@none"].contains(&name.as_str()) {
                let text = format!("has `{name}`, not `@read`, `@report`, `@db-admin` or `@none`");
                fault("hashserv.anonymous", text);
            }
        }
        Hashserv {
            listen: self.listen.unwrap_or_else(|| vec!["localhost:8686".into()]),
            database: self.database.unwrap_or_else(|| database.to_owned()),
            anonymous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: &str = "database = \"postgres://farm@db/farm\"\n";

    fn checked(text: &str) -> Result<Settings, String> {
        let written = Written::parse(text).map_err(|error| error.to_string())?;
        written.check().map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_shows_every_key_with_its_default() {
        let text: String = EXAMPLE
            .lines()
            .filter_map(|line| line.strip_prefix('#'))
            .filter(|line| !line.starts_with(' '))
            .flat_map(|line| [line, "\n"])
            .collect();
        let mut shown = checked(&text).unwrap();
        let sections = "[prserv]\n[hashserv]\n";
        let example = "database = \"postgres://farm@db.example.org/farm\"\n";
        assert_eq!(
            shown.url.take().as_deref(),
            Some("http://one.example.org:8590")
        );
        let client_token = shown.client_token.take();
        assert_eq!(client_token, Some("/etc/buildhost/farm-clients".into()));
        let directory = shown.sources.directory.take();
        assert_eq!(directory, Some("/var/lib/buildhost-farm/sources".into()));
        assert!(shown.sources.ca.take().is_some());
        let objects = shown.objects.take().unwrap();
        assert_eq!(objects.region, "us-east-1");
        let rules = std::mem::take(&mut shown.notify);
        assert_eq!(rules[0].name.as_str(), "team");
        let token_file = shown.prserv.as_mut().and_then(|it| it.token_file.take());
        assert!(token_file.is_some());
        assert_eq!(Ok(shown), checked(&format!("{example}{sections}")));
        assert_eq!(Written::parse(EXAMPLE), Ok(Written::default()));
    }

    #[test]
    fn a_new_coordinator_has_no_database() {
        assert_eq!(Written::default().check(), Err(SettingsError::NoDatabase));
    }

    #[test]
    fn options_replace_settings() {
        let file = Written::parse(&format!("{DATABASE}lease_seconds = 30\n")).unwrap();
        let options = Written {
            lease_seconds: Some(20),
            ..Written::default()
        };
        let settings = options.or(file).check().unwrap();
        assert_eq!(settings.lease_seconds, 20);
        assert_eq!(settings.database, "postgres://farm@db/farm");
    }

    #[test]
    fn faults_name_the_setting_and_what_would_be_right() {
        let faulty = format!(
            "{DATABASE}name = \"\"\nlisten = \"here\"\nurl = \"one\"\nconnections_max = 0\nlease_seconds = 1\n\
             [sources]\nmib_max = 0\nkeep_days = 0\n[prserv]\nwriters = [\"x\"]\n[hashserv]\nanonymous = [\"read\"]\n\
             [objects]\nurl = \"farm\"\nendpoint = \"s3\"\n"
        );
        insta::assert_snapshot!(checked(&faulty).unwrap_err().replace("; the", "\nthe"), @r"
        the setting listen is `here`, not an address such as `127.0.0.1:8590`
        the setting url is `one`; it must begin with `http://` or `https://`
        the setting name must have from 1 to 60 bytes of text in one line
        the setting connections_max is 0; it must be 1 at least
        the setting lease_seconds is 1; it must be from 4 to 3600
        the setting sources.mib_max is 0; it must be from 1 to 1073741824
        the setting sources.keep_days is 0; it must be 1 at least, so that a build can follow its sources
        the setting prserv.writers has `x`, not a network such as `10.1.0.0/16`
        the setting hashserv.anonymous has `read`, not `@read`, `@report`, `@db-admin` or `@none`
        the setting objects.endpoint is `s3`; it must begin with `http://` or `https://`
        the setting objects.url is `farm`, not an address such as `s3://bucket/prefix` or `file:///srv/objects`
        ");
        let open = checked(&format!("{DATABASE}listen = \"0.0.0.0:1\"\n")).unwrap_err();
        assert!(open.contains("set `url` as well"), "{open}");
        let rule = "[[notify]]\nname = \"team\"\non = \"never\"\nproblems = [\"low-space\"]\n";
        insta::assert_snapshot!(checked(&format!("{DATABASE}{rule}")).unwrap_err().replace("; line", "\nline"), @r#"
        line 2: `notify.webhook`: the address of a webhook, or `mail`, is expected
        line 5: `notify.problems`: a list of patterns of `host-silent`, `host-content`, `schedule-late`, `uploads-failing`, `sources-lost`, `coordinator-gone` is expected
        line 5: `notify.problems`: a rule that is about no builds (`on = "never"`) needs problems
        "#);
        let unknown = checked("lisen = \"a\"\n").unwrap_err();
        assert!(
            unknown.contains("line 1") && unknown.contains("lisen"),
            "{unknown}"
        );
    }
}
