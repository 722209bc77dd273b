//! Programs from the registry of npm, in the versions that a lock file of this crate names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::command::{prepare, run};

/// The time limit for an installation.
const LIMIT: Duration = Duration::from_mins(4);

/// Installs the packages of a directory of this crate, unless they are installed, and returns the
/// directory of their programs. No script of a package is run.
pub fn install(directory: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cache = own.join("../.cache").join(directory);
    let read = |name: &str| {
        let path = own.join(directory).join(name);
        std::fs::read_to_string(path).expect("a file of this crate")
    };
    std::fs::create_dir_all(&cache).expect("a directory");
    let lock = read("package-lock.json");
    let ready = cache.join("ready");
    if !std::fs::read_to_string(&ready).is_ok_and(|installed| installed == lock) {
        crate::write_file(&cache.join("package.json"), &read("package.json"));
        crate::write_file(&cache.join("package-lock.json"), &lock);
        let mut npm = prepare("npm");
        let options = [
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--prefix",
        ];
        npm.args(options).arg(&cache);
        run(npm, LIMIT).expect("packages");
        crate::write_file(&ready, &lock);
    }
    cache.join("node_modules/.bin")
}
