//! The machine of a job, by its image; pure.

use config::MachineName;
use config::settings::ImageRule;
use wildmatch::WildMatch;

/// Returns the machine of a job with this image: that of the first rule that matches.
///
/// # Errors
/// No rule matches. The error is for the log of the job.
pub fn machine<'r>(rules: &'r [ImageRule], image: Option<&str>) -> Result<&'r MachineName, String> {
    let name = image.unwrap_or_default();
    let mut rules = rules.iter();
    let rule = rules.find(|rule| WildMatch::new(&rule.pattern).matches(name));
    rule.map(|rule| &rule.machine).ok_or_else(|| match image {
        Some(image) => format!(
            "this host has no machine for the image {}",
            config::printable(image)
        ),
        None => "this host has no machine for jobs without an `image`".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_names_the_machine() {
        let rule = |pattern: &str, machine: &str| ImageRule {
            pattern: pattern.to_owned(),
            machine: machine.parse().unwrap(),
        };
        let rules = [
            rule("debian:12*", "linux-debian_12"),
            rule("debian:*", "linux-debian_13"),
            rule("", "linux-gcc_14"),
        ];
        for (image, expected) in [
            (Some("debian:12-slim"), Ok("linux-debian_12")),
            (Some("debian:13"), Ok("linux-debian_13")),
            (None, Ok("linux-gcc_14")),
            (
                Some("alpine"),
                Err("this host has no machine for the image alpine"),
            ),
        ] {
            let found = machine(&rules, image).map(MachineName::as_str);
            assert_eq!(found, expected.map_err(str::to_owned));
        }
        assert!(
            machine(&rules[..2], None)
                .unwrap_err()
                .contains("without an `image`")
        );
    }
}
