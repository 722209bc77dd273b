//! The manual pages of programs that system services run, and of their settings. They come from command
//! lines and from commented examples, so that they are as new as these.

use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// The page of a program's settings, in section 5.
#[derive(Debug, Clone, Copy)]
pub struct SettingsPage<'a> {
    /// The name of the program.
    pub program: &'a str,
    /// The sentences about the file: where it is, how it is checked, when changes count.
    pub description: &'a str,
    /// The commented example, which has all settings.
    pub example: &'a str,
}

/// Writes the page of a program and one of each visible subcommand into `man8` below a directory.
///
/// # Errors
/// A page cannot be written.
pub fn write_program(mut command: Command, directory: &Path) -> io::Result<()> {
    command.build();
    let directory = directory.join("man8");
    write_command(&command, command.get_name(), &directory)?;
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
    for subcommand in shown.filter(|it| it.get_name() != "help") {
        let name = format!("{}-{}", command.get_name(), subcommand.get_name());
        write_command(subcommand, &name, &directory)?;
    }
    Ok(())
}

fn write_command(command: &Command, name: &str, directory: &Path) -> io::Result<()> {
    let mut page = Vec::new();
    let command = command.clone().display_name(name.to_owned());
    Man::new(command)
        .title(name)
        .section("8")
        .render(&mut page)?;
    write(directory, &format!("{name}.8"), &page)
}

impl SettingsPage<'_> {
    /// Writes the page into `man5` below a directory.
    ///
    /// # Errors
    /// The page cannot be written.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let name = format!("{}.toml.5", self.program);
        write(&directory.join("man5"), &name, &self.render())
    }

    fn render(&self) -> Vec<u8> {
        let program = self.program;
        let version = concat!("buildhost ", env!("CARGO_PKG_VERSION"));
        let mut page = Roff::new();
        page.control("TH", [&format!("{program}.toml"), "5", "", version]);
        page.control("SH", ["NAME"]);
        page.text([roman(format!(
            "{program}.toml - the settings of {program}(8)"
        ))]);
        page.control("SH", ["DESCRIPTION"]);
        page.text([roman(self.description)]);
        page.control("SH", ["SETTINGS"]);
        page.control("nf", []);
        for line in self.example.lines() {
            page.text([roman(line)]);
        }
        page.control("fi", []);
        page.control("SH", ["SEE ALSO"]);
        page.text([roman(format!("{program}(8), buildhost(1)"))]);
        page.to_roff().into_bytes()
    }
}

fn write(directory: &Path, name: &str, page: &[u8]) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    sys::file::replace(&directory.join(name), page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_settings_shows_every_line_of_the_example() {
        let example = "# The volume.\nvolume = \"/srv\"\n\n.dots = 'and quotes'\n# -options";
        let page = SettingsPage {
            program: "buildhost-agent",
            description: "A file.",
            example,
        };
        let page = String::from_utf8(page.render()).unwrap();
        let shown = page.replace("\\-", "-").replace("\\&", "");
        let shown = shown.replace("\\(aq", "'").replace("\\*(Aq", "'");
        for line in example.lines().filter(|line| !line.is_empty()) {
            assert!(shown.contains(line), "{line} in {shown}");
        }
        assert!(shown.contains("buildhost-agent.toml - the settings of buildhost-agent(8)"));
    }
}
