//! Logs: windows of lines, searches, and the stream of new lines.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use config::BuildId;
use config::builds::{Build, State as BuildState};
use futures_util::stream;
use serde::Deserialize;
use sys::blocking::blocking;
use web::{
    Found, LogPage, LogView, LogWindow, Matches, Needle, Section, Template, Viewer, WINDOW_LINES,
    WindowOptions,
};

use super::super::builds::find;
use super::super::error::ApiError;
use super::super::files::{FOLLOW_INTERVAL, is_over, log_directory};
use super::answer::{error_page, page};
use super::frame;
use super::log_file::LogFiles;
use state::AgentState;

/// The largest number of lines of an answer.
const LINES_MAX: u64 = 2000;
/// The number of lines behind the end from which a stream skips some.
const BEHIND_MAX: u64 = 1000;
/// The number of looks at a log that does not grow, until a comment keeps the connection.
const QUIET_LOOKS: u32 = 75;

/// The part of a log that a page shows.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogQuery {
    /// An earlier attempt.
    attempt: Option<u32>,
    /// The line that is pointed out. Forms send an empty one.
    line: String,
    /// The text that is searched for.
    find: String,
    /// The first line of a part.
    from: u64,
    /// The number of lines of a part.
    count: Option<u64>,
}

/// The lines of a log around the one that a page is about.
pub(super) struct Opened {
    pub(super) view: LogView,
    found: Option<Found>,
}

/// Opens a log and reads the window that a query asks for: around its line, around the first found
/// line, around the first error of a failed build, or the end.
pub(super) async fn open(
    agent: &Arc<AgentState>,
    logs: &Arc<LogFiles>,
    build: &Build,
    query: LogQuery,
) -> Result<Opened, ApiError> {
    let line =
        match query.line.as_str() {
            "" => None,
            text => Some(text.parse::<u64>().map_err(|_| {
                ApiError::bad_request(format!("`{text}` is not the number of a line"))
            })?),
        };
    let directory = directory(agent, build, query.attempt).await?;
    let is_complete = is_over(build, query.attempt);
    let (logs, id) = (Arc::clone(logs), build.id);
    let has_failed = build.outcome.is_some_and(|outcome| !outcome.is_good());
    let read = move || -> io::Result<Opened> {
        let log = logs.open(&directory, is_complete)?;
        let needle = Needle::new(&query.find);
        let matches = needle
            .as_ref()
            .map(|needle| log.search(&query.find, needle));
        let matches: Option<Arc<Matches>> = matches.transpose()?;
        let first_found = matches.as_ref().and_then(|it| it.lines.first().copied());
        let here = line.or(first_found);
        let lines = log.index.lines();
        let focus = here.or(log.index.first_error().filter(|_| has_failed));
        let first = first_line(focus, lines);
        let (text, offset, first) = log.lines(first, WINDOW_LINES)?;
        let options = WindowOptions {
            find: needle.as_ref(),
            here,
            offset,
            times: &log.times(),
        };
        let found = matches.map(|it| Found::new(it.total, &it.lines, here));
        let view = LogView {
            build: id,
            attempt: query.attempt,
            window: LogWindow::new(&text, first, &options),
            lines,
            bytes: log.index.bytes(),
            first_error: log.index.first_error(),
            is_live: !is_complete,
            find: query.find,
        };
        Ok(Opened { view, found })
    };
    Ok(blocking(read).await?)
}

/// Returns the first line of the window around a line, or of the last one.
fn first_line(focus: Option<u64>, lines: u64) -> u64 {
    let last_window = lines.saturating_sub(WINDOW_LINES - 1).max(1);
    match focus {
        Some(line) => line.saturating_sub(WINDOW_LINES / 3).clamp(1, last_window),
        None => last_window,
    }
}

async fn directory(
    agent: &AgentState,
    build: &Build,
    attempt: Option<u32>,
) -> Result<PathBuf, ApiError> {
    match attempt {
        None => Ok(agent.paths.build(build.id)),
        attempt => log_directory(agent, build.id, attempt).await,
    }
}

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    Extension(logs): Extension<Arc<LogFiles>>,
    id: Result<Path<BuildId>, PathRejection>,
    query: Result<Query<LogQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let shown = async {
        let (Path(id), Query(query)) = (id?, query?);
        let build = find(&agent, id).await?;
        let Opened { view, found } = open(&agent, &logs, &build, query).await?;
        let mut frame = frame(
            &agent,
            viewer.clone(),
            Section::Builds,
            format!("Log of build {id}"),
        );
        frame.refresh_seconds = view.is_live.then_some(super::REFRESH_SECONDS);
        let log = LogPage {
            frame,
            build,
            log: view,
            found,
        };
        page(&headers, &log)
    };
    let shown = shown.await;
    shown.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

