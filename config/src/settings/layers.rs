//! The settings of the sources of layers.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;

/// The settings of the sources of layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    /// The directory of the fixtures.
    pub fixtures: PathBuf,
    /// The addresses of the layer indexes, with their passwords.
    pub indexes: Vec<String>,
    /// The interval of updates; `None` for none by the clock.
    pub update: Option<Duration>,
    /// The hosts whose repositories may be read, as patterns.
    pub git_hosts: Vec<String>,
    /// The file with the passwords of git.
    pub git_credentials: Option<PathBuf>,
    /// The directory with the keys and the known hosts of ssh.
    pub git_ssh: PathBuf,
    /// The HTTP proxy on the way to repositories; by default the environment's.
    pub git_proxy: Option<String>,
    /// The directories of the host that repositories may be in.
    pub directories: Vec<PathBuf>,
}

pub(super) fn layers(reader: &mut Reader<'_>) -> Layers {
    let is_address = |text: &str| {
        let prefixes = ["https://", "http://"];
        let rest = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix));
        rest.is_some_and(|rest| !rest.is_empty() && !text.contains(char::is_whitespace))
    };
    let is_pattern = |text: &str| {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._:*?".contains(c);
        !text.is_empty() && text.chars().all(is_allowed)
    };
    let hours = reader.number("layers.update_hours", 0, 0..=10_000);
    Layers {
        fixtures: reader.path("layers.fixtures", "/etc/buildhost/fixtures"),
        indexes: reader.texts(
            "layers.indexes",
            "addresses such as `https://layers.example.org/layerindex/api/`",
            &["https://layers.openembedded.org/layerindex/api/"],
            is_address,
        ),
        update: (hours > 0).then(|| Duration::from_hours(hours)),
        git_hosts: reader.texts(
            "layers.git_hosts",
            "hosts such as `git.example.org` or `*.example.org`",
            &["git.openembedded.org", "git.yoctoproject.org"],
            is_pattern,
        ),
        git_credentials: reader.optional_path("layers.git_credentials"),
        git_ssh: reader.path("layers.git_ssh", "/root/.ssh"),
        git_proxy: reader.optional_text("layers.git_proxy", is_proxy),
        directories: reader.paths("layers.directories", &[]),
    }
}

fn is_proxy(text: &str) -> Result<(), &'static str> {
    let is_url = ["http://", "https://"]
        .iter()
        .any(|it| text.starts_with(it));
    if text == "none" || (is_url && !text.contains(char::is_whitespace)) {
        Ok(())
    } else {
        Err("`http://HOST:PORT` or `none` is expected")
    }
}
