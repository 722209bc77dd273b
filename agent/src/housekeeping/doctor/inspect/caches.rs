//! The facts about caches.

use config::builds::Submitter;
use config::settings::CacheRules;
use config::tokens::{self, Token};
use config::{MachineName, ToolchainName};
use nix::unistd::User;
use wildmatch::WildMatch;

use super::super::inventory::CacheFacts;
use state::AgentState;

/// The names that patterns and writers may stand for.
struct Known {
    machines: Vec<MachineName>,
    toolchains: Vec<ToolchainName>,
    tokens: Vec<Token>,
}

/// Returns the facts about each cache. One whose index cannot be read has no size here; its use is
/// logged as a failure.
pub(super) fn facts(agent: &AgentState) -> Vec<CacheFacts> {
    let known = known(agent);
    let facts = agent.caches.iter().map(|cache| CacheFacts {
        name: cache.rules().name.clone(),
        bytes: cache.describe().map_or(0, |cache| cache.bytes),
        bytes_max: cache.rules().bytes_max,
        unmatched: unmatched(cache.rules(), &known),
    });
    facts.collect()
}

fn known(agent: &AgentState) -> Known {
    let volumes = agent.volumes.iter();
    let machines = volumes.flat_map(|volume| volume.machines().unwrap_or_default());
    let tokens = sys::trusted::read_text(&agent.settings().http.token_file).unwrap_or_default();
    Known {
        machines: machines.collect(),
        toolchains: agent.toolchains.list().unwrap_or_default(),
        tokens: tokens::parse(&tokens).unwrap_or_default(),
    }
}

/// Returns the patterns and the writers that stand for nothing, each as it is to be shown.
fn unmatched(rules: &CacheRules, known: &Known) -> Vec<String> {
    let machines: Vec<_> = known.machines.iter().map(MachineName::as_str).collect();
    let toolchains: Vec<_> = known.toolchains.iter().map(ToolchainName::as_str).collect();
    let writers = rules.writers.iter().filter(|writer| !exists(writer, known));
    without_match("machine", &rules.machines, &machines)
        .into_iter()
        .chain(without_match("toolchain", &rules.toolchains, &toolchains))
        .chain(writers.map(|writer| format!("writer `{writer}`")))
        .collect()
}

/// Returns the patterns that match no name. All names may be missing on a new host.
fn without_match(kind: &str, patterns: &[String], names: &[&str]) -> Vec<String> {
    let matches = |pattern: &str| {
        let pattern = WildMatch::new(pattern);
        names.iter().any(|name| pattern.matches(name))
    };
    let unmatched = patterns.iter().filter(|it| *it != "*" && !matches(it));
    unmatched.map(|it| format!("{kind} `{it}`")).collect()
}

fn exists(writer: &Submitter, known: &Known) -> bool {
    match writer.as_str().strip_prefix("token:") {
        Some(name) => known.tokens.iter().any(|token| token.name.as_str() == name),
        None => matches!(User::from_name(writer.as_str()), Ok(Some(_))),
    }
}

#[cfg(test)]
mod tests {
    use config::settings::Settings;

    use super::*;

    #[test]
    fn patterns_and_writers_without_a_match_are_found() {
        let text = "[[caches]]\nname = \"one\"\nmachines = [\"linux-*\", \"box\", \"*\"]\n\
                    toolchains = [\"gcc*\"]\n\
                    writers = [\"root\", \"nobody-has-this\", \"token:nightly\", \"token:gone\"]\n";
        let rules = Settings::parse(text).unwrap().caches.remove(0);
        let line = format!("nightly submit {}\n", "0".repeat(64));
        let known = Known {
            machines: vec!["linux-gcc_6".parse().unwrap()],
            toolchains: vec!["default".parse().unwrap()],
            tokens: tokens::parse(&line).unwrap(),
        };
        assert_eq!(
            unmatched(&rules, &known),
            [
                "machine `box`",
                "toolchain `gcc*`",
                "writer `nobody-has-this`",
                "writer `token:gone`",
            ]
        );
    }
}
