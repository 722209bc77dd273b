//! `top`: a live view of guests, queue and machines.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use client::Client;
use config::builds::Status;
use config::queue::{Guest, Queue};
use config::{Load, printable};
use crossterm::event::{self, Event, KeyCode, KeyModifiers};
use crossterm::{cursor, execute, queue as enqueue, style, terminal};
use jiff::Timestamp;

use crate::exit_code::{ExitStatus, Failure};
use crate::output::{Output, Table, or_empty, time};

/// The time between two updates of the view.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);
/// The size of the view without a terminal.
const UNBOUNDED: (u16, u16) = (200, u16::MAX);

/// Shows the view until `q` is pressed, or once if requested or without a terminal.
pub(super) fn run(client: &Client, once: bool, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.print_json(&client.queue()?);
    }
    if once || !io::stdout().is_terminal() {
        let lines = frame(&client.status()?, &client.queue()?, UNBOUNDED);
        return output.print(&format!("{}\n", lines.join("\n")));
    }
    let _screen = Screen::open().map_err(failed)?;
    loop {
        let (status, queue) = (client.status()?, client.queue()?);
        let size = terminal::size().map_err(failed)?;
        draw(&frame(&status, &queue, size)).map_err(failed)?;
        if event::poll(UPDATE_INTERVAL).map_err(failed)? && is_end(&event::read().map_err(failed)?)
        {
            return Ok(());
        }
    }
}

fn failed(error: io::Error) -> Failure {
    Failure::new(ExitStatus::Failure, error)
}

fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else {
        return false;
    };
    let interrupt = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}

/// The terminal in raw mode on its alternate screen. Its former state is restored on drop.
struct Screen;

