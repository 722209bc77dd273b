//! The parts of a location: the address of a repository, a reference, and a directory.

use std::str::FromStr;

use crate::newtype::text_newtype;

/// The longest address, reference or path, in bytes.
const LENGTH_MAX: usize = 1000;
/// The protocols of git that need no helper program of a user.
const PROTOCOLS: [&str; 5] = ["https://", "http://", "git://", "ssh://", "file:///"];

/// The error of parsing a part of a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be {kind}: {expected}")]
pub struct RepositoryError {
    text: String,
    kind: &'static str,
    expected: &'static str,
}

impl RepositoryError {
    fn new(text: &str, kind: &'static str, expected: &'static str) -> Self {
        let text = text.chars().take(80).collect();
        Self {
            text,
            kind,
            expected,
        }
    }
}

text_newtype!(
    /// The address of a git repository, or the absolute path of a directory of the host.
    RepositoryUrl,
    RepositoryError
);

text_newtype!(
    /// A branch, a tag, a commit, or `HEAD`.
    Reference,
    RepositoryError
);

text_newtype!(
    /// A relative path of a directory in a repository. The empty path is the repository itself.
    LayerPath,
    RepositoryError
);

fn is_plain(text: &str) -> bool {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && c != '\\';
    text.len() <= LENGTH_MAX && text.chars().all(is_plain)
}

impl FromStr for RepositoryUrl {
    type Err = RepositoryError;

    fn from_str(text: &str) -> Result<Self, RepositoryError> {
        let refuse = |expected| Err(RepositoryError::new(text, "a repository", expected));
        let form = "https://HOST/PATH, git://, ssh://, file:///PATH, USER@HOST:PATH or an absolute path is expected";
        if !is_plain(text) || text.starts_with('-') {
            return refuse(form);
        }
        if let Some(path) = local_path(text) {
            let is_clean = !path.split('/').any(|part| part == "..");
            if is_clean && path.len() > 1 {
                return Ok(Self(text.trim_end_matches('/').to_owned()));
            }
            return refuse("an absolute path without `..` is expected");
        }
        let Some(host) = host_part(text) else {
            return refuse(form);
        };
        let (user, host) = host.rsplit_once('@').unwrap_or(("", host));
        if user.contains(':') {
            return refuse(
                "an address has no password; the setting layers.git_credentials names a file of them",
            );
        }
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if host.is_empty() || host.starts_with('-') || !host.chars().all(is_host) {
            return refuse(form);
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// Returns the path of a directory of the host.
fn local_path(text: &str) -> Option<&str> {
    text.strip_prefix("file://")
        .filter(|path| path.starts_with('/'))
        .or_else(|| text.starts_with('/').then_some(text))
}

/// Returns the user and the host of an address of a network.
fn host_part(text: &str) -> Option<&str> {
    if text.contains("://") {
        let prefix = PROTOCOLS.iter().find(|prefix| text.starts_with(**prefix))?;
        let (host, path) = text[prefix.len()..].split_once('/')?;
        return (!path.is_empty()).then_some(host);
    }
    let (host, path) = text.split_once(':')?;
    (host.contains('@') && !host.contains('/') && !path.is_empty()).then_some(host)
}

impl RepositoryUrl {
    /// Returns the host of an address of a network, without a user and a port.
    pub fn host(&self) -> Option<&str> {
        if self.local_path().is_some() {
            return None;
        }
        let host = host_part(&self.0)?;
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        match host.strip_prefix('[') {
            Some(address) => address.split(']').next(),
            None => host.split(':').next(),
        }
    }

    /// Returns the path of a directory of the host.
    pub fn local_path(&self) -> Option<&str> {
        local_path(&self.0)
    }

    /// Returns the last part of the address without `.git`.
    pub fn base_name(&self) -> &str {
        let last = self.0.rsplit(['/', ':']).next().unwrap_or_default();
        last.strip_suffix(".git").unwrap_or(last)
    }
}

impl FromStr for Reference {
    type Err = RepositoryError;

    /// Follows the rules of `git check-ref-format`, without the characters that few names have.
    fn from_str(text: &str) -> Result<Self, RepositoryError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._/+-@#".contains(c);
        let is_part = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && part.strip_suffix(".lock").is_none()
        };
        let is_good = text.len() <= LENGTH_MAX
            && text.chars().all(is_allowed)
            && text.split('/').all(is_part)
            && !text.contains("..")
            && !text.ends_with('.')
            && text != "@";
        if is_good {
            return Ok(Self(text.to_owned()));
        }
        let expected = "the name of a branch or a tag, or the hash of a commit is expected";
        Err(RepositoryError::new(text, "a reference", expected))
    }
}

impl Reference {
    /// Returns true for the whole hash of a commit.
    pub fn is_commit(&self) -> bool {
        let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        [40, 64].contains(&self.0.len()) && self.0.chars().all(is_digit)
    }
}

impl FromStr for LayerPath {
    type Err = RepositoryError;

