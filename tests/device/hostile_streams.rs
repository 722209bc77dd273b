//! Streams of a hostile sender: each is refused before it changes anything outside its
//! subvolume.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tests::attacks;
use tests::hosts::{BuildHost, CommandOutput, listing};
use tests::send_stream::{SendStream, UUID};
use tests::write_file;

/// The exit code for a stream that cannot be used.
const BAD_STREAM: i32 = 14;
const MANIFEST: &[u8] = b": 1\nid: evil\nsummary: evil\n";

/// A host with a machine, and a directory outside its volume.
struct Fixture {
    host: BuildHost,
    outside: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let host = BuildHost::new(256);
        let outside = tempfile::tempdir().unwrap();
        write_file(&outside.path().join("victim"), "the host's");
        let good = SendStream::new("good-1").file("manifest", MANIFEST).end();
        host.machinectl(&["add", "good"], &good).success();
        Self { host, outside }
    }

    /// Returns the path of a file outside, from any directory of the volume.
    fn above(&self, name: &str) -> String {
        format!("{}{}", "../".repeat(12), self.outside(name))
    }

    fn outside(&self, name: &str) -> String {
        self.outside.path().join(name).display().to_string()
    }

    /// Returns streams with paths outside of their subvolume.
    fn paths(&self) -> Vec<(&'static str, SendStream)> {
        let (new, victim) = (self.above("new"), self.above("victim"));
        vec![
            ("create", evil().file(&new, b"x").chmod(&new, 0o4755)),
            ("create absolutely", evil().file(&self.outside("new"), b"x")),
            ("remove", evil().unlink(&victim)),
            ("move in", evil().rename(&victim, "stolen")),
            ("move out", evil().rename("manifest", &new)),
            ("link", evil().hard_link("stolen", &victim)),
            (
                "replace the link of a machine",
                evil()
                    .unlink("../../good/good")
                    .symlink("../../good/good", "good-99"),
            ),
            (
                "clone a file of a machine",
                evil().clone_range("manifest", UUID, "../../good/good-1/manifest"),
            ),
        ]
    }

    /// Returns streams that create a symbolic link and use it.
    fn links(&self) -> Vec<(&'static str, SendStream)> {
        let directory = || evil().symlink("l", &self.outside(""));
        let file = || evil().symlink("l", &self.outside("victim"));
        vec![
            ("create", directory().file("l/new", b"x")),
            ("remove", directory().unlink("l/victim")),
            ("move", directory().rename("l", "m").file("m/new", b"x")),
            ("write", file().write("l", b"EVIL")),
            ("truncate", file().resize("l", 0)),
            ("change the mode", file().chmod("l", 0o4755)),
            ("clone", file().clone_range("manifest", UUID, "l")),
        ]
    }

    /// Returns everything that an attack might change.
    fn state(&self) -> (String, Vec<(String, String)>) {
        let outside = fs::read_dir(self.outside.path()).unwrap();
        let files = outside.map(|entry| {
            let path = entry.unwrap().path();
            let mode = path.metadata().unwrap().mode();
            (
                format!("{} {mode:o}", path.display()),
                fs::read_to_string(&path).unwrap(),
            )
        });
        (
            format!("{:?}", listing(self.host.mount.path())),
            files.collect(),
        )
    }

    /// Adds the machine from a pipe, and from a file.
    fn add(&self, stream: &[u8], file: &Path) -> [CommandOutput; 2] {
        fs::File::create(file)
            .and_then(|mut it| it.write_all(stream))
            .unwrap();
        let path = file.to_str().unwrap();
        [
            self.host.machinectl(&["add", "evil"], stream),
            self.host.machinectl(&["add", "evil", "--from", path], b""),
        ]
    }
}

/// Returns the start of a stream.
fn evil() -> SendStream {
    SendStream::new("evil-1").file("manifest", MANIFEST)
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_stream_that_reaches_outside_its_subvolume_is_refused() {
    let fixture = Fixture::new();
    let directory = tempfile::tempdir().unwrap();
    let before = fixture.state();
    let foreign = vec![("clone", evil().clone_range("manifest", [9; 16], "manifest"))];
    for (kind, rule, streams) in [
        (
            "path",
            "is not a path inside its subvolume",
            fixture.paths(),
        ),
        ("link", "leads through a symbolic link", fixture.links()),
        (
            "foreign subvolume",
            "is in neither its subvolume nor",
            foreign,
        ),
    ] {
        for (attack, stream) in streams {
            for answer in fixture.add(&stream.end(), &directory.path().join("stream")) {
                attacks::refused("sender -> volume", &format!("{kind}: {attack}"), rule);
                assert_eq!(fixture.state(), before, "{kind}: {attack}");
                assert!(answer.stderr.contains(rule), "{attack}: {answer:?}");
                answer.refused(BAD_STREAM, "do not trust its sender");
            }
        }
    }
}