/// Returns lines of a log without a page.
pub(super) async fn lines(
    State(agent): State<Arc<AgentState>>,
    Extension(logs): Extension<Arc<LogFiles>>,
    id: Result<Path<BuildId>, PathRejection>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (Path(id), Query(query)) = (id?, query?);
    let build = find(&agent, id).await?;
    let directory = directory(&agent, &build, query.attempt).await?;
    let is_complete = is_over(&build, query.attempt);
    let count = query.count.unwrap_or(WINDOW_LINES).min(LINES_MAX);
    let wanted = Part {
        find: query.find,
        from: query.from,
        count,
        skips: false,
    };
    let (_, html) = part(&logs, directory, is_complete, wanted).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, html).into_response())
}

/// Some lines of a log.
struct Part {
    /// The text that is marked.
    find: String,
    /// The first line.
    from: u64,
    /// The number of lines.
    count: u64,
    /// True if lines are skipped that are far before the end: their reader would never see the end.
    skips: bool,
}

/// Returns the number of the line after a part of a log, and the part as HTML.
async fn part(
    logs: &Arc<LogFiles>,
    directory: PathBuf,
    is_complete: bool,
    part: Part,
) -> Result<(u64, String), ApiError> {
    let from = part.from;
    let logs = Arc::clone(logs);
    let read = move || -> io::Result<LogWindow> {
        let log = logs.open(&directory, is_complete)?;
        let lines = log.index.lines();
        let is_behind = part.skips && lines.saturating_sub(part.from) > BEHIND_MAX;
        let newest = lines.saturating_sub(BEHIND_MAX / 2);
        let from = if is_behind { newest } else { part.from };
        let (text, offset, first) = log.lines(from, part.count)?;
        let needle = Needle::new(&part.find);
        let options = WindowOptions {
            find: needle.as_ref(),
            here: None,
            offset,
            times: &log.times(),
        };
        Ok(LogWindow::new(&text, first, &options))
    };
    let window = blocking(read).await?;
    let html = window
        .render()
        .map_err(|error| ApiError::internal(&error))?;
    let next = if html.is_empty() {
        from
    } else {
        window.last() + 1
    };
    Ok((next, html))
}

/// The state of a stream of new lines.
struct Stream {
    agent: Arc<AgentState>,
    logs: Arc<LogFiles>,
    id: BuildId,
    query: LogQuery,
    next: u64,
    has_ended: bool,
}

/// Streams the lines of a growing log from a line on as server-sent events. The ID of an event is the
/// number of the next line, from which a browser resumes. The event `end` is the last one.
pub(super) async fn stream(
    State(agent): State<Arc<AgentState>>,
    Extension(logs): Extension<Arc<LogFiles>>,
    id: Result<Path<BuildId>, PathRejection>,
    query: Result<Query<LogQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (Path(id), Query(query)) = (id?, query?);
    find(&agent, id).await?;
    let resumed = headers.get("last-event-id");
    let resumed = resumed.and_then(|it| it.to_str().ok()?.parse().ok());
    let state = Stream {
        agent,
        logs,
        id,
        next: resumed.unwrap_or(query.from).max(1),
        query,
        has_ended: false,
    };
    let pieces = stream::unfold(state, |mut state| async move {
        let text = state.next().await?;
        Some((Ok::<_, Infallible>(text), state))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

impl Stream {
    /// Returns the next event, or a comment after a while without new lines.
    async fn next(&mut self) -> Option<String> {
        if self.has_ended {
            return None;
        }
        for _ in 0..QUIET_LOOKS {
            // The state is read before the log, so that the last output is not missed.
            let build = self.agent.records.get(self.id).await.ok()??;
            let attempt = self.query.attempt;
            let is_complete = is_over(&build, attempt) || build.state == BuildState::Finished;
            let directory = directory(&self.agent, &build, attempt).await.ok()?;
            let wanted = Part {
                find: self.query.find.clone(),
                from: self.next,
                count: BEHIND_MAX,
                skips: !is_complete,
            };
            let part = part(&self.logs, directory, is_complete, wanted);
            let (next, html) = part.await.ok()?;
            if next > self.next {
                self.next = next;
                return Some(format!("id: {next}\nevent: lines\ndata: {html}\n\n"));
            }
            if is_complete || self.agent.stopping.is_cancelled() {
                self.has_ended = true;
                return Some("event: end\ndata: {}\n\n".to_owned());
            }
            tokio::time::sleep(FOLLOW_INTERVAL).await;
        }
        Some(": keep-alive\n\n".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_around_the_line_and_within_the_log() {
        assert_eq!(first_line(None, 0), 1);
        assert_eq!(first_line(None, 100), 1);
        assert_eq!(first_line(None, 1000), 601);
        assert_eq!(first_line(Some(1), 1000), 1);
        assert_eq!(first_line(Some(500), 1000), 367);
        assert_eq!(first_line(Some(999), 1000), 601);
        assert_eq!(first_line(Some(u64::MAX), 1000), 601);
    }
}