    fn from_str(text: &str) -> Result<Self, RepositoryError> {
        let text = text.trim_end_matches('/');
        let is_part = |part: &str| !part.is_empty() && part != ".." && part != ".";
        let is_good = text.is_empty()
            || is_plain(text) && text.split('/').all(is_part) && !text.contains(':');
        if is_good && !text.starts_with('-') {
            return Ok(Self(text.to_owned()));
        }
        let expected = "a relative path without `..` and blanks is expected";
        Err(RepositoryError::new(
            text,
            "a directory of a repository",
            expected,
        ))
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "the macro derives the same traits for all texts"
)]
impl Default for LayerPath {
    fn default() -> Self {
        Self(String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_repositories_have_their_hosts() {
        for (text, host, base) in [
            (
                "https://git.example.org/meta-x.git",
                Some("git.example.org"),
                "meta-x",
            ),
            (
                "https://git.example.org:8443/a/meta-x/",
                Some("git.example.org"),
                "meta-x",
            ),
            (
                "ssh://git@git.example.org/meta-x",
                Some("git.example.org"),
                "meta-x",
            ),
            (
                "git@git.example.org:team/meta-x.git",
                Some("git.example.org"),
                "meta-x",
            ),
            ("git://[::1]:9418/x", Some("::1"), "x"),
            ("file:///srv/meta-x", None, "meta-x"),
            ("/srv/meta-x/", None, "meta-x"),
        ] {
            let url: RepositoryUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.base_name()), (host, base), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_addresses() {
        for text in [
            "",
            "meta-x",
            "--upload-pack=x",
            "ext::sh -c x",
            "ext::sh",
            "http://",
            "https://host",
            "https://user:password@host/x",
            "https://-oProxyCommand=x/y",
            "file://host/x",
            "/srv/../etc",
            "/",
            "https://host/a b",
            "https://host/a\nb",
        ] {
            text.parse::<RepositoryUrl>().unwrap_err();
        }
    }

    #[test]
    fn references_and_paths_cannot_be_options_or_leave_a_repository() {
        for text in ["master", "yocto-5.0.3", "kirkstone/next", "HEAD", "2.18"] {
            text.parse::<Reference>().unwrap();
        }
        for text in [
            "", "-x", "a..b", "a b", "a~1", "a^{}", "a:b", "x.lock", "/a", "a//b", "@",
        ] {
            text.parse::<Reference>().unwrap_err();
        }
        for text in ["", "meta", "meta-oe/", "a/b.c"] {
            text.parse::<LayerPath>().unwrap();
        }
        for text in ["..", "a/../b", "/meta", "-x", "a//b", "./a", "a b", "x:y"] {
            text.parse::<LayerPath>().unwrap_err();
        }
    }

    #[test]
    fn a_commit_is_a_whole_hash() {
        let commit: Reference = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        assert!(commit.is_commit());
        let branch: Reference = "cafe".parse().unwrap();
        assert!(!branch.is_commit());
    }
}
