//! The files that a build of a farm produced, which its host has.

use client::Client;
use config::task::Outcome;
use farm_core::view::BuildView;

use crate::build::Produced;
use crate::exit_code::Failure;

/// Returns a build with the files that it produced. A build without a result has none yet.
pub(super) fn produced(client: &Client, build: &BuildView) -> Result<Produced, Failure> {
    let has_run = build.outcome.is_some() && build.host.is_some();
    let artifacts = if has_run {
        client.farm_artifacts(build.build)?
    } else {
        Vec::new()
    };
    Ok(Produced {
        id: build.build,
        outcome: build.outcome,
        succeeded: build.outcome.is_some_and(Outcome::is_good),
        artifacts,
    })
}
