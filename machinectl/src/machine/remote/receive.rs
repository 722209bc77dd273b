//! The receiving end of `push`.

use config::MachineName;
use config::canary::Decider;
use store::send::session::Announcement;
use store::stream::{READ_TIMEOUT, SendStream};
use store::{Note, Publication, Source, Volume};

use super::greet;
use crate::exit_code::Failure;
use crate::machine::note;
use crate::machine::retention::Retention;
use crate::machine::trial::TrialOption;
use crate::output::Output;

/// Describes the machine, and adds the revision that the sender then announces. A sender that
/// announces nothing changes nothing.
pub(super) fn run(
    volume: &Volume,
    name: &MachineName,
    trial: TrialOption,
    retention: Retention,
    output: &Output,
) -> Result<(), Failure> {
    let Some((announcement, input)) = greet::<Announcement>(volume, name)? else {
        return Ok(());
    };
    let input = input.with_timeout(READ_TIMEOUT);
    let stream = match announcement.continues {
        Some(partial) => volume.resume(name, &partial, None, input)?,
        None => SendStream::open(input)?.resumable(),
    };
    let note = announcement.note.map(received_note);
    let source = Source::Stream(stream);
    let publication = Publication {
        note: note.as_ref(),
        trial: trial.terms().map(Decider::Host),
    };
    volume.ingest_with(announcement.intent, name, source, publication)?;
    retention.apply(volume, name, output);
    Ok(())
}

/// Returns a note with what this host knows of its sender.
fn received_note(sent: Note) -> Note {
    let from = note::client().map(|it| format!(" from {it}"));
    let source = format!("push by {}{}", sent.source, from.unwrap_or_default());
    Note { source, ..sent }
}
