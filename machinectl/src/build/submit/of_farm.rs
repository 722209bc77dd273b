//! The arguments of `build` as a request for a farm, and the upload of its sources to a coordinator.

use std::io::Read;
use std::path::Path;
use std::str::FromStr;
use std::thread::sleep;

use client::{Client, ClientError};
use config::FileName;
use config::builds::{Priority, Target};
use config::task::Source;
use farm_core::messages::{NewBuild, Subject};
use farm_core::{Requirements, Work};

use super::{BuildArguments, open_source, source, upload_source};
use crate::build::POLL_INTERVAL;
use crate::exit_code::{ExitStatus, Failure};
use crate::output::Output;

/// The memory that a build of a farm needs at least, in MiB. Its guest has that of its machine, if that
/// is more.
const MEMORY_MIB: u64 = 512;
/// The toolchain of a build of a farm that names none.
const TOOLCHAIN: &str = "default";
/// The number of attempts to upload a source.
const ATTEMPTS: usize = 5;

impl BuildArguments {
    /// Returns the request for a farm, with the hashes of the sources.
    ///
    /// # Errors
    /// A source cannot be read, or an option has no meaning for a farm.
    pub(crate) fn of_farm(&self, key: String) -> Result<NewBuild, Failure> {
        self.check_options()?;
        let (name, work) = self.work()?;
        let toolchain = match &self.toolchain {
            Some(toolchain) => toolchain.clone(),
            None => parsed(TOOLCHAIN)?,
        };
        let target: Target = match &self.target {
            Some(target) => target.clone(),
            None => parsed(name.as_str())?,
        };
        let resources = self.resources.resources()?;
        let counts = resources.counts.iter();
        Ok(NewBuild {
            key,
            submitter: self.submitter.clone(),
            priority: Priority(self.priority),
            requirements: Requirements {
                machine: self.machine.clone(),
                toolchain,
                cpus: resources.cpus.map_or(1, |it| it.get().into()),
                memory_mib: resources
                    .memory_mib
                    .map_or(MEMORY_MIB, |it| it.get().into()),
                resources: counts
                    .map(|(name, count)| (name.clone(), count.get().into()))
                    .collect(),
                work: Work {
                    package: target.to_string(),
                    ..work
                },
            },
            subject: Subject {
                target: Some(target),
                project: None,
            },
        })
    }

    fn check_options(&self) -> Result<(), Failure> {
        let unknown = [
            (
                "--after",
                !self.after.is_empty(),
                "its builds do not wait for each other",
            ),
            (
                "--secret",
                !self.secrets.is_empty(),
                "its hosts have secrets of their own",
            ),
            (
                "--interactive",
                self.interactive.is_some(),
                "nobody has a console of its guests",
            ),
            ("--hold", self.hold, "a lease ends with its guest"),
        ];
        let Some((option, _, reason)) = unknown.iter().find(|(_, is_set, _)| *is_set) else {
            return Ok(());
        };
        let text = format!(
            "{option} has no meaning for a farm: {reason}; ask the agent of a host with --host"
        );
        Err(Failure::new(ExitStatus::Usage, text))
    }

    /// Returns the work, and the name of its first source.
    fn work(&self) -> Result<(FileName, Work), Failure> {
        if self.script {
            let [path] = &self.sources[..] else {
                let text = "--script takes one source, the script";
                return Err(Failure::new(ExitStatus::Usage, text));
            };
            let (name, script) = script(path)?;
            let work = Work {
                script,
                ..Work::default()
            };
            return Ok((name, work));
        }
        let sources = self.sources.iter().map(|path| source(path));
        let sources: Vec<Source> = sources.collect::<Result<_, _>>()?;
        let first = sources.first().map(|it| it.name.clone());
        // The command line requires one.
        let no_source = || Failure::new(ExitStatus::Usage, "a build needs at least one source");
        let work = Work {
            sources,
            ..Work::default()
        };
        Ok((first.ok_or_else(no_source)?, work))
    }

    /// Uploads the sources of a request that no coordinator of the farm has.
    pub(crate) fn upload_to_farm(
        &self,
        client: &Client,
        request: &NewBuild,
        output: &Output,
    ) -> Result<(), Failure> {
        let sources = &request.requirements.work.sources;
        for (path, source) in self.sources.iter().zip(sources) {
            let mut left = ATTEMPTS;
            while let Err(error) = upload(client, path, source, output) {
                left -= 1;
                if left == 0 || !error.may_be_repeated() {
                    return Err(error.into());
                }
                output.status(format_args!("{}; uploading again", error.shown()));
                sleep(5 * POLL_INTERVAL);
            }
        }
        Ok(())
    }
}

/// A failure of an upload.
enum UploadError {
    Request(ClientError),
    Other(Failure),
}

impl UploadError {
    fn may_be_repeated(&self) -> bool {
        matches!(self, Self::Request(error) if may_be_repeated(error))
    }

    fn shown(&self) -> String {
        match self {
            Self::Request(error) => error.to_string(),
            Self::Other(failure) => failure.error.to_string(),
        }
    }
}

impl From<UploadError> for Failure {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Request(error) => error.into(),
            UploadError::Other(failure) => failure,
        }
    }
}

fn upload(
    client: &Client,
    path: &Path,
    source: &Source,
    output: &Output,
) -> Result<(), UploadError> {
    let (_, file) = open_source(path).map_err(UploadError::Other)?;
    let bytes = file.metadata().map_or(0, |it| it.len());
    let wanted = client.farm_wants(&source.sha256, bytes);
    if wanted.map_err(UploadError::Request)? {
        let sent = upload_source(client, source, file, output);
        sent.map_err(UploadError::Request)?;
    }
    Ok(())
}

/// Returns true for a failure after which a request to a farm may or may not have had its effect, and is
/// repeated.
pub(crate) fn may_be_repeated(error: &ClientError) -> bool {
    match error {
        // A full disk stays full.
        ClientError::Refused { status: 507, .. } => false,
        ClientError::Refused { status, .. } => (500..600).contains(status),
        ClientError::TimedOut { .. } | ClientError::Answer(_) => true,
        _ => false,
    }
}

/// Reads the script that a farm runs.
fn script(path: &Path) -> Result<(FileName, String), Failure> {
    let refused = |text: String| Failure::new(ExitStatus::Refused, text);
    let (name, file) = open_source(path)?;
    let shown = path.display();
    let mut text = String::new();
    let most = Work::SCRIPT_BYTES_MAX as u64;
    let read = file.take(most + 1).read_to_string(&mut text);
    if read.is_err() || !text.starts_with("#!") {
        let text = format!("{shown} is no script: it does not begin with `#!`");
        return Err(refused(text));
    }
    if text.len() as u64 > most {
        return Err(refused(format!("{shown} has more than {most} bytes")));
    }
    Ok((name, text))
}

fn parsed<T: FromStr>(text: &str) -> Result<T, Failure>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse()
        .map_err(|error| Failure::new(ExitStatus::Usage, error))
}
