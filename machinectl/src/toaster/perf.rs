//! `perf`: the response times of the public pages.

use std::time::{Duration, Instant};

use reqwest::blocking::Client;

use crate::exit_code::{ExitStatus, Failure};
use crate::output::Output;

/// The time limit for a page.
const PAGE_LIMIT: Duration = Duration::from_mins(1);
/// The pages that are measured.
const PAGES: [&str; 6] = [
    "/health",
    "/toastergui/api/builds",
    "/toastergui/api/building",
    "/toastergui/api/build/1",
    "/toastergui/mostrecentbuilds",
    "/metrics",
];

/// Prints a line for each page. Fails if a page cannot be fetched.
pub(super) fn run(url: &str, output: &Output) -> Result<(), Failure> {
    let client = Client::builder()
        .timeout(PAGE_LIMIT)
        .build()
        .map_err(|error| Failure::new(ExitStatus::Failure, error))?;
    let mut failed = None;
    for page in PAGES {
        let url = format!("{url}{page}");
        let started = Instant::now();
        let status = match fetch(&client, &url) {
            Ok(status) => status,
            Err(error) => {
                output.error(&error);
                0
            }
        };
        let elapsed = started.elapsed();
        let (minutes, seconds) = (elapsed.as_secs() / 60, elapsed.as_secs() % 60);
        output.print(&format!(
            "Trying '{url}', {status}, 0:{minutes:02}:{seconds:02}.{:06}\n",
            elapsed.subsec_micros()
        ))?;
        if status == 0 || status >= 400 {
            failed = Some(format!("cannot fetch {url}"));
        }
    }
    match failed {
        None => Ok(()),
        Some(text) => Err(Failure::new(ExitStatus::Failure, text)),
    }
}

/// Fetches a whole page and returns its status.
fn fetch(client: &Client, url: &str) -> reqwest::Result<u16> {
    let answer = client.get(url).send()?;
    let status = answer.status().as_u16();
    answer.bytes()?;
    Ok(status)
}
