//! `web`: a browser that is signed in to the web page of the agent.

use std::time::Duration;

use client::Client;
use sys::command;

use crate::exit_code::{ExitStatus, Failure};
use crate::output::Output;

/// The time in which the desktop must take the address.
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// Prints a link that signs a browser in, and opens it if that is wanted.
pub(super) fn run(client: &Client, open: bool, output: &Output) -> Result<(), Failure> {
    let link = client.sign_in_link()?;
    if output.is_json() {
        output.print_json(&link)?;
    } else {
        output.print(&format!("{}\n", link.url))?;
    }
    let seconds = link.valid_seconds;
    output.status(format_args!(
        "the link signs one browser in, within {seconds} seconds"
    ));
    if open {
        let mut browser = command::prepare("xdg-open");
        browser.arg(&link.url);
        let opened = command::run(browser, OPEN_LIMIT);
        opened.map_err(|error| Failure::new(ExitStatus::Failure, error))?;
    }
    Ok(())
}
