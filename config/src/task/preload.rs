//! The request that lets the guest of a checkpoint preload.

use super::PRELOAD;

/// The request of the host that the worker of a checkpoint source runs the toolchain's `preload`:
/// the line `preload`, or `preload cache`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Preload {
    /// Set if the builds of the image have a cache at their gateway. The checkpoint source has none.
    pub cache: bool,
}

impl Preload {
    /// Returns the line, line end included.
    pub fn print(self) -> String {
        let cache = if self.cache { " cache" } else { "" };
        format!("{PRELOAD}{cache}\n")
    }

    /// Parses the line. Returns `None` for another one. Words of newer hosts are ignored.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let is_preload = words.next() == Some(PRELOAD);
        is_preload.then(|| Self {
            cache: words.any(|word| word == "cache"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_request_is_parsed_again() {
        for cache in [false, true] {
            let request = Preload { cache };
            assert_eq!(Preload::parse(&request.print()), Some(request));
        }
        let newer = Preload::parse("preload cache twice\n");
        assert_eq!(newer, Some(Preload { cache: true }));
        for other in ["", "preloaded", "go 1.0 00", "rehearsal"] {
            assert_eq!(Preload::parse(other), None);
        }
    }
}
