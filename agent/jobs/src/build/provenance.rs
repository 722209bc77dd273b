//! The files with the provenance of a build's artifacts: the statement, and the envelope that
//! `buildhost-signer` makes, in a process of its own that alone can read the key.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::BuildId;
use config::builds::{Build, PROVENANCE, SIGNED_PROVENANCE};
use config::task;
use signer::statement::{self, Builder};
use sys::blocking::blocking;
use sys::command::{self, CommandError};
use tracing::error;

use state::AgentState;

/// The program that signs. It lies beside the agent.
const SIGNER: &str = "buildhost-signer";
/// The time limit of a signature: the signer reads all artifacts.
const SIGN_LIMIT: Duration = Duration::from_mins(10);

/// A reason why provenance is not signed.
#[derive(Debug, thiserror::Error)]
enum SignError {
    #[error("cannot find the program {SIGNER} beside the agent")]
    Program(#[source] io::Error),
    #[error(transparent)]
    Signer(#[from] CommandError),
    #[error("cannot store the record for the signer")]
    Record(#[from] records::RecordsError),
    #[error("cannot write {SIGNED_PROVENANCE}")]
    Write(#[from] io::Error),
}

/// Writes the provenance beside the artifacts, if there are any, and signs it if the host has a
/// key. A build whose provenance cannot be signed has only the statement.
pub(super) async fn write(agent: &AgentState, build: &Build) -> io::Result<()> {
    if !statement::has_subject(build) {
        return Ok(());
    }
    write_statement(agent, build).await?;
    match sign(agent, build).await {
        Ok(()) => Ok(()),
        Err(SignError::Write(error)) => Err(error),
        Err(error) => {
            let error = &error as &dyn Error;
            error!(build = %build.id, error, "cannot sign the provenance of a build");
            Ok(())
        }
    }
}

async fn write_statement(agent: &AgentState, build: &Build) -> io::Result<()> {
    let directory = agent.paths.build(build.id);
    let recorded = agent.records.get(build.id).await;
    let recorded = recorded.map_err(io::Error::other)?;
    let name = agent.settings().name.clone();
    let build = Build {
        typists: recorded.map(|it| it.typists).unwrap_or_default(),
        ..build.clone()
    };
    blocking(move || {
        let log = sys::untrusted::open(&directory, task::LOG).ok();
        let log = log.map(sys::file::digest).transpose()?;
        let statement = statement::statement(&build, &name, log.as_ref(), Builder::Unsigned);
        let text = statement.map(|statement| format!("{statement:#}\n"));
        sys::file::replace(
            &directory.join(PROVENANCE),
            text.unwrap_or_default().as_bytes(),
        )
    })
    .await
}

/// Makes the signed provenance, if the host has a key. The signer reads the record itself, so it
/// is stored first.
async fn sign(agent: &AgentState, build: &Build) -> Result<(), SignError> {
    let Some(keys) = agent.settings().provenance.keys.clone() else {
        return Ok(());
    };
    agent.records.conclude(build).await?;
    let (id, host) = (build.id, agent.settings().name.clone());
    let (records, directory) = (agent.paths.records(), agent.paths.build(build.id));
    blocking(move || {
        let mut sign = command::prepare(program().map_err(SignError::Program)?);
        sign.args(arguments(id, &host))
            .arg("--records")
            .arg(records)
            .arg("--directory")
            .arg(&directory)
            .arg("--keys")
            .arg(keys);
        let envelope = command::run(sign, SIGN_LIMIT)?;
        sys::file::replace(&directory.join(SIGNED_PROVENANCE), &envelope)?;
        Ok(())
    })
    .await
}

fn arguments(id: BuildId, host: &str) -> [String; 4] {
    ["sign".into(), id.to_string(), "--host".into(), host.into()]
}

/// Returns the path of the signer.
///
/// # Errors
/// It is not beside the program of this process.
pub fn program() -> io::Result<PathBuf> {
    let agent = std::env::current_exe()?;
    let signer = agent.parent().unwrap_or(Path::new("/")).join(SIGNER);
    signer.metadata()?;
    Ok(signer)
}
