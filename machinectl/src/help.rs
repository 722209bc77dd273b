//! `--help`: commands by subject, and global options only where they have an effect.
//!
//! clap cannot group subcommands under headings. The first page of `--help` is therefore
//! rendered here, from the command tree and [`GROUPS`].

use std::fmt::Write as _;

use clap::Arg;
use clap::builder::StyledStr;

use crate::options::{COLOR_ID, FARM_ID, HOST_ID};
use crate::reach;

const VOLUME: &str = "volume";
const TOOLCHAINS: &str = "toolchains";
const SOCKET: &str = "socket";
const TOKEN: &str = "token_file";
const CA: &str = "ca_file";
const JSON: &str = "json";
const QUIET: &str = "quiet";
const LEGEND: &str = "no_legend";

/// A command's path below the program, and the global options that it uses.
type Entry = (&'static str, &'static [&'static str]);

/// The groups of commands in their order on the first page. Every visible command is in one of
/// them.
const GROUPS: [(&str, &[Entry]); 8] = [
    ("Machines", MACHINES),
    ("Images", IMAGES),
    ("Builds", BUILDS),
    ("Projects", PROJECTS),
    ("Debugging", DEBUGGING),
    ("Host", HOST),
    ("Farm", FARM),
    ("Toaster", TOASTER),
];

const MACHINES: &[Entry] = &[
    ("list", &[VOLUME, JSON, QUIET, LEGEND]),
    ("status", &[VOLUME, JSON, LEGEND]),
    ("add", &[VOLUME, JSON, QUIET]),
    ("import", &[VOLUME, JSON, QUIET]),
    ("image make", &[VOLUME, JSON, QUIET]),
    ("upgrade", &[VOLUME, JSON, QUIET]),
    ("promote", &[VOLUME, JSON, QUIET]),
    ("rollback", &[VOLUME, JSON, QUIET]),
    ("push", &[VOLUME, JSON, QUIET]),
    ("pull", &[VOLUME, JSON, QUIET]),
    ("delete", &[VOLUME, SOCKET, JSON, QUIET]),
];

const IMAGES: &[Entry] = &[
    ("verify", &[VOLUME, JSON, QUIET]),
    ("record", &[VOLUME, JSON, QUIET]),
    ("diff", &[VOLUME, JSON, QUIET, LEGEND]),
    ("pin", &[VOLUME, JSON, QUIET]),
    ("unpin", &[VOLUME, JSON, QUIET]),
    ("prune", &[VOLUME, JSON, QUIET]),
    ("export", &[VOLUME, JSON, QUIET]),
    ("send", &[VOLUME]),
    ("toolchain add", &[TOOLCHAINS, JSON, QUIET]),
    ("toolchain list", &[TOOLCHAINS, JSON, QUIET, LEGEND]),
    ("toolchain delete", &[TOOLCHAINS, JSON, QUIET]),
];

const BUILDS: &[Entry] = &[
    ("build", &[SOCKET, JSON, QUIET]),
    ("builds", &[SOCKET, JSON, QUIET, LEGEND]),
    ("builds delete", &[SOCKET, JSON, QUIET]),
    ("log", &[SOCKET, QUIET]),
    ("artifacts", &[SOCKET, JSON, QUIET, LEGEND]),
    ("provenance", &[SOCKET, JSON]),
    ("explain", &[SOCKET, JSON]),
    ("cancel", &[SOCKET, JSON, QUIET]),
    ("fork", &[SOCKET, JSON, QUIET]),
    ("rebuild", &[SOCKET, VOLUME, JSON, QUIET]),
    ("bisect", &[SOCKET, VOLUME, JSON, QUIET]),
    ("guest start", &[SOCKET, JSON, QUIET]),
    ("guest exec", &[SOCKET]),
    ("guest cp", &[SOCKET, JSON, QUIET]),
    ("guest stop", &[SOCKET, JSON, QUIET]),
    ("guest list", &[SOCKET, JSON, LEGEND]),
    ("schedule add", &[SOCKET, JSON, QUIET]),
    ("schedule list", &[SOCKET, JSON, LEGEND]),
    ("schedule show", &[SOCKET, JSON]),
    ("schedule run", &[SOCKET, JSON, QUIET]),
    ("schedule remove", &[SOCKET, JSON, QUIET]),
    ("schedule pause", &[JSON, QUIET]),
    ("schedule resume", &[JSON, QUIET]),
    ("controllers", &[SOCKET, JSON, QUIET, LEGEND]),
    ("controllers forget", &[SOCKET, JSON, QUIET]),
    ("enrol", &[SOCKET, JSON, QUIET]),
    ("feed list", &[SOCKET, JSON, LEGEND]),
    ("feed show", &[SOCKET, JSON]),
    ("feed rebuild", &[SOCKET, JSON, QUIET]),
    ("notify list", &[SOCKET, JSON, LEGEND]),
    ("notify test", &[SOCKET, JSON, QUIET]),
];

const PROJECTS: &[Entry] = &[
    ("project add", &[SOCKET, JSON, QUIET]),
    ("project import", &[SOCKET, JSON, QUIET]),
    ("project list", &[SOCKET, JSON, LEGEND]),
    ("project show", &[SOCKET, JSON]),
    ("project set", &[SOCKET, JSON, QUIET]),
    ("project layer", &[SOCKET, JSON, QUIET]),
    ("project build", &[SOCKET, JSON, QUIET, LEGEND]),
    ("project bisect", &[SOCKET, JSON, QUIET]),
    ("project remove", &[SOCKET, JSON, QUIET]),
    ("layer add", &[SOCKET, JSON, QUIET]),
    ("layer list", &[SOCKET, JSON, LEGEND]),
    ("layer show", &[SOCKET, JSON]),
    ("layer remove", &[SOCKET, JSON, QUIET]),
    ("layer sources", &[SOCKET, JSON, LEGEND]),
    ("release add", &[SOCKET, JSON, QUIET]),
    ("release list", &[SOCKET, JSON, LEGEND]),
    ("release show", &[SOCKET, JSON]),
    ("release remove", &[SOCKET, JSON, QUIET]),
];

const DEBUGGING: &[Entry] = &[
    ("console", &[SOCKET, QUIET]),
    ("login", &[SOCKET, QUIET]),
    ("resume", &[SOCKET, JSON, QUIET]),
    ("attach", &[SOCKET, QUIET]),
    ("release", &[SOCKET, JSON, QUIET, LEGEND]),
];

const HOST: &[Entry] = &[
    ("host status", &[SOCKET, JSON, LEGEND]),
    ("top", &[SOCKET, JSON]),
    ("web", &[SOCKET, JSON, QUIET]),
    ("drain", &[SOCKET, JSON, QUIET]),
    ("undrain", &[SOCKET, JSON, QUIET]),
    ("doctor", &[VOLUME, SOCKET, JSON, QUIET]),
    ("slsa check", &[SOCKET, JSON, QUIET, LEGEND]),
    ("init", &[JSON, QUIET]),
    ("secret add", &[SOCKET, JSON, QUIET]),
    ("secret list", &[SOCKET, JSON, LEGEND]),
    ("secret delete", &[SOCKET, JSON, QUIET]),
    ("cache list", &[SOCKET, JSON, LEGEND]),
    ("cache show", &[SOCKET, JSON, LEGEND]),
    ("cache prune", &[SOCKET, JSON, QUIET]),
    ("cache delete", &[SOCKET, JSON, QUIET]),
    ("token add", &[JSON, QUIET]),
    ("token list", &[JSON, LEGEND]),
    ("token remove", &[JSON, QUIET]),
    ("context add", &[SOCKET, TOKEN, CA, JSON, QUIET]),
    ("context list", &[JSON, LEGEND]),
    ("context show", &[JSON]),
    ("context use", &[JSON, QUIET]),
    ("context remove", &[JSON, QUIET]),
    ("completions", &[]),
];

const FARM: &[Entry] = &[
    ("hosts", &[JSON, LEGEND]),
    ("machines", &[JSON, LEGEND]),
    ("publish", &[JSON, QUIET]),
    ("queue", &[JSON, LEGEND]),
];

const TOASTER: &[Entry] = &[
    ("toaster buildslist", &[SOCKET]),
    ("toaster builddelete", &[SOCKET, JSON]),
    ("toaster buildimport", &[SOCKET, QUIET]),
    ("toaster loaddata", &[SOCKET, JSON, QUIET]),
    ("toaster lsupdates", &[SOCKET, JSON, QUIET]),
    ("toaster perf", &[]),
    ("toaster checksettings", &[]),
    ("toaster runbuilds", &[SOCKET, QUIET]),
    ("toaster checksocket", &[]),
];

/// Returns the command tree with its old spellings and ineffective options hidden, and with the
/// groups on its first page.
pub(crate) fn arrange(tree: clap::Command) -> clap::Command {
    let options: Vec<Arg> = tree
        .get_arguments()
        .filter(|option| option.is_global_set())
        .cloned()
        .collect();
    let tree = hide_toplevel_toaster(tree);
    let tree = hide_ineffective(tree, "", &options);
    let page = first_page(&tree);
    tree.override_help(page)
}

/// Hides Toaster's commands outside of `toaster`.
fn hide_toplevel_toaster(tree: clap::Command) -> clap::Command {
    let names = TOASTER
        .iter()
        .filter_map(|(path, _)| path.split(' ').next_back());
    names.fold(tree, |tree, name| {
        tree.mut_subcommand(name, |command| command.hide(true))
    })
}

/// Hides the global options that a command does not use. They are still accepted.
fn hide_ineffective(command: clap::Command, path: &str, options: &[Arg]) -> clap::Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    let command = names.into_iter().fold(command, |command, name| {
        let path = format!("{path} {name}");
        command.mut_subcommand(name, |command| {
            hide_ineffective(command, path.trim_start(), options)
        })
    });
    if path.is_empty() {
        return command;
    }
    let ineffective = options.iter().filter(|option| !uses(path, option));
    command.args(ineffective.map(|option| option.clone().hide(true)))
}

/// Returns true if a command or one of its subcommands uses a global option.
fn uses(path: &str, option: &Arg) -> bool {
    if option.get_id() == HOST_ID {
        return reach::has_host(path);
    }
    if option.get_id() == FARM_ID {
        return reach::shows_farm(path);
    }
    let id = match option.get_id().as_str() {
        // Only tables have colors.
        COLOR_ID => LEGEND,
        id => id,
    };
    let is_below = |entry: &str| {
        entry
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    GROUPS
        .iter()
        .flat_map(|(_, entries)| *entries)
        .filter(|(entry, _)| is_below(entry) || entry.strip_prefix("toaster ") == Some(path))
        .any(|(_, used)| used.contains(&id))
}

/// Returns true if a command prints JSON.
pub(crate) fn has_json(path: &str) -> bool {
    let is_this = |entry: &str| {
        entry == path
            || entry.strip_prefix("toaster ") == Some(path)
            || (path == "host" && entry == "host status")
    };
    GROUPS
        .iter()
        .flat_map(|(_, entries)| *entries)
        .any(|(entry, used)| is_this(entry) && used.contains(&JSON))
}

/// Renders the first page of `--help`.
fn first_page(tree: &clap::Command) -> StyledStr {
    let usage = format!("{} [OPTIONS] <COMMAND>", tree.get_name());
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}{{all-args}}{{after-help}}\n",
        rendered_groups(tree)
    );
    let mut page = tree
        .clone()
        .override_usage(usage)
        .help_template(template)
        .disable_help_subcommand(true)
        .mut_subcommands(|command| command.hide(true));
    page.render_help()
}

