//! The files that pages refer to. The name of each contains a hash of its content, so that browsers
//! keep it forever.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// A file that pages refer to.
#[derive(Debug)]
pub struct Asset {
    /// The name, with a hash of the content.
    pub name: String,
    /// The media type.
    pub media_type: &'static str,
    /// The content.
    pub content: &'static [u8],
}

/// The files: name, extension, media type and content.
const FILES: [(&str, &str, &str, &[u8]); 7] = [
    (
        "page",
        "css",
        "text/css; charset=utf-8",
        include_bytes!("../assets/page.css"),
    ),
    (
        "page",
        "js",
        "text/javascript; charset=utf-8",
        include_bytes!("../assets/page.js"),
    ),
    (
        "log",
        "js",
        "text/javascript; charset=utf-8",
        include_bytes!("../assets/log.js"),
    ),
    (
        "console",
        "js",
        "text/javascript; charset=utf-8",
        include_bytes!("../assets/console.js"),
    ),
    (
        "xterm",
        "js",
        "text/javascript; charset=utf-8",
        include_bytes!("../assets/xterm/xterm.js"),
    ),
    (
        "xterm",
        "css",
        "text/css; charset=utf-8",
        include_bytes!("../assets/xterm/xterm.css"),
    ),
    (
        "icon",
        "svg",
        "image/svg+xml",
        include_bytes!("../assets/icon.svg"),
    ),
];

static ASSETS: LazyLock<Vec<(String, Asset)>> = LazyLock::new(|| {
    let assets = FILES.iter().map(|(stem, extension, media_type, content)| {
        let hash = Sha256::digest(content);
        let hash = hash
            .iter()
            .take(6)
            .fold(0, |hash, byte| hash << 8 | u64::from(*byte));
        let asset = Asset {
            name: format!("{stem}-{hash:012x}.{extension}"),
            media_type,
            content,
        };
        (format!("{stem}.{extension}"), asset)
    });
    assets.collect()
});

/// Returns the file with a name that includes the hash.
pub fn asset(name: &str) -> Option<&'static Asset> {
    ASSETS
        .iter()
        .map(|(_, asset)| asset)
        .find(|it| it.name == name)
}

/// Returns the path of a file, from its name without the hash. It is empty for an unknown file.
pub(crate) fn path(plain: &str) -> String {
    let found = ASSETS.iter().find(|(name, _)| name == plain);
    found.map_or_else(String::new, |(_, asset)| format!("/static/{}", asset.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_found_by_its_hashed_name_only() {
        for (stem, extension, _, content) in FILES {
            let path = path(&format!("{stem}.{extension}"));
            let name = path.strip_prefix("/static/").unwrap();
            assert_eq!(asset(name).unwrap().content, content);
            assert!(asset(&format!("{stem}.{extension}")).is_none());
        }
        assert_eq!(path("other.css"), "");
    }

    #[test]
    fn the_scripts_stay_small() {
        let bytes = |is_wanted: fn(&str) -> bool| -> usize {
            let scripts = FILES.iter().filter(|(_, extension, ..)| *extension == "js");
            let wanted = scripts.filter(|(stem, ..)| is_wanted(stem));
            wanted.map(|(.., content)| content.len()).sum()
        };
        // The terminal is the work of others, and only the page of a console loads it.
        let on_all = bytes(|stem| stem != "xterm" && stem != "console");
        assert!(on_all <= 5 * 1024, "{on_all} bytes");
        let console = bytes(|stem| stem == "console");
        assert!(console <= 3 * 1024, "{console} bytes");
    }
}
