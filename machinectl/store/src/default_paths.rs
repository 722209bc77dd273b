//! The directories that are used if none is named.

use std::path::{Path, PathBuf};

use config::settings::{Paths, TOOLCHAINS, VOLUME};

/// The default volume of earlier versions.
const EARLIER_VOLUME: &str = "/build/machines/default";
/// The default directory of the toolchains of earlier versions.
const EARLIER_TOOLCHAINS: &str = "/build/tftp/toolchains";

/// Returns the default volume of this host: that of earlier versions if only it exists.
pub fn volume() -> PathBuf {
    existing(VOLUME.as_ref(), EARLIER_VOLUME.as_ref()).to_owned()
}

/// Returns the default directory of the toolchains of this host: that of earlier versions if only it
/// exists.
pub fn toolchains() -> PathBuf {
    existing(TOOLCHAINS.as_ref(), EARLIER_TOOLCHAINS.as_ref()).to_owned()
}

/// Replaces the defaults in settings by those of this host.
pub fn use_those_of_host(paths: &mut Paths) {
    for path in &mut paths.volumes {
        if path.as_path() == Path::new(VOLUME) {
            *path = volume();
        }
    }
    if paths.toolchains.as_path() == Path::new(TOOLCHAINS) {
        paths.toolchains = toolchains();
    }
}

/// Returns the default unless only the earlier directory exists.
fn existing<'a>(default: &'a Path, earlier: &'a Path) -> &'a Path {
    if !default.exists() && earlier.exists() {
        earlier
    } else {
        default
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_directory_is_used_if_only_it_exists() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        let (default, earlier) = (path("default"), path("earlier"));
        assert_eq!(existing(&default, &earlier), default);
        std::fs::create_dir(&earlier).unwrap();
        assert_eq!(existing(&default, &earlier), earlier);
        std::fs::create_dir(&default).unwrap();
        assert_eq!(existing(&default, &earlier), default);
    }
}