/// Returns the groups as the text of the first page.
fn rendered_groups(tree: &clap::Command) -> String {
    let styles = tree.get_styles();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let mut text = String::new();
    for group in groups(tree) {
        let _ = writeln!(text, "{header}{}:{header:#}", group.heading);
        for (name, about) in group.commands {
            let _ = writeln!(text, "  {literal}{name:<11}{literal:#}  {about}");
        }
        text.push('\n');
    }
    text
}

/// The commands about one subject.
pub(crate) struct Group {
    pub(crate) heading: &'static str,
    /// The names of the commands with their descriptions.
    pub(crate) commands: Vec<(&'static str, String)>,
}

/// Returns the groups in the order of the first page.
pub(crate) fn groups(tree: &clap::Command) -> Vec<Group> {
    let about = |name: &str| {
        tree.find_subcommand(name)
            .and_then(clap::Command::get_about)
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let group = |(heading, entries): (&'static str, &[Entry])| {
        let mut names: Vec<&'static str> = entries
            .iter()
            .filter_map(|(path, _)| path.split(' ').next())
            .collect();
        names.dedup();
        let commands = names.into_iter().map(|name| (name, about(name))).collect();
        Group { heading, commands }
    };
    GROUPS.into_iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cli;
    use crate::program::Program;

    fn tree() -> clap::Command {
        let mut tree = cli::tree(Program::Buildhost).term_width(100);
        tree.build();
        tree
    }

    /// Returns the paths of the visible commands that can be run.
    fn paths(command: &clap::Command, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        for child in command.get_subcommands() {
            let name = child.get_name();
            if child.is_hide_set() || name == "help" {
                continue;
            }
            let path = format!("{path} {name}").trim_start().to_owned();
            if !child.is_subcommand_required_set() && path != "host" {
                found.push(path.clone());
            }
            found.extend(paths(child, &path));
        }
        found
    }

    /// Returns the page of `--help` of a command, as printed on a terminal of 100 columns.
    fn page(path: &str) -> String {
        let words = format!("buildhost {path} --help");
        let error = cli::tree(Program::Buildhost)
            .term_width(100)
            .try_get_matches_from(words.split_whitespace())
            .unwrap_err();
        error.to_string()
    }

    #[test]
    fn every_visible_command_is_in_one_group() {
        let mut grouped: Vec<_> = GROUPS
            .iter()
            .flat_map(|(_, entries)| *entries)
            .map(|(path, _)| (*path).to_owned())
            .collect();
        let mut visible = paths(&tree(), "");
        grouped.sort();
        visible.sort();
        assert_eq!(grouped, visible);
    }

    #[test]
    fn a_command_shows_the_global_options_that_it_uses() {
        let tree = tree();
        let globals: BTreeSet<_> = tree
            .get_arguments()
            .filter(|option| option.is_global_set())
            .map(|option| option.get_id().to_string())
            .collect();
        for (path, used) in GROUPS.iter().flat_map(|(_, entries)| *entries) {
            let mut command = &tree;
            for name in path.split(' ') {
                command = command.find_subcommand(name).unwrap();
            }
            let shown: BTreeSet<_> = command
                .get_arguments()
                .filter(|option| !option.is_hide_set())
                .map(|option| option.get_id().as_str())
                .filter(|id| globals.contains(*id))
                .collect();
            let host = reach::has_host(path).then_some(HOST_ID);
            let color = used.contains(&LEGEND).then_some(COLOR_ID);
            let farm = reach::is_of_farm(path).then_some(FARM_ID);
            let expected = used.iter().copied().chain(host).chain(farm).chain(color);
            let expected = expected.collect();
            assert_eq!(shown, expected, "{path}");
        }
    }

    /// The commands whose output has no form in JSON: a terminal, a stream, a log, another program's
    /// format, or a process that stays.
    const WITHOUT_JSON: &[&str] = &[
        "attach",
        "completions",
        "console",
        "guest exec",
        "log",
        "login",
        "send",
        "toaster buildimport",
        "toaster buildslist",
        "toaster checksettings",
        "toaster checksocket",
        "toaster perf",
        "toaster runbuilds",
    ];

    #[test]
    fn every_command_prints_json_or_refuses_it() {
        for path in paths(&tree(), "") {
            let is_without = WITHOUT_JSON.contains(&path.as_str());
            assert_eq!(has_json(&path), !is_without, "{path}");
        }
        for hidden in ["manual", "receive", "provide", "relay", "buildslist"] {
            assert!(!has_json(hidden), "{hidden}");
        }
        assert!(has_json("host") && has_json("builddelete"));
    }

    #[test]
    fn descriptions_fit_on_a_line() {
        for line in page("").lines().filter(|line| line.starts_with("  ")) {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }

    #[test]
    fn pages() {
        for path in [
            "",
            "build",
            "push",
            "builds",
            "host",
            "image make",
            "toolchain add",
            "toaster",
        ] {
            let name = if path.is_empty() { "buildhost" } else { path };
            insta::assert_snapshot!(name.replace(' ', "_"), page(path));
        }
    }
}
