//! The sections of a manual page, in the order that man-pages(7) gives.

use std::io;

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::examples;
use crate::help;
use crate::reach;

/// The date of the last change of the pages' sections.
const DATE: &str = "2026-11-30";

/// The file of a manual page.
pub(super) struct Page {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// Renders the page of a command with a path below the program. `tree` is the built tree.
pub(super) fn render(tree: &clap::Command, command: clap::Command, path: &str) -> io::Result<Page> {
    let environment = environment(&command);
    let synopsis = synopsis(command.clone());
    let is_program = path.is_empty();
    let has_subcommands = command.has_subcommands();
    let has_extra = command.get_after_long_help().is_some();
    let source = format!("Buildhost {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command)
        .date(DATE)
        .source(source)
        .manual("Buildhost");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    synopsis.to_writer(&mut text)?;
    man.render_description_section(&mut text)?;
    if is_program {
        groups(tree).to_writer(&mut text)?;
    }
    man.render_options_section(&mut text)?;
    if has_subcommands && !is_program {
        man.render_subcommands_section(&mut text)?;
    }
    if has_extra && !is_program {
        man.render_extra_section(&mut text)?;
    }
    exit_status(is_program).to_writer(&mut text)?;
    listed("ENVIRONMENT", &environment).to_writer(&mut text)?;
    listed("FILES", &files(path)).to_writer(&mut text)?;
    example_section(path).to_writer(&mut text)?;
    see_also(is_program).to_writer(&mut text)?;
    Ok(Page {
        name: man.get_filename(),
        content: cleaned(&text),
    })
}

/// Returns the synopsis, as `--help` prints it: with values, and without a list of all options.
fn synopsis(mut command: clap::Command) -> Roff {
    let usage = command.render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]).control("nf", []);
    for line in usage.lines() {
        roff.text([bold(line.trim())]);
    }
    roff.control("fi", []);
    roff
}

/// Returns the commands by subject, as `--help` lists them.
fn groups(tree: &clap::Command) -> Roff {
    let mut roff = Roff::new();
    for group in help::groups(tree) {
        roff.control("SH", [group.heading.to_uppercase().as_str()]);
        for (name, about) in group.commands {
            let name = format!("{}-{name}(1)", tree.get_name());
            roff.control("TP", []).text([bold(name)]);
            roff.text([roman(about)]);
        }
    }
    roff
}

/// Returns the variables that options of a command stand for.
fn environment(command: &clap::Command) -> Vec<(String, String)> {
    let options = command.get_arguments().filter(|it| !it.is_hide_set());
    let mut found: Vec<_> = options
        .filter_map(|option| {
            let variable = option.get_env()?.to_str()?.to_owned();
            let text = format!("The value of --{}.", option.get_long()?);
            Some((variable, text))
        })
        .collect();
    if command
        .get_arguments()
        .any(|it| it.get_id() == "agent_host" && !it.is_hide_set())
    {
        let text = "The ssh command with its options, for hosts behind ssh.";
        found.push(("BUILDHOST_SSH".to_owned(), text.to_owned()));
    }
    found
}

/// Returns the files that a command uses.
fn files(path: &str) -> Vec<(String, String)> {
    let entry = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let mut found = Vec::new();
    if path.is_empty() {
        found.push(entry("/var/lib/buildhost/machines", "The default volume."));
        found.push(entry("/var/lib/buildhost/toolchains", "The toolchains."));
        found.push(entry("/etc/buildhost/tokens", "The hashes of the tokens."));
    }
    if path.is_empty() || reach::has_host(path) {
        found.push(entry(
            "/run/buildhost/agent.sock",
            "The socket of the agent.",
        ));
    }
    if path.is_empty() || path.starts_with("context") {
        found.push(entry(
            "~/.config/buildhost/config.toml",
            "The contexts; in XDG_CONFIG_HOME if that is set.",
        ));
    }
    found
}

fn listed(heading: &str, entries: &[(String, String)]) -> Roff {
    let mut roff = Roff::new();
    if entries.is_empty() {
        return roff;
    }
    roff.control("SH", [heading]);
    for (name, text) in entries {
        roff.control("TP", []).text([bold(name.as_str())]);
        roff.text([roman(text.as_str())]);
    }
    roff
}

fn exit_status(is_program: bool) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    if !is_program {
        roff.text([roman(
            "0 on success; 2 for an invalid command line. buildhost(1) lists all others.",
        )]);
        return roff;
    }
    let lines = crate::exit_code::HELP.lines().skip(1);
    for line in lines {
        match line
            .strip_prefix(' ')
            .and_then(|it| it.trim_start().split_once("  "))
        {
            Some((code, text)) => {
                roff.control("TP", []).text([bold(code)]);
                roff.text([roman(text)]);
            }
            None => {
                roff.control("PP", []).text([roman(line)]);
            }
        }
    }
    roff
}

fn example_section(path: &str) -> Roff {
    let mut roff = Roff::new();
    let examples = examples::of(path);
    if examples.is_empty() {
        return roff;
    }
    roff.control("SH", ["EXAMPLES"]);
    for (index, (purpose, line)) in examples.iter().enumerate() {
        if index > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(format!("{purpose}:"))]);
        roff.control("PP", []).control("nf", []);
        roff.control("RS", ["4"]);
        for line in line.lines() {
            roff.text([bold(line)]);
        }
        roff.control("RE", []).control("fi", []);
    }
    roff
}

fn see_also(is_program: bool) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(if is_program {
        "buildhost-agent(8), buildhost-agent.toml(5)"
    } else {
        "buildhost(1)"
    })]);
    roff
}

/// Returns a page without what formatters complain about: blanks at the ends of lines, and empty
/// lines between line breaks.
fn cleaned(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text).replace("\n.br\n\n.br\n", "\n.sp\n");
    let lines = text.lines().map(str::trim_end);
    lines
        .flat_map(|line| [line, "\n"])
        .collect::<String>()
        .into_bytes()
}
