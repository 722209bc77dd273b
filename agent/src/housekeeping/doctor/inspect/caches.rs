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

/// Returns the patterns and the reporters of the hash equivalence service that stand for nothing.
pub(super) fn unmatched_of_hashserv(agent: &AgentState) -> Vec<String> {
    let settings = agent.settings();
    let settings = &settings.hashserv;
    if !settings.enabled {
        return Vec::new();
    }
    let known = known(agent);
    let mut unmatched = known.unmatched(&settings.machines, &settings.toolchains);
    unmatched.extend(known.missing("reporter", &settings.reporters));
    unmatched
}

/// Returns the patterns and the writers that stand for nothing, each as it is to be shown.
fn unmatched(rules: &CacheRules, known: &Known) -> Vec<String> {
    let mut unmatched = known.unmatched(&rules.machines, &rules.toolchains);
    unmatched.extend(known.missing("writer", &rules.writers));
    unmatched
}

impl Known {
    /// Returns the patterns that match no machine or no toolchain.
    fn unmatched(&self, machines: &[String], toolchains: &[String]) -> Vec<String> {
        let known: Vec<_> = self.machines.iter().map(MachineName::as_str).collect();
        let mut unmatched = without_match("machine", machines, &known);
        let known: Vec<_> = self.toolchains.iter().map(ToolchainName::as_str).collect();
        unmatched.extend(without_match("toolchain", toolchains, &known));
        unmatched
    }

    /// Returns the submitters that do not exist.
    fn missing(&self, kind: &str, submitters: &[Submitter]) -> Vec<String> {
        let missing = submitters.iter().filter(|it| !exists(it, self));
        missing.map(|it| format!("{kind} `{it}`")).collect()
    }
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