impl Screen {
    fn open() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        let screen = Self;
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It fails only for a terminal that no longer exists.
        let _ = execute!(io::stdout(), cursor::Show, terminal::LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

fn draw(lines: &[String]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (row, line) in (0u16..).zip(lines) {
        enqueue!(out, cursor::MoveTo(0, row), style::Print(line))?;
        enqueue!(out, terminal::Clear(terminal::ClearType::UntilNewLine))?;
    }
    enqueue!(out, terminal::Clear(terminal::ClearType::FromCursorDown))?;
    out.flush()
}

/// Returns the lines of the view, cut to a number of columns and rows.
fn frame(status: &Status, queue: &Queue, (columns, rows): (u16, u16)) -> Vec<String> {
    let host = format!(
        "{}  {}   guests {}   processors {}   memory {} MiB",
        queue.name,
        time(queue.at),
        load(&queue.guests),
        load(&queue.cpus),
        load(&queue.memory_mib),
    );
    let resources = queue.resources.iter();
    let resources = resources.map(|(name, resource)| format!("{name} {}", load(resource)));
    let summary: Vec<_> = [host].into_iter().chain(resources).collect();
    let mut lines = vec![summary.join("   ")];
    lines.extend(status.notices.iter().map(|it| printable(it).to_string()));
    section(&mut lines, &running(queue), "no running guests");
    section(&mut lines, &waiting(queue), "no waiting builds");
    section(&mut lines, &machines(status), "no machines");
    let most = usize::from(rows.max(1));
    if lines.len() > most {
        let hidden = lines.len() - most + 1;
        lines.truncate(most - 1);
        lines.push(format!("… {hidden} more lines"));
    }
    let cut = |line: String| line.chars().take(columns.into()).collect();
    lines.into_iter().map(cut).collect()
}

/// Adds a table, or a text in place of an empty one.
fn section(lines: &mut Vec<String>, table: &Table, empty: &str) {
    lines.push(String::new());
    if table.is_empty() {
        lines.push(empty.to_owned());
    }
    lines.extend(table.to_text(true, false).lines().map(str::to_owned));
}

fn load(load: &Load) -> String {
    match load.total {
        Some(total) => format!("{}/{total}", load.taken),
        None => load.taken.to_string(),
    }
}

fn running(queue: &Queue) -> Table {
    let mut table = Table::new([
        "RUNNING",
        "SUBMITTER",
        "MACHINE",
        "TARGET",
        "STATE",
        "SECONDS",
        "MIB",
    ]);
    for guest in &queue.running {
        let job = match guest.build {
            Some(id) => id.to_string(),
            None => "bootstrap".to_owned(),
        };
        table.add([
            job,
            or_empty(guest.submitter.as_ref()),
            guest.machine.to_string(),
            or_empty(guest.target.as_ref()),
            state(guest),
            or_empty(guest.since.map(|since| seconds(since, queue.at))),
            guest.memory_mib.to_string(),
        ]);
    }
    table
}

/// Returns the state of a guest. The guest of a finished build still runs for a moment.
fn state(guest: &Guest) -> String {
    match (guest.state, guest.build) {
        _ if guest.is_debug_copy => "attached".to_owned(),
        (Some(state), _) => state.to_string(),
        (None, Some(_)) => "ending".to_owned(),
        (None, None) => String::new(),
    }
}

fn waiting(queue: &Queue) -> Table {
    let mut table = Table::new([
        "WAITING",
        "PRIORITY",
        "SUBMITTER",
        "MACHINE",
        "TARGET",
        "SECONDS",
        "WAITS",
    ]);
    for waiting in &queue.waiting {
        table.add([
            waiting.build.to_string(),
            waiting.priority.to_string(),
            waiting.submitter.to_string(),
            waiting.machine.to_string(),
            waiting.target.to_string(),
            seconds(waiting.since, queue.at),
            waiting.message.clone(),
        ]);
    }
    table
}

fn machines(status: &Status) -> Table {
    let mut table = Table::new(["MACHINE", "TOOLCHAIN", "IMAGE", "REASON"]);
    for ready in &status.machines {
        table.add([
            ready.machine.to_string(),
            ready.toolchain.to_string(),
            ready.image.to_string(),
            ready.message.clone(),
        ]);
    }
    table
}

fn seconds(from: Timestamp, to: Timestamp) -> String {
    to.duration_since(from).as_secs().max(0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> (Status, Queue) {
        let status = serde_json::json!({
            "name": "host", "version": "1", "machines": [], "queued": 2, "guests": 2,
            "notices": ["the volume is nearly full"],
        });
        let waiting = |id: u64, message: &str| {
            serde_json::json!({
                "build": id, "submitter": "ann", "priority": 0, "target": "hello", "machine": "linux",
                "toolchain": "default", "since": "2026-01-01T00:00:00Z", "not_before": null,
                "message": message,
            })
        };
        let queue = serde_json::json!({
            "name": "host", "at": "2026-01-01T00:01:30Z", "drained": null,
            "guests": {"taken": 2, "total": null}, "cpus": {"taken": 2, "total": 4},
            "memory_mib": {"taken": 3072, "total": 4096},
            "resources": {"license": {"taken": 1, "total": 2}},
            "running": [
                {"build": 9, "submitter": "bob", "target": "hello", "machine": "linux",
                 "toolchain": "default", "state": "running", "since": "2026-01-01T00:01:00Z",
                 "cpus": 1, "memory_mib": 2048},
                {"build": null, "submitter": null, "target": null, "machine": "other",
                 "toolchain": "default", "state": null, "since": null, "cpus": 1,
                 "memory_mib": 1024},
                {"build": 7, "attached": true, "submitter": "ann", "target": null,
                 "machine": "linux", "toolchain": "default", "state": null,
                 "since": "2026-01-01T00:01:20Z", "cpus": 1, "memory_mib": 2048},
            ],
            "waiting": [
                waiting(12, "for memory: 2048 MiB wanted, 1024 of 4096 free; build 9 and the bootstrap of other hold the rest"),
                waiting(13, "for build 12, which it is to come after"),
            ],
        });
        (
            serde_json::from_value(status).unwrap(),
            serde_json::from_value(queue).unwrap(),
        )
    }

    #[test]
    fn a_frame_shows_guests_queue_and_machines() {
        let (status, queue) = example();
        insta::assert_snapshot!(frame(&status, &queue, UNBOUNDED).join("\n"));
    }

    #[test]
    fn a_frame_fits_the_terminal() {
        let (status, queue) = example();
        for size in [(80, 24), (20, 5), (1, 1), (300, 2)] {
            let lines = frame(&status, &queue, size);
            assert!(lines.len() <= usize::from(size.1), "{lines:?}");
            assert!(
                lines
                    .iter()
                    .all(|line| line.chars().count() <= usize::from(size.0))
            );
        }
    }
}
