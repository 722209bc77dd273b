//! The file of contexts, and the stored tokens beside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use client::HostAddress;
use config::{ContextName, join_and};
use serde::{Deserialize, Serialize};

use crate::exit_code::{ExitStatus, Failure};

/// The way to the agent of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// The host.
    pub(crate) host: HostAddress,
    /// The file with the token for an agent on the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// The certificates of the authorities to trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The program on a host behind ssh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) program: Option<String>,
    /// The agent's socket on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket: Option<PathBuf>,
}

impl Context {
    /// Returns the context of a host without anything else.
    pub(crate) fn of(host: HostAddress) -> Self {
        Self {
            host,
            token_file: None,
            ca_file: None,
            program: None,
            socket: None,
        }
    }
}

/// The content of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Contexts {
    /// The context of commands that name no host; `None` is this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<ContextName>,
    /// The contexts.
    pub(crate) contexts: BTreeMap<ContextName, Context>,
}

impl Contexts {
    /// Reads the file of the user. A missing file has no contexts.
    pub(crate) fn read() -> Result<Self, Failure> {
        match directory() {
            Some(directory) => Self::read_from(&file_in(&directory)),
            None => Ok(Self::default()),
        }
    }

    fn read_from(path: &Path) -> Result<Self, Failure> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| {
                let text = format!("cannot use {}: {error}", path.display());
                Failure::new(ExitStatus::Failure, text.trim_end().to_owned())
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            // The directory of another user, as `runuser` leaves it in HOME. The command may be meant
            // for the host of a context, so that the error is not ignored.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let text = format!(
                    "cannot read the contexts in {}: {error}; set HOME or XDG_CONFIG_HOME to a \
                     directory of this user",
                    path.display()
                );
                Err(Failure::new(ExitStatus::Failure, text))
            }
            Err(error) => Err(failed(path, &error)),
        }
    }

    /// Changes the file of the user atomically, under a lock on its directory.
    pub(crate) fn change(
        change: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let directory = make_directory("")?;
        let lock = File::open(&directory).map_err(|error| failed(&directory, &error))?;
        lock.lock().map_err(|error| failed(&directory, &error))?;
        let path = file_in(&directory);
        let mut contexts = Self::read_from(&path)?;
        change(&mut contexts)?;
        let text =
            toml::to_string(&contexts).map_err(|error| Failure::new(ExitStatus::Failure, error))?;
        sys::file::replace(&path, text.as_bytes()).map_err(|error| failed(&path, &error))
    }

    /// Returns a context.
    pub(crate) fn get(&self, name: &ContextName) -> Result<&Context, Failure> {
        self.contexts.get(name).ok_or_else(|| {
            let names: Vec<_> = self.contexts.keys().map(ToString::to_string).collect();
            let text = match names.as_slice() {
                [] => format!("there is no context {name}; `buildhost context add` adds one"),
                names => format!("there is no context {name}; there are: {}", join_and(names)),
            };
            Failure::new(ExitStatus::NotFound, text)
        })
    }
}

/// Stores a token in a file that only its owner can read. Returns its path.
pub(super) fn store_token(name: &ContextName, secret: &str) -> Result<PathBuf, Failure> {
    let parsed = secret.parse::<client::BearerToken>();
    parsed.map_err(|reason| {
        let text = format!("standard input has no token: {reason}");
        Failure::new(ExitStatus::Refused, text)
    })?;
    let path = make_directory(TOKENS)?.join(name);
    sys::file::replace(&path, secret.as_bytes()).map_err(|error| failed(&path, &error))?;
    Ok(path)
}

/// Deletes the stored token of a context, if there is one.
pub(super) fn delete_token(name: &ContextName) -> Result<(), Failure> {
    let Some(directory) = directory() else {
        return Ok(());
    };
    let path = directory.join(TOKENS).join(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, &error)),
        _ => Ok(()),
    }
}

/// The directory of the stored tokens.
const TOKENS: &str = "tokens";

/// Returns the user's directory for Buildhost; `None` without a home.
fn directory() -> Option<PathBuf> {
    let absolute = |variable| {
        let path = PathBuf::from(std::env::var_os(variable)?);
        path.is_absolute().then_some(path)
    };
    let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
    Some(base?.join("buildhost"))
}

fn make_directory(name: &str) -> Result<PathBuf, Failure> {
    let directory = directory().ok_or_else(|| {
        let text = "contexts need a place: set HOME or XDG_CONFIG_HOME";
        Failure::new(ExitStatus::Refused, text)
    })?;
    let path = directory.join(name);
    for path in [&directory, &path] {
        sys::file::private_directory(path).map_err(|error| failed(path, &error))?;
    }
    Ok(path)
}

fn file_in(directory: &Path) -> PathBuf {
    directory.join("config.toml")
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let text = format!("cannot use {}: {error}", path.display());
    Failure::new(ExitStatus::Failure, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"current = "farm"

[contexts.farm]
host = "https://build1.example.org:8000"
token_file = "/home/u/.config/buildhost/tokens/farm"

[contexts.lab]
host = "ssh:root@lab"
program = "/opt/buildhost"
"#;

    #[test]
    fn the_file_is_written_as_it_was_read() {
        let contexts: Contexts = toml::from_str(TEXT).unwrap();
        assert_eq!(toml::to_string(&contexts).unwrap(), TEXT);
        assert_eq!(toml::from_str::<Contexts>("").unwrap(), Contexts::default());
    }

    #[test]
    fn faults_name_the_file_and_the_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, part) in [
            ("nonsense", "line 1"),
            ("[contexts.a]\nhost = \"ftp://h\"\n", "expected https://"),
            ("[contexts.a]\nhots = \"local\"\n", "hots"),
            ("[contexts.\"a b\"]\nhost = \"local\"\n", "context"),
        ] {
            sys::file::replace(file.path(), text.as_bytes()).unwrap();
            let failure = Contexts::read_from(file.path()).unwrap_err();
            let message = failure.error.to_string();
            assert!(message.contains(part), "{message}");
            assert!(message.contains(file.path().to_str().unwrap()), "{message}");
        }
    }
}
