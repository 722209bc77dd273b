//! The manual pages of the coordinator and of its settings.

use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use farm::settings::EXAMPLE;

/// Writes `man8/buildhost-farm*.8` and `man5/buildhost-farm.toml.5` below a directory.
pub(crate) fn write_pages(mut command: Command, directory: &Path) -> io::Result<()> {
    command.build();
    let pages = directory.join("man8");
    write_page(&command, command.get_name(), &pages)?;
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
    for subcommand in shown.filter(|it| it.get_name() != "help") {
        let name = format!("{}-{}", command.get_name(), subcommand.get_name());
        write_page(subcommand, &name, &pages)?;
    }
    let pages = directory.join("man5");
    write(&pages, "buildhost-farm.toml.5", &settings_page())
}

fn write_page(command: &Command, name: &str, directory: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    let command = command.clone().display_name(name.to_owned());
    Man::new(command)
        .title(name)
        .section("8")
        .render(&mut page)?;
    write(directory, &format!("{name}.8"), &page)
}

fn write(directory: &Path, name: &str, page: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    sys::file::replace(&directory.join(name), page)
}

/// Renders the page of the settings, which is the commented example.
fn settings_page() -> Vec<u8> {
    let version = concat!("buildhost ", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", ["buildhost-farm.toml", "5", "", version]);
    page.control("SH", ["NAME"]);
    page.text([roman(
        "buildhost-farm.toml - the settings of buildhost-farm(8)",
    )]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "The settings are a TOML file, by default /etc/buildhost/farm.toml. `buildhost-farm check` \
         checks it. After a change, restart the service; `systemctl reload buildhost-farm` reads the token of \
         clients again.",
    )]);
    page.control("SH", ["SETTINGS"]);
    page.control("nf", []);
    for line in EXAMPLE.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("buildhost-farm(8), buildhost(1)")]);
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
