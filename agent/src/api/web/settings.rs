//! The page of the settings.

use std::path::Path;
use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::Response;
use config::settings::Settings;
use store::default_paths;
use sys::blocking::blocking;
use web::{Section, SettingsPage, Viewer};

use super::super::error::ApiError;
use super::answer::{error_page, page};
use super::frame;
use super::host::require_admin;
use state::AgentState;

pub(super) async fn show(
    State(agent): State<Arc<AgentState>>,
    Extension(viewer): Extension<Viewer>,
    headers: HeaderMap,
) -> Response {
    let shown = async {
        require_admin(&viewer)?;
        let frame = frame(&agent, viewer.clone(), Section::Host, "Settings");
        let (settings, file) = (agent.settings(), agent.settings_file.get().cloned());
        let read = blocking(move || read(file.as_deref()));
        let (text, parsed) = read.await;
        let (written, faults) = match parsed {
            Ok(written) => (written, String::new()),
            Err(faults) => (None, faults),
        };
        let written = written.unwrap_or_else(|| (*settings).clone());
        let shown = SettingsPage {
            frame,
            file: agent
                .settings_file
                .get()
                .map(|it| it.display().to_string())
                .unwrap_or_default(),
            rows: settings.rows(&text, &written),
            faults,
        };
        page(&headers, &shown)
    };
    let answer: Result<_, ApiError> = shown.await;
    answer.unwrap_or_else(|error| error_page(&agent, viewer, error))
}

/// Reads the text of the file, and its settings or faults; `None` without a file. Blocks.
fn read(file: Option<&Path>) -> (String, Result<Option<Settings>, String>) {
    let text = match file.map(sys::trusted::read_text) {
        None => return (String::new(), Ok(None)),
        Some(Ok(text)) => text,
        Some(Err(error)) => return (String::new(), Err(error.to_string())),
    };
    let parsed = Settings::parse(&text).map(|mut settings| {
        default_paths::use_those_of_host(&mut settings.paths);
        Some(settings)
    });
    let parsed = parsed.map_err(|faults| {
        let lines = faults.iter().map(ToString::to_string);
        lines.collect::<Vec<_>>().join("\n")
    });
    (text, parsed)
}
