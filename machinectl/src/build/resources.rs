//! The options for the resources of a build.

use std::num::NonZeroU32;

use clap::Args;
use config::builds::Resources;
use config::{MIB, ResourceCount, ResourceCountError, ResourceCounts};
use store::init::Size;

use crate::exit_code::{ExitStatus, Failure};

/// The options for the resources of a build's guest.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ResourceOptions {
    /// The number of processors of the guest; by default the machine's
    ///
    /// At most the value `cpus-max` of the machine's manifest.
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<NonZeroU32>,
    /// The memory of the guest, such as 4G; by default the machine's
    ///
    /// From the value `ram-minimum` of the machine's manifest to its `ram-maximum`.
    #[arg(long, value_name = "SIZE", value_parser = mebibytes)]
    memory: Option<NonZeroU32>,
    /// A countable resource that the build needs, such as license=1; can be repeated
    ///
    /// The setting guests.resources of the host declares them. A build that finds none free waits.
    #[arg(long, value_name = "NAME=COUNT", value_parser = resource_count)]
    resource: Vec<ResourceCount>,
}

impl ResourceOptions {
    /// Returns the resources to ask for.
    ///
    /// # Errors
    /// A resource is named twice.
    pub(crate) fn resources(&self) -> Result<Resources, Failure> {
        let counts = ResourceCounts::collect(self.resource.clone());
        Ok(Resources {
            cpus: self.cpus,
            memory_mib: self.memory,
            counts: counts.map_err(|error| Failure::new(ExitStatus::Usage, error))?,
        })
    }

    /// Returns the resources of an earlier build, where no option replaces them.
    ///
    /// # Errors
    /// A resource is named twice.
    pub(super) fn or(&self, earlier: &Resources) -> Result<Resources, Failure> {
        let own = self.resources()?;
        Ok(Resources {
            cpus: own.cpus.or(earlier.cpus),
            memory_mib: own.memory_mib.or(earlier.memory_mib),
            counts: earlier.counts.replaced_by(&own.counts),
        })
    }
}

fn resource_count(text: &str) -> Result<ResourceCount, ResourceCountError> {
    text.parse()
}

/// Parses a size as a number of MiB.
fn mebibytes(text: &str) -> Result<NonZeroU32, String> {
    let size: Size = text
        .parse()
        .map_err(|error: store::init::SizeError| error.to_string())?;
    let mebibytes = u32::try_from(size.bytes().div_ceil(MIB)).ok();
    let is_too_small = size.bytes() < MIB;
    mebibytes
        .filter(|_| !is_too_small)
        .and_then(NonZeroU32::new)
        .ok_or_else(|| "expected a size from 1M to 4095T, such as 512M or 4G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_a_size_with_a_unit() {
        let parsed = |text: &str| mebibytes(text).map(NonZeroU32::get);
        assert_eq!(parsed("512M"), Ok(512));
        assert_eq!(parsed("1.5G"), Ok(1536));
        assert_eq!(parsed("1500000K"), Ok(1465), "rounded up");
        for text in ["512", "0", "M", "x", "99999999T"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn options_replace_the_resources_of_an_earlier_build() {
        let earlier: Resources = serde_json::from_str(r#"{"cpus": 2, "memory_mib": 512}"#).unwrap();
        let same = ResourceOptions::default().or(&earlier).unwrap();
        assert_eq!(same, earlier);
        let options = ResourceOptions {
            memory: NonZeroU32::new(1024),
            resource: vec!["license=1".parse().unwrap()],
            ..ResourceOptions::default()
        };
        assert_eq!(
            options.or(&earlier).unwrap().to_string(),
            "2 processors, 1024 MiB of memory, license=1"
        );
    }
}
