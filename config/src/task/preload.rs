//! The request that lets the guest of a checkpoint preload.

use super::PRELOAD;

/// The request of the host that the worker of a checkpoint source runs the toolchain's `preload`:
/// the line `preload`, with the words `cache` and `hashserv` behind it if they apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preload {
    /// Set if the builds of the image have a cache at their gateway. The checkpoint source has none.
    pub cache: bool,
    /// Set if they reach the hash equivalence service there. The checkpoint source does not.
    pub hashserv: bool,
}

impl Preload {
    /// Returns the line, line end included.
    pub fn print(self) -> String {
        let cache = if self.cache { " cache" } else { "" };
        let hashserv = if self.hashserv { " hashserv" } else { "" };
        format!("{PRELOAD}{cache}{hashserv}\n")
    }

    /// Parses the line. Returns `None` for another one. Words of newer hosts are ignored.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let is_preload = words.next() == Some(PRELOAD);
        is_preload.then(|| {
            let words: Vec<_> = words.collect();
            Self {
                cache: words.contains(&"cache"),
                hashserv: words.contains(&"hashserv"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_request_is_parsed_again() {
        for (cache, hashserv) in [(false, false), (true, false), (false, true), (true, true)] {
            let request = Preload { cache, hashserv };
            assert_eq!(Preload::parse(&request.print()), Some(request));
        }
        let known = Preload {
            cache: true,
            hashserv: false,
        };
        assert_eq!(Preload::parse("preload cache twice\n"), Some(known));
        for other in ["", "preloaded", "go 1.0 00", "rehearsal"] {
            assert_eq!(Preload::parse(other), None);
        }
    }
}
