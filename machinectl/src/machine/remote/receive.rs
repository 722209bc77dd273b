//! The receiving end of `push`.

use std::io;
use std::time::Duration;

use config::MachineName;
use store::send::session::{self, Announcement, Greeting};
use store::stream::{READ_TIMEOUT, SendStream, StreamError, TimeoutReader};
use store::{Source, StoreError, Volume};

use crate::exit_code::Failure;
use crate::machine::retention::Retention;
use crate::output::Output;

/// The time limit for the sender to decide. It may read a whole image meanwhile, to write its
/// content manifest. Nothing is locked for so long.
const ANNOUNCEMENT_TIMEOUT: Duration = Duration::from_hours(24);

/// Describes the machine, and adds the revision that the sender then announces. A sender that
/// announces nothing changes nothing.
pub(super) fn run(
    volume: &Volume,
    name: &MachineName,
    retention: Retention,
    output: &Output,
) -> Result<(), Failure> {
    let greeting = Greeting::of(volume, name)?;
    let greeted = session::write_line(&mut io::stdout().lock(), &greeting);
    greeted
        .map_err(StreamError::Write)
        .map_err(StoreError::from)?;
    let mut input = TimeoutReader::pipe(io::stdin())?.with_timeout(ANNOUNCEMENT_TIMEOUT);
    let announced = session::read_line(&mut input).map_err(StreamError::Read);
    let announced: Option<Announcement> = announced.map_err(StoreError::from)?;
    let Some(announcement) = announced else {
        return Ok(());
    };
    let input = input.with_timeout(READ_TIMEOUT);
    let stream = match announcement.continues {
        Some(partial) => volume.resume(name, &partial, input)?,
        None => SendStream::open(input)?.resumable(),
    };
    volume.ingest(announcement.intent, name, Source::Stream(stream))?;
    retention.apply(volume, name, output);
    Ok(())
}
