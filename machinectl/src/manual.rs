//! Completions and manual pages. They come from the command tree and carry the name by which
//! the program was called.

use std::io;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use clap_complete::Shell;
use clap_complete::env::Shells;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use sys::file;

use crate::exit_code::{ExitStatus, Failure};
use crate::help;
use crate::options::COMPLETION_VARIABLE;
use crate::output::Output;

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
    clap_mangen::generate_to(tree.clone(), directory)?;
    let page = main_page(tree)?;
    file::replace(&directory.join(page.name), &page.content)
}

/// The file of a manual page.
struct Page {
    name: String,
    content: Vec<u8>,
}

/// Renders the page of the program. It lists the commands by subject, as `--help` does.
fn main_page(tree: clap::Command) -> io::Result<Page> {
    let mut tree = tree.disable_help_subcommand(true);
    tree.build();
    let mut commands = Roff::new();
    for group in help::groups(&tree) {
        commands.control("SH", [group.heading.to_uppercase().as_str()]);
        for (name, about) in group.commands {
            let name = format!("{}-{name}(1)", tree.get_name());
            commands.control("TP", []).text([bold(name)]);
            commands.text([roman(about)]);
        }
    }
    let man = Man::new(tree);
    let mut content = Vec::new();
    man.render_title(&mut content)?;
    man.render_name_section(&mut content)?;
    man.render_synopsis_section(&mut content)?;
    man.render_description_section(&mut content)?;
    commands.to_writer(&mut content)?;
    man.render_options_section(&mut content)?;
    man.render_extra_section(&mut content)?;
    man.render_version_section(&mut content)?;
    Ok(Page {
        name: man.get_filename(),
        content,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;
    use crate::program::Program;

    #[test]
    fn the_main_page_lists_the_commands_by_subject() {
        let page = main_page(cli::tree(Program::Buildhost)).unwrap();
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
}
