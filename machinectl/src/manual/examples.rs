//! The examples of the manual pages.

/// A command with its purpose.
pub(super) type Example = (&'static str, &'static str);

/// The examples of commands, by their paths below the program.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "",
        &[
            (
                "Submit a build and follow its log",
                "buildhost build debian hello-1.0.tar.gz --follow",
            ),
            ("Ask why a build waits", "buildhost explain 7"),
            (
                "Speak to the agent of another host",
                "buildhost --host ssh:alice@build1 builds",
            ),
        ],
    ),
    (
        "artifacts",
        &[(
            "Fetch the files of a build and their provenance",
            "buildhost artifacts 7 --output packages",
        )],
    ),
    (
        "attach",
        &[(
            "Look at the disk of a failed build that is held",
            "buildhost attach 8",
        )],
    ),
    (
        "bisect",
        &[("Find the revision that broke a build", "buildhost bisect 7")],
    ),
    (
        "build",
        &[
            (
                "Submit a build and follow its log",
                "buildhost build debian hello-1.0.tar.gz --follow",
            ),
            (
                "Use the record in a script",
                "buildhost build debian hello.tar --follow --json | jq .outcome",
            ),
            (
                "Keep the guest if the build fails",
                "buildhost build debian hello-1.0.tar.gz --hold",
            ),
        ],
    ),
    (
        "builds",
        &[
            (
                "The failed builds of a package since yesterday",
                "buildhost builds --package hello --outcome error --since 1d",
            ),
            ("Everything about one build", "buildhost builds 7"),
        ],
    ),
    (
        "cache prune",
        &[(
            "See which entries would be deleted",
            "buildhost cache prune yocto --dry-run",
        )],
    ),
    (
        "console",
        &[(
            "Watch the console of the only guest of a machine",
            "buildhost console debian --read-only",
        )],
    ),
    (
        "context add",
        &[
            (
                "Use an agent on the network, with a token from the host",
                "ssh root@build1 buildhost token add alice --scope submit |\n    buildhost context add farm https://build1:8000 --token-file - --use",
            ),
            (
                "Use an agent through ssh",
                "buildhost context add lab ssh:alice@lab",
            ),
        ],
    ),
    (
        "doctor",
        &[("Fix what needs no decision", "buildhost doctor --repair")],
    ),
    (
        "drain",
        &[
            (
                "Prepare maintenance",
                "buildhost drain --wait --reason \"new disks\"",
            ),
            (
                "Plan maintenance of a host of a farm, each Sunday night",
                "buildhost drain build1 --each sun --from 02:00 --until 04:00 --zone Europe/Berlin",
            ),
        ],
    ),
    (
        "fork",
        &[(
            "Try four continuations of a running build",
            "buildhost fork 8 --copies 4",
        )],
    ),
    (
        "image make",
        &[(
            "Make a machine of Debian 12",
            "buildhost image make debian --debian bookworm",
        )],
    ),
    (
        "import",
        &[(
            "Make a machine from an archive",
            "buildhost import linux machine.tar.zst",
        )],
    ),
    (
        "init",
        &[(
            "Make a volume in a file, mounted at each boot",
            "buildhost init /var/lib/buildhost/machines --size 20G",
        )],
    ),
    (
        "log",
        &[(
            "Follow a log with the times of its lines",
            "buildhost log 7 --follow --timestamps",
        )],
    ),
    (
        "login",
        &[(
            "Get a shell before the build; `exit` starts it",
            "buildhost login debian hello-1.0.tar.gz",
        )],
    ),
    (
        "prune",
        &[(
            "Keep three revisions of each machine",
            "buildhost prune --keep 3 --dry-run",
        )],
    ),
    (
        "project add",
        &[(
            "Add a project of BitBake",
            "buildhost project add camera --release wrynose --host-machine debian \\\n    --target core-image-minimal",
        )],
    ),
    (
        "project build",
        &[(
            "Build a project at the newest commits of its layers",
            "buildhost project build camera --follow",
        )],
    ),
    (
        "pull",
        &[(
            "Fetch the newest revision from another host",
            "buildhost pull linux hub.example.org",
        )],
    ),
    (
        "push",
        &[(
            "Make a revision of a working copy current on a host",
            "buildhost push linux root@build1 --from /build/image",
        )],
    ),
    (
        "rebuild",
        &[
            (
                "Repeat a build with one source edited",
                "buildhost rebuild 1 --edit recipe",
            ),
            (
                "Repeat it on an older revision",
                "buildhost rebuild 1 --on-revision 3 --follow",
            ),
        ],
    ),
    (
        "schedule add",
        &[(
            "Build at three o'clock on working days",
            "buildhost schedule add nightly --cron \"0 3 * * MON-FRI\" -- debian hello-1.0.tar.gz",
        )],
    ),
    (
        "secret add",
        &[(
            "Store a key that only the builds of alice get",
            "buildhost secret add upload-key --from-file key --for alice",
        )],
    ),
    (
        "token add",
        &[(
            "Give a CI system the right to submit",
            "buildhost token add ci --scope submit",
        )],
    ),
    (
        "toolchain add",
        &[(
            "Install the toolchain for Debian packages",
            "buildhost toolchain add default /usr/lib/buildhost/toolchains/debian",
        )],
    ),
];

/// Returns the examples of a command.
pub(super) fn of(path: &str) -> &'static [Example] {
    let found = EXAMPLES.iter().find(|(known, _)| *known == path);
    found.map_or(&[], |(_, examples)| examples)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli;
    use crate::program::Program;

    #[test]
    fn examples_are_valid_command_lines_of_their_commands() {
        for (path, examples) in EXAMPLES {
            for (purpose, line) in *examples {
                let joined = line.replace("\\\n", " ");
                let line = joined.rsplit("|\n").next().unwrap_or(&joined);
                let line = line.split(" | ").next().unwrap_or(line);
                let words = shlex_words(line);
                let matches = cli::tree(Program::Buildhost).try_get_matches_from(&words);
                let matches = matches.unwrap_or_else(|error| panic!("{purpose}: {error}"));
                let below = cli::path(&matches);
                assert!(path.is_empty() || below == *path, "{line}: {below}");
            }
        }
    }

    /// Splits a line at blanks, with double quotes.
    fn shlex_words(line: &str) -> Vec<OsString> {
        let quoted = line.trim().split('"').enumerate();
        let words = quoted.flat_map(|(index, part)| {
            if index % 2 == 1 {
                vec![part.to_owned()]
            } else {
                part.split_whitespace().map(str::to_owned).collect()
            }
        });
        words.map(OsString::from).collect()
    }
}
