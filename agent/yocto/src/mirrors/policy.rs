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
            credentials: None,
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
