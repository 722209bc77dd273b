//! The sending end of `pull`.

use std::io;

use config::MachineName;
use store::Volume;
use store::stream::TimeoutReader;

use crate::exit_code::Failure;

/// Describes the machine, and sends the revision that the receiver then requests.
pub(super) fn run(volume: &Volume, name: &MachineName) -> Result<(), Failure> {
    let input = TimeoutReader::pipe(io::stdin())?;
    store::send::provide(volume, name, input, &mut io::stdout().lock())?;
    Ok(())
}
