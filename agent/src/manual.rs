//! The manual pages of the agent and of its settings.

use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};
use config::settings::EXAMPLE;

/// Writes `man8/buildhost-agent.8` and `man5/buildhost-agent.toml.5` below a directory.
pub(crate) fn write_pages(agent: Command, directory: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    Man::new(agent).section("8").render(&mut page)?;
    write(&directory.join("man8"), "buildhost-agent.8", &page)?;
    let page = settings_page();
    write(&directory.join("man5"), "buildhost-agent.toml.5", &page)
}

fn write(directory: &Path, name: &str, page: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    sys::file::replace(&directory.join(name), page)
}

/// Renders the page of the settings, which is the commented example.
fn settings_page() -> Vec<u8> {
    let version = concat!("buildhost ", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", ["buildhost-agent.toml", "5", "", version]);
    page.control("SH", ["NAME"]);
    page.text([roman(
        "buildhost-agent.toml - the settings of buildhost-agent(8)",
    )]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "The settings are a TOML file, by default /etc/buildhost/agent.toml. \
         `buildhost-agent --check` checks one. After a change, `systemctl reload buildhost-agent` \
         applies the settings that can change while the agent runs, and the log names the others.",
    )]);
    page.control("SH", ["SETTINGS"]);
    page.control("nf", []);
    for line in EXAMPLE.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("buildhost-agent(8), buildhost(1)")]);
    page.to_roff().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_the_settings_shows_every_line_of_the_example() {
        let page = String::from_utf8(settings_page()).unwrap();
        let shown = page.replace("\\-", "-").replace("\\&", "");
        for line in EXAMPLE.lines().filter(|line| !line.is_empty()) {
            assert!(shown.contains(line), "{line}");
        }
    }
}
