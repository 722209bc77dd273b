//! A host with many builds for a browser: see `tests::web_demo`.
//!
//! usage: `web-demo [BUILDS] [SETTING...]`
//!
//! Prints the address of the pages, and follows commands on its standard input, one a line: `log TEXT`
//! adds a line to the log of the first running build, `end` ends that build, `leftover` leaves a finding
//! for the doctor, and `large` records 100,000 builds, of which the first has a log of 1.3 million lines.
//! Answers `ok`. Ends with its input.

use std::io::{self, BufRead, Write};

use tests::web_demo::WebDemo;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let builds = arguments
        .next()
        .and_then(|count| count.parse().ok())
        .unwrap_or(400);
    let settings: Vec<_> = arguments.collect();
    let demo = WebDemo::start(&settings.join("\n"), builds);
    demo.api
        .allow(&[("admin", "admin-token"), ("read", "read-token")]);
    let mut out = io::stdout().lock();
    writeln!(out, "http://{} {}", demo.api.address, demo.running[0].id)?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("log", text)) => demo.log_more(&format!("{text}\n")),
            _ if line == "large" => {
                demo.multiply(100_000);
                demo.long_log(1_300_000);
            }
            _ if line == "leftover" => demo.leave_directory(),
            _ => demo.end(),
        }
        writeln!(out, "ok")?;
    }
    Ok(())
}
