//! The formats of metrics, and the choice between them by the header `Accept`.

use std::fmt::Write;

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

/// The last line of the format OpenMetrics.
const END: &str = "# EOF\n";

/// A format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text format 0.0.4 of Prometheus.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Returns the format for a client that accepts `accept`. Without a preference, it is the
    /// text format, which all clients read.
    pub fn negotiate(accept: Option<&str>) -> Self {
        let ranges: Vec<_> = accept.into_iter().flat_map(ranges).collect();
        let open = ranges
            .iter()
            .filter(|it| it.name == "application/openmetrics-text" && it.is_version(&["1.0.0"]))
            .map(|it| it.quality)
            .fold(0.0, f32::max);
        let text = ranges
            .iter()
            .filter(|it| match it.name.as_str() {
                "text/plain" => it.is_version(&["0.0.4"]),
                name => name == "text/*" || name == "*/*",
            })
            .map(|it| it.quality)
            .fold(0.0, f32::max);
        if open > 0.0 && open >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// Returns the content type of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Returns metrics in this format. They are given in OpenMetrics, as one text for each of
    /// several registries.
    pub fn join(self, registries: &[String]) -> String {
        let texts = registries
            .iter()
            .map(|text| text.strip_suffix(END).unwrap_or(text));
        let mut joined: String = texts.collect();
        match self {
            Self::OpenMetrics => joined.push_str(END),
            Self::Text => joined = to_text(&joined),
        }
        joined
    }
}

/// Returns the response with metrics, in the format that the client prefers. They are given in
/// OpenMetrics, as one text for each of several registries.
pub fn respond(headers: &HeaderMap, registries: &[String]) -> Response {
    let accept = headers.get(header::ACCEPT);
    let format = Format::negotiate(accept.and_then(|it| it.to_str().ok()));
    let headers = [
        (header::CONTENT_TYPE, format.content_type()),
        (header::VARY, "accept"),
    ];
    (headers, format.join(registries)).into_response()
}

/// A media range of the header `Accept`.
struct Range {
    name: String,
    version: Option<String>,
    quality: f32,
}

impl Range {
    fn is_version(&self, known: &[&str]) -> bool {
        let version = self.version.as_deref();
        version.is_none_or(|version| known.contains(&version))
    }
}

fn ranges(accept: &str) -> impl Iterator<Item = Range> {
    accept.split(',').map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let mut parsed = Range {
            name: parts.next().unwrap_or_default().to_ascii_lowercase(),
            version: None,
            quality: 1.0,
        };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => parsed.version = Some(value.trim().trim_matches('"').to_owned()),
                // A malformed quality expresses no preference.
                "q" => parsed.quality = value.trim().parse().unwrap_or(0.0),
                _ => {}
            }
        }
        parsed
    })
}

/// Converts OpenMetrics to the text format 0.0.4. There a counter is named as its samples are, an
/// information is a gauge, and nothing has a unit.
fn to_text(metrics: &str) -> String {
    let mut text = String::with_capacity(metrics.len());
    let mut help = None;
    for line in metrics.lines() {
        match comment(line) {
            None if line.starts_with('#') => {}
            None => {
                // Writing into memory cannot fail.
                let _ = writeln!(text, "{line}");
            }
            Some(("HELP", name, words)) => help = Some((name, words)),
            Some((_, name, kind)) => {
                let (end, kind) = match kind {
                    "counter" => ("_total", kind),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    _ => ("", kind),
                };
                if let Some((_, words)) = help.take().filter(|(of, _)| *of == name) {
                    let _ = writeln!(text, "# HELP {name}{end} {words}");
                }
                let _ = writeln!(text, "# TYPE {name}{end} {kind}");
            }
        }
    }
    text
}

/// Returns the keyword, the name and the rest of a line about the help or the type of a metric.
fn comment(line: &str) -> Option<(&str, &str, &str)> {
    let (keyword, rest) = line.strip_prefix("# ")?.split_once(' ')?;
    let (name, rest) = rest.split_once(' ')?;
    matches!(keyword, "HELP" | "TYPE").then_some((keyword, name, rest))
}

#[cfg(test)]
mod tests {
    use proptest::proptest;

    use super::*;

    #[test]
    fn the_accept_header_selects_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (None, Format::Text),
            (Some(""), Format::Text),
            (Some("*/*"), Format::Text),
            (Some("text/plain;version=0.0.4"), Format::Text),
            (Some("application/json"), Format::Text),
            (Some(prometheus), Format::OpenMetrics),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (
                Some("Application/OpenMetrics-Text; Version=\"1.0.0\"; q=0.4, text/html"),
                Format::OpenMetrics,
            ),
            (
                Some("application/openmetrics-text;version=2.0.0"),
                Format::Text,
            ),
            (
                Some("application/openmetrics-text;q=0, */*;q=0.1"),
                Format::Text,
            ),
            (
                Some("application/openmetrics-text;q=0.3,text/plain;q=0.9"),
                Format::Text,
            ),
            (Some("application/openmetrics-text;q=x"), Format::Text),
        ] {
            assert_eq!(Format::negotiate(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn the_text_format_names_counters_as_their_samples_are() {
        let first = "# HELP a_builds Builds.\n# TYPE a_builds counter\na_builds_total{x=\"# TYPE\"} 1\n\
                     # HELP a Agent.\n# TYPE a info\na_info{version=\"1\"} 1\n# EOF\n";
        let second = "# HELP b_seconds Time.\n# TYPE b_seconds histogram\n# UNIT b_seconds seconds\nb_seconds_sum 1.0\n# EOF\n";
        let texts = [first.to_owned(), second.to_owned()];
        assert_eq!(
            Format::Text.join(&texts),
            "# HELP a_builds_total Builds.\n# TYPE a_builds_total counter\na_builds_total{x=\"# TYPE\"} 1\n\
             # HELP a_info Agent.\n# TYPE a_info gauge\na_info{version=\"1\"} 1\n\
             # HELP b_seconds Time.\n# TYPE b_seconds histogram\nb_seconds_sum 1.0\n"
        );
        let open = Format::OpenMetrics.join(&texts);
        assert_eq!(open.matches(END).count(), 1);
        assert!(open.ends_with(END));
    }

    proptest! {
        #[test]
        fn no_header_makes_the_choice_panic(accept in ".{0,80}") {
            let _ = Format::negotiate(Some(&accept));
            let _ = to_text(&accept);
        }
    }
}
