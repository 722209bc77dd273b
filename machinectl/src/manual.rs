//! Completions and manual pages. They come from the command tree and carry the name by which
//! the program was called.

mod examples;
mod page;

use std::io;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use clap_complete::Shell;
use clap_complete::env::Shells;
use sys::file;

use crate::exit_code::{ExitStatus, Failure};
use crate::options::COMPLETION_VARIABLE;
use crate::output::Output;
use page::Page;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a directory
    #[command(hide = true)]
    Manual {
        /// The directory
        directory: PathBuf,
    },
}

pub(crate) fn run(command: &Command, tree: clap::Command, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Completions { shell } => {
            let script = script(*shell, tree.get_name());
            output.print(&script.map_err(|error| Failure::new(ExitStatus::Failure, error))?)
        }
        Command::Manual { directory } => {
            write_pages(tree, directory).map_err(|error| Failure::new(ExitStatus::Failure, error))
        }
    }
}

/// Returns the script that lets a shell ask this program, which is in its PATH, for completions.
fn script(shell: Shell, name: &str) -> io::Result<String> {
    let shells = Shells::builtins();
    let shell = shell.to_string();
    let completer = shells.completer(&shell);
    let completer = completer.ok_or_else(|| io::Error::other("the shell is unknown"))?;
    let mut script = Vec::new();
    completer.write_registration(COMPLETION_VARIABLE, name, name, name, &mut script)?;
    let mut script = String::from_utf8(script).map_err(io::Error::other)?;
    if shell == Shell::Zsh.to_string() {
        // A file that zsh loads at the first completion must also answer that one.
        let function = format!("_clap_dynamic_completer_{}", name.replace('-', "_"));
        script = format!("{script}\n[ \"$funcstack[1]\" = _{name} ] && {function} \"$@\"\n");
    }
    Ok(script)
}

fn write_pages(tree: clap::Command, directory: &Path) -> io::Result<()> {
    for page in pages(tree)? {
        file::replace(&directory.join(page.name), &page.content)?;
    }
    Ok(())
}

/// Renders the pages of the program and of all its visible commands.
fn pages(tree: clap::Command) -> io::Result<Vec<Page>> {
    let mut tree = tree.disable_help_subcommand(true);
    tree.build();
    let mut found = vec![page::render(&tree, tree.clone(), "")?];
    add_below(&tree, &tree, "", &mut found)?;
    Ok(found)
}

fn add_below(
    tree: &clap::Command,
    command: &clap::Command,
    path: &str,
    found: &mut Vec<Page>,
) -> io::Result<()> {
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        let path = format!("{path} {}", below.get_name());
        let path = path.trim_start();
        found.push(page::render(tree, below.clone(), path)?);
        add_below(tree, below, path, found)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;
    use crate::program::Program;

    #[test]
    fn the_main_page_lists_the_commands_by_subject() {
        let mut pages = pages(cli::tree(Program::Buildhost)).unwrap();
        let page = pages.remove(0);
        assert_eq!(page.name, "buildhost.1");
        let text = String::from_utf8(page.content).unwrap();
        let sections: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix(".SH "))
            .collect();
        insta::assert_snapshot!(sections.join("\n"));
        let (_, images) = text.split_once(".SH IMAGES\n").unwrap();
        let (images, _) = images.split_once(".SH ").unwrap();
        assert!(images.contains("buildhost\\-verify(1)"), "{images}");
        assert!(!images.contains("buildhost\\-build(1)"), "{images}");
    }

    #[test]
    fn a_page_has_examples_and_no_blanks_at_the_ends_of_lines() {
        let pages = pages(cli::tree(Program::Buildhost)).unwrap();
        for page in &pages {
            let text = String::from_utf8_lossy(&page.content);
            let mut lines = text.lines();
            assert!(lines.all(|line| line == line.trim_end()), "{}", page.name);
        }
        let named = |name: &str| pages.iter().find(|page| page.name == name).unwrap();
        let build = &named("buildhost-build.1").content;
        insta::assert_snapshot!(String::from_utf8_lossy(build));
    }
}
