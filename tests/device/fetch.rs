//! Revisions that travel between two volumes over a connection, as in a farm.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use ::store::send::{RemoteSession, provide};
use ::store::stream::TimeoutReader;
use ::store::{RefusalKind, Result};
use config::{MachineName, Revision};
use tests::hosts::{BuildHost, DevelopmentHost};

/// Two hosts. The first one has a revision of a machine.
struct Fixture {
    development: DevelopmentHost,
    source: BuildHost,
    receiver: BuildHost,
    machine: MachineName,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self {
            development: DevelopmentHost::new(256),
            source: BuildHost::new(256),
            receiver: BuildHost::new(256),
            machine: "linux".parse().unwrap(),
        };
        let disk = vec![7; 3 << 20];
        let files: [(&str, &[u8]); 2] = [
            ("manifest", b": 1\nid: linux\nsummary: Linux\n"),
            ("disk.img", &disk),
        ];
        fixture.development.image("linux-1", None, &files);
        let stream = fixture.development.send("linux-1", None);
        let added = fixture.source.machinectl(&["add", "linux"], &stream);
        added.success();
        fixture
    }

    /// Fetches a revision from the first host. The connection is cut behind some bytes.
    fn fetch(&self, revision: u32, reserve_bytes: u64, cut: Option<u64>) -> Result<String> {
        let (own, relay) = UnixStream::pair().unwrap();
        let (far, end) = UnixStream::pair().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let input = TimeoutReader::pipe(&end).unwrap();
                // A receiver that goes away is an error.
                let _ = provide(&self.source.volume, &self.machine, input, &mut &end);
            });
            let (relay_in, far_in) = (relay.try_clone().unwrap(), far.try_clone().unwrap());
            scope.spawn(move || {
                let _ = io::copy(&mut &relay_in, &mut &far_in);
                let _ = far_in.shutdown(Shutdown::Write);
            });
            scope.spawn(move || {
                let most = cut.unwrap_or(u64::MAX);
                let _ = io::copy(&mut io::Read::take(&far, most), &mut &relay);
                let _ = relay.shutdown(Shutdown::Both);
                let _ = far.shutdown(Shutdown::Both);
            });
            let session = RemoteSession::over(own, "one".to_owned())?;
            let wanted = Some(Revision(revision));
            let volume = &self.receiver.volume;
            let mut pull = volume.plan_fetch(&self.machine, wanted, vec![session], &mut |_| {})?;
            pull.reserve_bytes = reserve_bytes;
            volume.pull(pull, false, &mut |_| {})
        })
    }

    fn current(&self) -> Option<u32> {
        let view = self.receiver.volume.view(&self.machine).ok()?;
        view.current.map(|it| it.0)
    }
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_revision_is_fetched_over_a_connection_and_continues_after_a_cut() {
    let fixture = Fixture::new();
    let full = fixture.fetch(1, 1 << 40, None).unwrap_err();
    assert_eq!(full.kind(), Some(RefusalKind::Full), "{full}");
    let absent = fixture.fetch(2, 1, None).unwrap_err();
    assert_eq!(absent.kind(), Some(RefusalKind::NotFound), "{absent}");
    fixture.fetch(1, 1, Some(1 << 20)).unwrap_err();
    assert_eq!(fixture.current(), None, "half a revision is not current");
    assert_eq!(fixture.fetch(1, 1, None).unwrap(), "one");
    assert_eq!(fixture.current(), Some(1));
    let disk = fixture.receiver.volume.path().join("linux/linux/disk.img");
    assert_eq!(std::fs::read(disk).unwrap(), vec![7; 3 << 20]);
}
