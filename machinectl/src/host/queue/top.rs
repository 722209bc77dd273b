//! `machinectl top`: a live view of what runs, what waits, and the machines.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use config::builds::Status;
use config::queue::{Guest, Load, Queue};
use crossterm::event::{self, Event, KeyCode, KeyModifiers};
use crossterm::{cursor, execute, queue as enqueue, style, terminal};
use jiff::Timestamp;

use crate::{Ending, Failure, Table, Voice};
use client::Client;

/// How often it is looked.
const PAUSE: Duration = Duration::from_secs(1);
/// The size of what is no terminal.
const PLAIN: (u16, u16) = (200, u16::MAX);

/// Shows the queue until `q` is pressed; one frame only if `once`, or if nobody looks.
pub(super) fn run(client: &Client, once: bool, voice: &Voice) -> Result<(), Failure> {
    if voice.json() {
        let queue: Queue = client.get("queue")?;
        return voice.print_json(&serde_json::json!(queue));
    }
    if once || !io::stdout().is_terminal() {
        let (status, queue) = (client.get("status")?, client.get("queue")?);
        let lines = frame(&status, &queue, PLAIN);
        return voice.print(&format!("{}\n", lines.join("\n")));
    }
    let _screen = Screen::open().map_err(failed)?;
    loop {
        let (status, queue) = (client.get("status")?, client.get("queue")?);
        let size = terminal::size().map_err(failed)?;
        draw(&frame(&status, &queue, size)).map_err(failed)?;
        if event::poll(PAUSE).map_err(failed)? && is_end(&event::read().map_err(failed)?) {
            return Ok(());
        }
    }
}

fn failed(error: io::Error) -> Failure {
    Failure::new(Ending::Failed, error)
}

fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else {
        return false;
    };
    let interrupt = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
    interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}

/// The terminal while it is ours; given back when dropped.
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
        // Whoever cannot be told cannot be helped.
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

/// What is shown, at most so many columns and rows.
fn frame(status: &Status, queue: &Queue, (columns, rows): (u16, u16)) -> Vec<String> {
    let mut lines = vec![format!(
        "{}  {}   guests {}   processors {}   memory {} MiB",
        queue.name,
        queue.at.strftime("%Y-%m-%d %H:%M:%SZ"),
        load(&queue.guests),
        load(&queue.cpus),
        load(&queue.memory_mib),
    )];
    lines.extend(status.notices.iter().cloned());
    section(&mut lines, "running", &running(queue));
    section(&mut lines, "waiting", &waiting(queue));
    section(&mut lines, "to build on", &machines(status));
    let most = usize::from(rows.max(1));
    if lines.len() > most {
        let hidden = lines.len() - most + 1;
        lines.truncate(most - 1);
        lines.push(format!("… {hidden} more lines"));
    }
    let cut = |line: String| line.chars().take(columns.into()).collect();
    lines.into_iter().map(cut).collect()
}

fn section(lines: &mut Vec<String>, name: &str, table: &Table) {
    lines.push(String::new());
    if table.is_empty() {
        lines.push(format!("nothing {name}"));
    }
    lines.extend(table.show(true).lines().map(str::to_owned));
}

fn load(load: &Load) -> String {
    match load.total {
        Some(total) => format!("{}/{total}", load.taken),
        None => load.taken.to_string(),
    }
}

fn running(queue: &Queue) -> Table {
    let mut table = Table::new(&[
        "RUNNING",
        "SUBMITTER",
        "MACHINE",
        "TARGET",
        "STATE",
        "SECONDS",
        "MIB",
    ]);
    for guest in &queue.running {
        let what = guest
            .build
            .map_or_else(|| "bootstrap".to_owned(), |id| id.to_string());
        let word = |word: Option<String>| word.unwrap_or_default();
        table.add([
            what,
            word(guest.submitter.as_ref().map(ToString::to_string)),
            guest.machine.to_string(),
            word(guest.target.as_ref().map(ToString::to_string)),
            state(guest),
            word(guest.since.map(|since| seconds(since, queue.at))),
            guest.memory_mib.to_string(),
        ]);
    }
    table
}

/// A build that has ended still has a guest for a moment.
fn state(guest: &Guest) -> String {
    match (guest.state, guest.build) {
        _ if guest.is_debug_copy => "attached".to_owned(),
        (Some(state), _) => state.to_string(),
        (None, Some(_)) => "ending".to_owned(),
        (None, None) => String::new(),
    }
}

fn waiting(queue: &Queue) -> Table {
    let mut table = Table::new(&[
        "WAITING",
        "PRIORITY",
        "SUBMITTER",
        "MACHINE",
        "TARGET",
        "SECONDS",
        "WAITS",
    ]);
    for waits in &queue.waiting {
        table.add([
            waits.build.to_string(),
            waits.priority.to_string(),
            waits.submitter.to_string(),
            waits.machine.to_string(),
            waits.target.to_string(),
            seconds(waits.since, queue.at),
            waits.message.clone(),
        ]);
    }
    table
}

fn machines(status: &Status) -> Table {
    let mut table = Table::new(&["MACHINE", "TOOLCHAIN", "IMAGE", "WHY"]);
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
        let waits = |id: u64, message: &str| {
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
                waits(12, "for memory: 2048 MiB wanted, 1024 of 4096 free; build 9 and the bootstrap of other hold the rest"),
                waits(13, "for build 12, which it is to come after"),
            ],
        });
        (
            serde_json::from_value(status).unwrap(),
            serde_json::from_value(queue).unwrap(),
        )
    }

    #[test]
    fn a_frame_shows_what_runs_what_waits_and_the_machines() {
        let (status, queue) = example();
        insta::assert_snapshot!(frame(&status, &queue, PLAIN).join("\n"));
    }

    #[test]
    fn a_frame_is_no_larger_than_the_terminal() {
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
