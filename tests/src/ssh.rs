//! A real sshd on the loopback interface with temporary keys.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use sys::command;
use tempfile::TempDir;

use crate::{wait_until, write_file};

/// An sshd. Dropping it kills the process.
#[derive(Debug)]
pub struct SshServer {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl SshServer {
    /// Starts an sshd on a free port and waits until it accepts connections.
    pub fn start() -> Self {
        Self::start_with_banner("")
    }

    /// Starts an sshd that shows this text before each login.
    pub fn start_with_banner(banner: &str) -> Self {
        // A blank in all paths.
        let directory = tempfile::Builder::new().prefix("ssh keys ").tempdir();
        let directory = directory.expect("a directory");
        let at = |name: &str| directory.path().join(name);
        for name in ["host", "user", "other"] {
            keygen(&at(name));
        }
        std::fs::copy(at("user.pub"), at("authorized")).expect("a key");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("a port").port();
        drop(free);
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey \"{}\"\nAuthorizedKeysFile \"{}\"\n\
             StrictModes no\nUsePAM no\nPermitRootLogin yes\nPidFile none\nBanner \"{}\"\n",
            at("host").display(),
            at("authorized").display(),
            at("banner").display()
        );
        write_file(&at("config"), &text);
        write_file(&at("banner"), banner);
        write_file(&at("none"), "");
        trust(&at("known"), &at("host.pub"), port);
        trust(&at("changed"), &at("other.pub"), port);
        std::fs::create_dir_all("/run/sshd").expect("sshd's directory");
        let mut sshd = command::prepare("/usr/sbin/sshd");
        sshd.args(["-D", "-q", "-f"]).arg(at("config"));
        let child = sshd.spawn().expect("sshd");
        let server = Self {
            directory,
            port,
            child,
        };
        let address = ("127.0.0.1", server.port);
        wait_until("sshd answers", || TcpStream::connect(address).is_ok());
        server
    }

    /// Returns the command line of an ssh that reaches the server.
    pub fn ssh(&self) -> String {
        self.with("user", "known")
    }

    /// Returns the command line of an ssh that knows a different host key.
    pub fn ssh_with_changed_host(&self) -> String {
        self.with("user", "changed")
    }

    /// Returns the command line of an ssh whose key the server refuses.
    pub fn ssh_with_other_key(&self) -> String {
        self.with("other", "known")
    }

    /// Returns the command line of an ssh that knows no host key.
    pub fn ssh_to_unknown_host(&self) -> String {
        self.with("user", "none")
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes a directory that of a user of ssh: with the key of a name, `user` or `other`, and with
    /// the server's key.
    pub fn fill_ssh_directory(&self, directory: &Path, key: &str) {
        let copy = |from: &str, to: &str| {
            std::fs::copy(self.directory.path().join(from), directory.join(to)).expect("a copy");
        };
        copy(key, "id_ed25519");
        copy("known", "known_hosts");
    }

    fn with(&self, key: &str, known: &str) -> String {
        let at = |name: &str| -> PathBuf { self.directory.path().join(name) };
        format!(
            "ssh -F none -p {} -i '{}' -o 'UserKnownHostsFile=\"{}\"' -o StrictHostKeyChecking=yes",
            self.port,
            at(key).display(),
            at(known).display()
        )
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keygen(path: &Path) {
    let mut keygen = command::prepare("ssh-keygen");
    keygen
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path);
    command::run(keygen, Duration::from_mins(1)).expect("ssh-keygen");
}

fn trust(known: &Path, key: &Path, port: u16) {
    let key = std::fs::read_to_string(key).expect("a key");
    write_file(known, &format!("[127.0.0.1]:{port} {key}"));
}
