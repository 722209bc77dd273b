//! The options for the resources of a build.

use std::num::NonZeroU32;

use clap::Args;
use config::MIB;
use config::builds::Resources;
use store::init::Size;

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
}

impl ResourceOptions {
    /// Returns the resources to ask for.
    pub(crate) fn resources(&self) -> Resources {
        Resources {
            cpus: self.cpus,
            memory_mib: self.memory,
        }
    }

    /// Returns the resources of an earlier build, where no option replaces them.
    pub(super) fn or(&self, earlier: &Resources) -> Resources {
        let own = self.resources();
        Resources {
            cpus: own.cpus.or(earlier.cpus),
            memory_mib: own.memory_mib.or(earlier.memory_mib),
        }
    }
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
        assert_eq!(ResourceOptions::default().or(&earlier), earlier);
        let options = ResourceOptions {
            memory: NonZeroU32::new(1024),
            ..ResourceOptions::default()
        };
        assert_eq!(
            options.or(&earlier).to_string(),
            "2 processors, 1024 MiB of memory"
        );
    }
}
