//! All volumes of a host, and the rule that assigns a machine to one of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use config::{MachineName, Tag, ToolchainName};

use crate::{MachineView, RefusalKind, Result, StoreError, Volume};

/// The position of a volume in [`Volumes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(pub usize);

/// The volumes of a host, in order of preference. Cheap to clone.
///
/// A machine belongs to one volume: the first in which it is live, or else the first that
/// has its directory.
#[derive(Debug, Clone)]
pub struct Volumes(Arc<[Volume]>);

/// A machine and the volume that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The volume.
    pub volume: VolumeId,
    /// The machine's directory in that volume.
    pub view: MachineView,
}

/// The machines of all volumes.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Each machine in the volume that it belongs to.
    pub machines: BTreeMap<MachineName, Located>,
    /// Directories that could not be read. Their machines are in `machines` only if
    /// another volume has them.
    pub unreadable: Vec<(MachineName, StoreError)>,
}

impl FromIterator<Volume> for Volumes {
    fn from_iter<I: IntoIterator<Item = Volume>>(volumes: I) -> Self {
        Self(volumes.into_iter().collect())
    }
}

impl<'v> IntoIterator for &'v Volumes {
    type Item = &'v Volume;
    type IntoIter = std::slice::Iter<'v, Volume>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Volumes {
    /// Returns the volumes in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Volume> {
        self.0.iter()
    }

    /// Returns the volumes in order, with their positions.
    pub fn indexed(&self) -> impl Iterator<Item = (VolumeId, &Volume)> {
        self.iter()
            .enumerate()
            .map(|(index, volume)| (VolumeId(index), volume))
    }

    /// Returns the volume at a position.
    pub fn get(&self, id: VolumeId) -> Option<&Volume> {
        self.0.get(id.0)
    }

    /// Returns the volume whose directory is `path`.
    pub fn at(&self, path: &Path) -> Option<&Volume> {
        self.iter().find(|volume| volume.path() == path)
    }

    /// Returns the volume that a machine belongs to.
    ///
    /// # Errors
    /// No volume has the machine, and at least one could not be read.
    pub fn of_machine(&self, machine: &MachineName) -> Result<Option<Located>> {
        let mut found = None;
        let mut unreadable = None;
        for (volume, store) in self.indexed() {
            match store.view(machine) {
                Ok(view) => prefer(&mut found, Located { volume, view }),
                Err(error) if error.kind() == Some(RefusalKind::NotFound) => {}
                Err(error) => unreadable = unreadable.or(Some(error)),
            }
            if found.as_ref().is_some_and(|it| it.view.is_live()) {
                break;
            }
        }
        match (found, unreadable) {
            (None, Some(error)) => Err(error),
            (found, _) => Ok(found),
        }
    }

    /// Returns the first volume that has a snapshot.
    ///
    /// # Errors
    /// No volume has the snapshot, and at least one could not be read.
    pub fn of_snapshot(
        &self,
        machine: &MachineName,
        toolchain: &ToolchainName,
        tag: &Tag,
    ) -> Result<Option<VolumeId>> {
        let mut unreadable = None;
        for (id, volume) in self.indexed() {
            match volume.has_snapshot(machine, toolchain, tag) {
                Ok(true) => return Ok(Some(id)),
                Ok(false) => {}
                Err(error) => unreadable = unreadable.or(Some(error)),
            }
        }
        unreadable.map_or(Ok(None), Err)
    }

    /// Returns all machines of all volumes.
    ///
    /// # Errors
    /// A volume cannot be listed. A machine that cannot be read is no error.
    pub fn inventory(&self) -> Result<Inventory> {
        let mut found: BTreeMap<MachineName, Option<Located>> = BTreeMap::new();
        let mut unreadable = Vec::new();
        for (volume, store) in self.indexed() {
            for machine in store.machines()? {
                match store.view(&machine) {
                    Ok(view) => prefer(found.entry(machine).or_default(), Located { volume, view }),
                    // Deleted after it was listed.
                    Err(error) if error.kind() == Some(RefusalKind::NotFound) => {}
                    Err(error) => unreadable.push((machine, error)),
                }
            }
        }
        let machines = found
            .into_iter()
            .filter_map(|(machine, located)| Some((machine, located?)))
            .collect();
        Ok(Inventory {
            machines,
            unreadable,
        })
    }
}

