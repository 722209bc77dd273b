//! The settings of caches between builds.

use wildmatch::WildMatch;

use super::reader::Reader;
use crate::builds::Submitter;
use crate::names::{CacheName, MachineName, ToolchainName};

/// The rules of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRules {
    /// The name.
    pub name: CacheName,
    /// The patterns of the machines whose builds use it, with `*` for any text.
    pub machines: Vec<String>,
    /// The patterns of the toolchains of these builds.
    pub toolchains: Vec<String>,
    /// The submitters whose builds fill it.
    pub writers: Vec<Submitter>,
    /// The size up to which entries are kept, and the most that one build may put.
    pub bytes_max: u64,
}

impl CacheRules {
    /// Returns true if the builds of a machine with a toolchain use the cache.
    pub fn serves(&self, machine: &MachineName, toolchain: &ToolchainName) -> bool {
        matches(&self.machines, machine.as_str()) && matches(&self.toolchains, toolchain.as_str())
    }
}

/// Returns true if a name matches one of the patterns.
pub(super) fn matches(patterns: &[String], name: &str) -> bool {
    let mut patterns = patterns.iter();
    patterns.any(|pattern| WildMatch::new(pattern).matches(name))
}

/// Reads the caches.
pub(super) fn caches(reader: &mut Reader<'_>) -> Vec<CacheRules> {
    reader.named_tables("caches.name", cache)
}

fn cache(reader: &mut Reader<'_>, name: Option<CacheName>) -> Option<CacheRules> {
    let machines = patterns(reader, "caches.machines");
    let toolchains = patterns(reader, "caches.toolchains");
    let writers = reader.list(
        "caches.writers",
        "submitters such as `alice` or `token:nightly`",
        |text| text.parse().ok(),
    );
    let bytes_max = reader.mebibytes("caches.mib_max", 10 * 1024, 1..=1 << 30);
    Some(CacheRules {
        name: name?,
        machines,
        toolchains,
        writers,
        bytes_max,
    })
}

/// Reads a list of patterns; the default matches all names.
pub(super) fn patterns(reader: &mut Reader<'_>, key: &'static str) -> Vec<String> {
    let read = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let patterns = reader.optional_list(key, "patterns such as `linux-*`", read);
    patterns.unwrap_or_else(|| vec!["*".to_owned()])
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    fn faults(text: &str) -> String {
        let faults = Settings::parse(text).unwrap_err();
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn the_first_cache_that_matches_serves_a_build() {
        let settings = Settings::parse(
            "[[caches]]\nname = \"yocto\"\nmachines = [\"yocto-*\", \"oe\"]\ntoolchains = [\"bitbake\"]\n\
             writers = [\"root\", \"token:nightly\"]\nmib_max = 2\n[[caches]]\nname = \"rest\"\n",
        )
        .unwrap();
        let name = |machine: &str, toolchain: &str| {
            let cache = settings.cache_of(&machine.parse().unwrap(), &toolchain.parse().unwrap());
            cache.unwrap().name.to_string()
        };
        assert_eq!(name("yocto-5", "bitbake"), "yocto");
        assert_eq!(name("oe", "bitbake"), "yocto");
        assert_eq!(name("yocto-5", "default"), "rest");
        assert_eq!(name("linux", "bitbake"), "rest");
        let [yocto, rest] = settings.caches.as_slice() else {
            panic!("two caches");
        };
        assert_eq!(yocto.bytes_max, 2 << 20);
        assert_eq!(yocto.writers.len(), 2);
        assert!(rest.writers.is_empty(), "nobody fills a cache by default");
        assert_eq!(rest.bytes_max, 10 << 30);
    }

    #[test]
    fn there_are_no_caches_by_default() {
        assert_eq!(Settings::parse("").unwrap().caches, []);
        assert_eq!(Settings::parse("caches = []").unwrap().caches, []);
    }

    #[test]
    fn all_faults_of_caches_are_reported_with_their_lines() {
        let text = "\
[[caches]]
name = \"one\"
mib_max = 0
size = 1

[[caches]]
machines = \"linux\"
writers = [\"a b\"]

[[caches]]
name = \"../x\"
toolchains = [\"\"]
";
        insta::assert_snapshot!(faults(text), @r"
        line 3: `caches.mib_max`: a number from 1 to 1073741824 is expected
        line 4: `caches.size` is not a setting
        line 6: `caches.name`: a name is expected
        line 7: `caches.machines`: a list of patterns such as `linux-*` is expected
        line 8: `caches.writers`: a list of submitters such as `alice` or `token:nightly` is expected
        line 11: `caches.name`: `../x` cannot be the name of a cache: it must start with a letter or a digit
        line 12: `caches.toolchains`: a list of patterns such as `linux-*` is expected
        ");
        let one = "[[caches]]\nname = \"one\"\n";
        let twice = faults(&[one, one].concat());
        assert_eq!(
            twice,
            "line 4: `caches.name`: another table `[[caches]]` has this name"
        );
        let form = "line 1: `caches`: tables such as `[[caches]]` are expected";
        assert_eq!(faults("[caches]\nname = \"one\"\n"), form);
        assert_eq!(faults("caches = [1]\n"), form);
    }
}
