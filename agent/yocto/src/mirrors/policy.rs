//! The repositories that the settings allow.

use std::path::{Path, PathBuf};

use config::layers::RepositoryUrl;
use wildmatch::WildMatch;

/// The repositories that may be read.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The hosts, as patterns: `git.example.org`, `*.example.org`.
    pub hosts: Vec<String>,
    /// The directories of this host that repositories may be in.
    pub directories: Vec<PathBuf>,
    /// The file with passwords of git (`git credential-store`).
    pub credentials: Option<PathBuf>,
    /// The directory with the keys and the known hosts of ssh; git sees it as that of root.
    pub ssh_directory: PathBuf,
    /// The variables with the proxies of HTTP, such as `https_proxy`.
    pub proxies: Vec<(String, String)>,
}

/// The variables of the environment by which git finds proxies.
const PROXY_VARIABLES: [&str; 7] = [
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];
/// The proxy in the settings that stands for none.
const NO_PROXY: &str = "none";

/// Returns the variables for a proxy of the settings, or those of an environment if the settings
/// name none.
pub fn proxies(
    proxy: Option<&str>,
    environment: impl Fn(&str) -> Option<String>,
) -> Vec<(String, String)> {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    match proxy {
        Some(NO_PROXY) => Vec::new(),
        Some(proxy) => vec![
            pair("http_proxy", proxy.to_owned()),
            pair("https_proxy", proxy.to_owned()),
        ],
        None => {
            let found = PROXY_VARIABLES
                .iter()
                .filter_map(|name| Some((*name, environment(name)?)));
            found.map(|(name, value)| pair(name, value)).collect()
        }
    }
}

impl Policy {
    /// Checks that a repository is allowed.
    ///
    /// # Errors
    /// It is not; the text names the setting.
    pub(super) fn check(&self, url: &RepositoryUrl) -> Result<(), String> {
        if let Some(path) = url.local_path() {
            return self.check_directory(Path::new(path));
        }
        let host = url.host().unwrap_or_default();
        if self
            .hosts
            .iter()
            .any(|pattern| WildMatch::new(pattern).matches(host))
        {
            return Ok(());
        }
        Err(format!(
            "repositories of the host {host} are not allowed; an administrator can add it to the setting layers.git_hosts"
        ))
    }

    fn check_directory(&self, path: &Path) -> Result<(), String> {
        let shown = path.display();
        let is_below = |path: &Path| {
            let resolved = |directory: &PathBuf| directory.canonicalize().ok();
            let mut allowed = self.directories.iter().filter_map(resolved);
            allowed.any(|directory| path.starts_with(directory))
        };
        // The text first, so that an answer does not tell which files exist.
        if !self
            .directories
            .iter()
            .any(|directory| path.starts_with(directory))
        {
            return Err(format!(
                "the directory {shown} is not allowed; an administrator can add one above it to the setting layers.directories"
            ));
        }
        match path.canonicalize() {
            Ok(real) if real.is_dir() && is_below(&real) => Ok(()),
            Ok(real) if real.is_dir() => Err(format!(
                "{shown} leads out of the directories of the setting layers.directories"
            )),
            Ok(_) => Err(format!("{shown} is not a directory")),
            Err(error) => Err(format!("cannot read the directory {shown}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_directories_are_those_of_the_settings() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("srv/layer")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("srv/link")).unwrap();
        std::fs::write(root.join("srv/file"), "").unwrap();
        let policy = Policy {
            hosts: vec!["git.example.org".to_owned(), "*.example.net".to_owned()],
            directories: vec![root.join("srv")],
            ..Policy::default()
        };
        let check = |url: &str| policy.check(&url.parse().unwrap());
        let below = |name: &str| check(&root.join(name).display().to_string());
        for url in [
            "https://git.example.org/x",
            "git@a.example.net:x/y",
            "git://a.example.net/x",
        ] {
            check(url).unwrap();
        }
        below("srv/layer").unwrap();
        for (refused, reason) in [
            (check("https://example.org/x"), "layers.git_hosts"),
            (check("https://169.254.169.254/x"), "layers.git_hosts"),
            (check("/etc"), "layers.directories"),
            (below("srv/link"), "leads out"),
            (below("srv/file"), "is not a directory"),
            (below("srv/none"), "cannot read"),
        ] {
            let refused = refused.unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
    }
}