/// Replaces `chosen` by a candidate from a later volume if the rule prefers that one.
fn prefer(chosen: &mut Option<Located>, candidate: Located) {
    let keep = chosen
        .as_ref()
        .is_some_and(|chosen| chosen.view.is_live() || !candidate.view.is_live());
    if !keep {
        *chosen = Some(candidate);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use config::Revision;
    use config::layout::Entry;

    use super::*;
    use crate::{Intent, SnapshotSource, Source};
    use btrfs::subvolumes::{FakeBackend, SubvolumeBackend};

    /// Two volumes on one fake backend.
    struct Fixture {
        directory: tempfile::TempDir,
        backend: Arc<FakeBackend>,
        volumes: Volumes,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let backend = Arc::new(FakeBackend::default());
            let open = |name: &str| {
                let path = directory.path().join(name);
                std::fs::create_dir(&path).unwrap();
                Volume::with_backend(&path, backend.clone())
            };
            let volumes = ["first", "second"].map(open).into_iter().collect();
            Self {
                directory,
                backend,
                volumes,
            }
        }

        fn volume(&self, id: usize) -> &Volume {
            self.volumes.get(VolumeId(id)).unwrap()
        }

        /// Adds a machine that is live.
        fn add(&self, id: usize, machine: &MachineName) {
            let original: PathBuf = self.directory.path().join(format!("{machine}-{id}"));
            self.backend.create(&original).unwrap();
            self.backend.make_read_only(&original).unwrap();
            self.volume(id)
                .ingest(Intent::Add, machine, Source::Subvolume(original))
                .unwrap();
        }

        /// Adds a machine whose deletion was interrupted.
        fn add_dead(&self, id: usize, machine: &MachineName) {
            self.add(id, machine);
            let volume = self.volume(id);
            let current = volume.entry(machine, &Entry::Current);
            let deleting = volume.entry(machine, &Entry::Deleting);
            std::fs::rename(current, deleting).unwrap();
        }

        /// Returns the volume of a machine, which both queries must agree on.
        fn volume_of(&self, machine: &MachineName) -> Option<usize> {
            let located = self.volumes.of_machine(machine).unwrap();
            let inventory = self.volumes.inventory().unwrap();
            assert!(inventory.unreadable.is_empty());
            assert_eq!(inventory.machines.get(machine), located.as_ref());
            located.map(|located| located.volume.0)
        }
    }

    fn name(name: &str) -> MachineName {
        name.parse().unwrap()
    }

    #[test]
    fn a_live_machine_precedes_a_dead_one_of_an_earlier_volume() {
        let fixture = Fixture::new();
        fixture.add_dead(0, &name("linux"));
        assert_eq!(fixture.volume_of(&name("linux")), Some(0));
        fixture.add(1, &name("linux"));
        assert_eq!(fixture.volume_of(&name("linux")), Some(1));
    }

    #[test]
    fn the_first_volume_wins_among_equals() {
        let fixture = Fixture::new();
        for volume in [0, 1] {
            fixture.add(volume, &name("live"));
            fixture.add_dead(volume, &name("dead"));
        }
        fixture.add(1, &name("second"));
        assert_eq!(fixture.volume_of(&name("live")), Some(0));
        assert_eq!(fixture.volume_of(&name("dead")), Some(0));
        assert_eq!(fixture.volume_of(&name("second")), Some(1));
        assert_eq!(fixture.volume_of(&name("missing")), None);
    }

    #[test]
    fn a_snapshot_is_found_by_machine_toolchain_and_tag() {
        let fixture = Fixture::new();
        let machine = name("linux");
        let (toolchain, tag) = ("default".parse().unwrap(), "7".parse().unwrap());
        fixture.add_dead(0, &machine);
        fixture.add(1, &machine);
        let find = |toolchain: &ToolchainName, tag: &Tag| {
            fixture
                .volumes
                .of_snapshot(&machine, toolchain, tag)
                .unwrap()
        };
        assert_eq!(find(&toolchain, &tag), None);
        fixture
            .volume(1)
            .snapshot(&machine, &SnapshotSource::Current, &toolchain, &tag)
            .unwrap();
        assert_eq!(find(&toolchain, &tag), Some(VolumeId(1)));
        assert_eq!(find(&"other".parse().unwrap(), &tag), None);
        assert_eq!(find(&toolchain, &"8".parse().unwrap()), None);
    }

    #[test]
    fn a_volume_is_found_by_its_path() {
        let fixture = Fixture::new();
        let path = fixture.directory.path().join("second");
        assert_eq!(fixture.volumes.at(&path).unwrap().path(), path);
        assert!(fixture.volumes.at(fixture.directory.path()).is_none());
    }

    #[test]
    fn an_unreadable_volume_is_an_error_only_if_no_other_has_the_machine() {
        let fixture = Fixture::new();
        let machine = name("linux");
        // A link to itself cannot be opened.
        let looping = fixture.directory.path().join("loop");
        std::os::unix::fs::symlink(&looping, &looping).unwrap();
        let broken = Volume::with_backend(&looping, fixture.backend.clone());
        let volumes: Volumes = [broken, fixture.volume(1).clone()].into_iter().collect();
        assert!(volumes.of_machine(&machine).is_err());
        fixture.add(1, &machine);
        let located = volumes.of_machine(&machine).unwrap().unwrap();
        assert_eq!(located.volume, VolumeId(1));
        assert_eq!(located.view.current, Some(Revision(1)));
    }
}
