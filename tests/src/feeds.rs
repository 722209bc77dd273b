//! Package feeds for tests: keys as the documentation makes them, packages, and a client with the real
//! apt and a root directory of its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sys::command::{self, CommandError};
use tempfile::TempDir;

/// The time limit for a program.
const LIMIT: Duration = Duration::from_mins(5);

/// Makes a key with `gpg`, as docs/feeds.md tells. Returns the file of the private key.
pub fn new_key(directory: &Path, name: &str) -> PathBuf {
    let home = TempDir::new().expect("a home of gpg");
    let gpg = |arguments: &[&str]| {
        let mut gpg = command::prepare("gpg");
        gpg.arg("--homedir")
            .arg(home.path())
            .args(["--batch", "--quiet"]);
        gpg.args(arguments);
        command::run(gpg, LIMIT).expect("gpg")
    };
    let user = format!("{name} <feeds@example.org>");
    let new = [
        "--passphrase",
        "",
        "--quick-generate-key",
        &user,
        "ed25519",
        "sign",
        "never",
    ];
    gpg(&new);
    let secret = gpg(&["--armor", "--export-secret-keys"]);
    let mut end = command::prepare("gpgconf");
    end.arg("--homedir")
        .arg(home.path())
        .args(["--kill", "all"]);
    command::run(end, LIMIT).expect("gpgconf");
    let path = directory.join(name);
    sys::file::replace(&path, &secret).expect("a key");
    path
}

/// Makes a package for all architectures with `dpkg-deb`. Its file `/usr/share/NAME` has the content.
pub fn deb(directory: &Path, name: &str, version: &str, content: &str) -> PathBuf {
    let tree = TempDir::new().expect("a directory");
    let share = tree.path().join("usr/share");
    fs::create_dir_all(tree.path().join("DEBIAN")).expect("a directory");
    fs::create_dir_all(&share).expect("a directory");
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@example.org>\n\
         Description: greets\n"
    );
    crate::write_file(&tree.path().join("DEBIAN/control"), &control);
    crate::write_file(&share.join(name), content);
    let path = directory.join(format!("{name}_{version}_all.deb"));
    let mut build = command::prepare("dpkg-deb");
    build
        .args(["--root-owner-group", "-Znone", "-b"])
        .arg(tree.path())
        .arg(&path);
    command::run(build, LIMIT).expect("a package");
    path
}

/// A client with the real apt and dpkg, whose root directory is its own: nothing of this host changes.
#[derive(Debug)]
pub struct AptClient {
    root: TempDir,
}

impl AptClient {
    /// Returns a client of the repository at an address, which trusts the keys in a file.
    pub fn new(uri: &str, keys: &Path) -> Self {
        let root = TempDir::new().expect("a root directory");
        for directory in [
            "etc/apt/apt.conf.d",
            "etc/apt/preferences.d",
            "etc/apt/sources.list.d",
            "etc/apt/trusted.gpg.d",
            "var/lib/apt/lists/partial",
            "var/cache/apt/archives/partial",
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/log/apt",
            "usr/bin",
            "usr/lib",
            "tmp",
        ] {
            fs::create_dir_all(root.path().join(directory)).expect("a directory");
        }
        symlink("usr/bin", root.path().join("bin")).expect("a link");
        crate::write_file(&root.path().join("var/lib/dpkg/status"), "");
        let signed_by = root.path().join("etc/apt/feed.asc");
        fs::copy(keys, &signed_by).expect("the public keys");
        let client = Self { root };
        client.set_source(uri);
        let path = client.path("");
        let text = format!(
            "Dir \"{path}\";\nDir::Bin::methods \"/usr/lib/apt/methods\";\nDir::Bin::dpkg \"/usr/bin/dpkg\";\n\
             Dir::Ignore-Files-Silently:: \".*\";\nDir::State::status \"{path}var/lib/dpkg/status\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\nAPT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"0\";\nDPkg::Options:: \"--root={path}\";\n\
             DPkg::Options:: \"--force-script-chrootless\";\nDPkg::Options:: \"--force-bad-path\";\n\
             DPkg::Path \"/usr/sbin:/usr/bin:/sbin:/bin\";\n"
        );
        crate::write_file(&client.root.path().join("apt.conf"), &text);
        client
    }

    /// Sets the address of the repository, in the form of docs/feeds.md.
    pub fn set_source(&self, uri: &str) {
        let signed_by = self.path("etc/apt/feed.asc");
        let text = format!(
            "Types: deb\nURIs: {uri}\nSuites: stable\nComponents: main\nSigned-By: {signed_by}\n"
        );
        let path = self.root.path().join("etc/apt/sources.list.d/feed.sources");
        crate::write_file(&path, &text);
    }

    /// Replaces the trusted keys.
    pub fn trust(&self, keys: &Path) {
        fs::copy(keys, self.path("etc/apt/feed.asc")).expect("the public keys");
    }

    fn path(&self, below: &str) -> String {
        format!("{}/{below}", self.root.path().display())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = command::prepare(program);
        command.env("APT_CONFIG", self.root.path().join("apt.conf"));
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Runs `apt-get`. A warning of `update` counts as a failure, as `--error-on=any` has it.
    ///
    /// # Errors
    /// The program fails.
    pub fn apt_get(&self, arguments: &[&str]) -> Result<String, CommandError> {
        let mut apt = self.command("apt-get");
        apt.args(["-y", "-q"]).args(arguments);
        if arguments == ["update"] {
            apt.arg("--error-on=any");
        }
        let output = command::run(apt, LIMIT)?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Returns the versions of a package that apt knows, the greatest first.
    pub fn versions(&self, package: &str) -> Vec<String> {
        let mut apt = self.command("apt-cache");
        apt.args(["madison", package]);
        let output = command::run(apt, LIMIT).expect("apt-cache");
        let text = String::from_utf8_lossy(&output).into_owned();
        let version = |line: &str| line.split('|').nth(1).map(|it| it.trim().to_owned());
        text.lines().filter_map(version).collect()
    }

    /// Returns the content of the file that a package of [`deb`] installs; `None` if it is not installed.
    pub fn installed(&self, package: &str) -> Option<String> {
        fs::read_to_string(self.root.path().join("usr/share").join(package)).ok()
    }
}
