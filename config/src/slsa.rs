//! The messages of `buildhost slsa check`: the requirements of the SLSA build track, and what
//! holds them on a host.

use serde::{Deserialize, Serialize};

/// A requirement of the build track, and what holds it on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The lowest level that has the requirement.
    pub level: u8,
    /// The requirement.
    pub requirement: String,
    /// Set if the host meets it.
    pub held: bool,
    /// The mechanism that holds it, with its test or with what was found on this host; or else
    /// the missing part.
    pub by: String,
}

impl Requirement {
    /// Returns a requirement that the program meets on every host. `tests` are the tests that
    /// show it.
    pub fn by_construction(level: u8, requirement: &str, mechanism: &str, tests: &str) -> Self {
        Self {
            level,
            requirement: requirement.to_owned(),
            held: true,
            by: format!("{mechanism} (test {tests})"),
        }
    }

    /// Returns a requirement that depends on the host: `found` is its mechanism, or the missing
    /// part.
    pub fn found(level: u8, requirement: &str, found: Result<String, String>) -> Self {
        Self {
            level,
            requirement: requirement.to_owned(),
            held: found.is_ok(),
            by: found.unwrap_or_else(|missing| missing),
        }
    }
}

/// Returns the highest level that a host meets, from 0 to 3.
pub fn level(requirements: &[Requirement]) -> u8 {
    let missing = requirements.iter().filter(|it| !it.held);
    missing
        .map(|it| it.level)
        .min()
        .map_or(3, |level| level - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_unmet_requirement_limits_the_level() {
        let requirement = |level, held: bool| {
            Requirement::found(
                level,
                "",
                if held {
                    Ok(String::new())
                } else {
                    Err(String::new())
                },
            )
        };
        let all = |held: [bool; 3]| {
            let list = (1..)
                .zip(held)
                .map(|(level, held)| requirement(level, held));
            level(&list.collect::<Vec<_>>())
        };
        assert_eq!(all([true, true, true]), 3);
        assert_eq!(all([true, true, false]), 2);
        assert_eq!(all([true, false, false]), 1);
        assert_eq!(all([false, true, true]), 0);
    }
}
