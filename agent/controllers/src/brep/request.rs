//! The request for a task: a manifest of the agent, then one of each machine in the order of
//! preference, auxiliary machines last.

use config::manifest::{self, Manifest};
use config::settings::{ControllerRules, InteractiveMode};

use crate::{Offer, OfferedMachine};

/// The largest size of a request that controllers take.
const BYTES_MAX: usize = 100 << 10;

/// Returns the text of a request. Machines that do not fit in its limit are left out, the last first.
///
/// # Errors
/// Not even one machine fits.
pub(super) fn print(
    rules: &ControllerRules,
    offer: &Offer,
    fingerprint: Option<&str>,
) -> Result<String, String> {
    let mut manifests = vec![header(rules, offer, fingerprint)];
    manifests.extend(offer.machines.iter().map(build_machine));
    manifests.extend(offer.auxiliaries.iter().map(auxiliary_machine));
    while manifests.len() > 1 {
        let text = manifest::print(&manifests);
        if text.len() <= BYTES_MAX {
            return Ok(text);
        }
        manifests.pop();
    }
    Err(format!(
        "the request is larger than {} KiB: shorten the summary of the machine or `interactive_login`",
        BYTES_MAX >> 10
    ))
}

fn header(rules: &ControllerRules, offer: &Offer, fingerprint: Option<&str>) -> Manifest {
    let mut header = Manifest::new()
        .with("agent", &offer.agent)
        .with("toolchain-name", &offer.toolchain)
        .with("toolchain-version", &rules.toolchain_version);
    let mode = match rules.interactive {
        InteractiveMode::No => "false",
        InteractiveMode::Yes => "true",
        InteractiveMode::Both => "both",
    };
    header = header.with("interactive-mode", mode);
    if let Some(login) = &rules.interactive_login
        && rules.interactive != InteractiveMode::No
    {
        header = header.with("interactive-login", login);
    }
    if let Some(fingerprint) = fingerprint {
        header = header.with("fingerprint", fingerprint);
    }
    if offer.auxiliaries.is_empty() {
        return header;
    }
    header.with("auxiliary-ram", &offer.auxiliary_memory_kib)
}

fn build_machine(offered: &OfferedMachine) -> Manifest {
    machine(offered, "build").with("ram-minimum", &offered.memory_kib)
}

/// Returns the header of an auxiliary machine, whose memory counts against that of the agent.
fn auxiliary_machine(offered: &OfferedMachine) -> Manifest {
    let header = machine(offered, "auxiliary").with("ram-minimum", &offered.memory_kib);
    match offered.memory_max_kib {
        Some(most) => header.with("ram-maximum", &most),
        None => header,
    }
}

fn machine(offered: &OfferedMachine, role: &str) -> Manifest {
    Manifest::new()
        .with("id", &offered.id)
        .with("name", &offered.name)
        .with("summary", &offered.summary)
        .with("role", role)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brep::tests::{offer, rules};

    #[test]
    fn a_request_has_the_machines_in_the_order_of_preference() {
        let rules = rules("interactive = \"both\"\ninteractive_login = \"ssh ci.example.org\"\n");
        let text = print(&rules, &offer(&["linux", "bsd"]), Some("abc")).unwrap();
        let expected = "\
: 1
agent: host
toolchain-name: default
toolchain-version: 0.17.0
interactive-mode: both
interactive-login: ssh ci.example.org
fingerprint: abc
:
id: id-of-linux
name: linux
summary: A machine
role: build
ram-minimum: 524288
:
id: id-of-bsd
name: bsd
summary: A machine
role: build
ram-minimum: 524288
";
        assert_eq!(text, expected);
        let plain = print(&crate::brep::tests::rules(""), &offer(&["linux"]), None).unwrap();
        assert!(plain.contains("interactive-mode: false\n:\n"), "{plain}");
    }

    #[test]
    fn auxiliary_machines_come_last_with_their_memory() {
        let mut both = offer(&["linux"]);
        let mut auxiliary = both.machines[0].clone();
        auxiliary.name = "x86_64-pgsql".parse().unwrap();
        auxiliary.memory_max_kib = Some(1_048_576);
        both.auxiliaries = vec![auxiliary];
        both.auxiliary_memory_kib = 2_097_152;
        let text = print(&rules(""), &both, Some("abc")).unwrap();
        let expected = "\
fingerprint: abc
auxiliary-ram: 2097152
:
id: id-of-linux
name: linux
summary: A machine
role: build
ram-minimum: 524288
:
id: id-of-linux
name: x86_64-pgsql
summary: A machine
role: auxiliary
ram-minimum: 524288
ram-maximum: 1048576
";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn a_request_is_at_most_100_kibibytes() {
        let names: Vec<_> = (0..2000)
            .map(|number| format!("machine-{number}"))
            .collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let text = print(&rules(""), &offer(&names), None).unwrap();
        let count = manifest::parse(&text).unwrap().len() - 1;
        assert!(
            text.len() <= BYTES_MAX && text.len() > BYTES_MAX - 200,
            "{}",
            text.len()
        );
        assert!(count > 500 && count < 2000, "{count}");
        assert!(
            text.contains("name: machine-0\n"),
            "the preferred ones stay"
        );
        let mut huge = offer(&["linux"]);
        huge.machines[0].summary = "x".repeat(BYTES_MAX);
        print(&rules(""), &huge, None).unwrap_err();
    }
}
