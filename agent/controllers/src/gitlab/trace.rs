//! The log of a job, which GitLab calls its trace: it is sent in pieces, each with its place, so that
//! it continues where an earlier agent has stopped; pure.

use std::ops::Range;
use std::time::Duration;

/// The largest piece.
pub const PIECE_BYTES_MAX: u64 = 1 << 20;
/// The longest pause between two pieces that GitLab may ask for.
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// The answer to a piece of a log, or to a sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TraceAnswer {
    /// The job continues.
    Continue {
        /// The number of bytes that GitLab has; `None` if it does not say that.
        offset: Option<u64>,
        /// The pause that GitLab asks for.
        pause: Option<Duration>,
    },
    /// The job is over for GitLab, for example canceled: its build is stopped, and nothing more is
    /// sent about it.
    Over(String),
    /// The piece is sent again later.
    Retry(String),
}

/// The part of an answer that is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AnswerParts {
    pub(super) status: u16,
    /// The header `Job-Status`.
    pub(super) job: Option<String>,
    /// The header `Range`.
    pub(super) range: Option<String>,
    /// The header `X-GitLab-Trace-Update-Interval`.
    pub(super) interval: Option<String>,
    /// The sentence about a refusal.
    pub(super) refusal: String,
}

/// Returns the next piece of a log of which GitLab has `offset` bytes; `None` if it has all.
pub fn next_piece(offset: u64, length: u64) -> Option<Range<u64>> {
    let end = length.min(offset.saturating_add(PIECE_BYTES_MAX));
    (offset < end).then_some(offset..end)
}

/// Returns the header `Content-Range` of a piece, which is not empty.
pub(super) fn content_range(piece: &Range<u64>) -> String {
    format!("{}-{}", piece.start, piece.end.saturating_sub(1))
}

/// Interprets the answer to a piece that would end at `end`; `None` for a sign of life.
pub(super) fn interpret(answer: &AnswerParts, end: Option<u64>) -> TraceAnswer {
    let job = answer.job.as_deref();
    if let Some(job) = job.filter(|job| !matches!(*job, "running" | "pending")) {
        let job = config::printable(job);
        return TraceAnswer::Over(format!("the job is {job} at GitLab"));
    }
    let stored = answer.range.as_deref().and_then(stored);
    match answer.status {
        200..=299 => TraceAnswer::Continue {
            // GitLab may have less than it was sent, but never more.
            offset: end.map(|end| stored.map_or(end, |stored| stored.min(end))),
            pause: pause(answer.interval.as_deref()),
        },
        416 => match stored {
            Some(_) => TraceAnswer::Continue {
                offset: stored,
                pause: None,
            },
            None => TraceAnswer::Retry(answer.refusal.clone()),
        },
        408 | 425 | 429 => TraceAnswer::Retry(answer.refusal.clone()),
        400..=499 => TraceAnswer::Over(answer.refusal.clone()),
        _ => TraceAnswer::Retry(answer.refusal.clone()),
    }
}

/// Returns the number of bytes in the header `Range`.
fn stored(range: &str) -> Option<u64> {
    range.strip_prefix("0-")?.parse().ok()
}

fn pause(interval: Option<&str>) -> Option<Duration> {
    let seconds = interval?.parse().ok().filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds).min(PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(status: u16, job: &str, range: &str) -> AnswerParts {
        let header = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        AnswerParts {
            status,
            job: header(job),
            range: header(range),
            interval: Some("3".to_owned()),
            refusal: "it answers".to_owned(),
        }
    }

    #[test]
    fn an_answer_says_how_much_gitlab_has_or_that_the_job_is_over() {
        let going = |offset, seconds: Option<u64>| TraceAnswer::Continue {
            offset,
            pause: seconds.map(Duration::from_secs),
        };
        let over = |text: &str| TraceAnswer::Over(text.to_owned());
        let retry = TraceAnswer::Retry("it answers".to_owned());
        for (answer, end, expected) in [
            (
                parts(202, "running", "0-10"),
                Some(10),
                going(Some(10), Some(3)),
            ),
            (
                parts(202, "running", "0-7"),
                Some(10),
                going(Some(7), Some(3)),
            ),
            (
                parts(202, "running", "0-99"),
                Some(10),
                going(Some(10), Some(3)),
            ),
            (parts(202, "", "bytes"), Some(10), going(Some(10), Some(3))),
            (parts(200, "running", ""), None, going(None, Some(3))),
            (parts(416, "running", "0-4"), Some(10), going(Some(4), None)),
            (parts(416, "", ""), Some(10), retry.clone()),
            (
                parts(202, "canceled", "0-10"),
                Some(10),
                over("the job is canceled at GitLab"),
            ),
            (
                parts(403, "failed", ""),
                Some(10),
                over("the job is failed at GitLab"),
            ),
            (parts(403, "", ""), Some(10), over("it answers")),
            (parts(404, "", ""), None, over("it answers")),
            (parts(429, "", ""), Some(10), retry.clone()),
            (parts(502, "", ""), Some(10), retry),
        ] {
            assert_eq!(interpret(&answer, end), expected, "{answer:?}");
        }
    }

    #[test]
    fn the_pause_has_a_limit() {
        let seconds = |text| pause(Some(text)).map(|it| it.as_secs());
        assert_eq!(
            ["3", "0", "x", "-1", "99999"].map(seconds),
            [Some(3), None, None, None, Some(300)]
        );
        assert_eq!(pause(None), None);
    }

    proptest! {
        #[test]
        fn pieces_cover_a_log_once_and_in_order(length in 0_u64..=5 << 20, start in 0_u64..=6 << 20) {
            let mut offset = start;
            while let Some(piece) = next_piece(offset, length) {
                prop_assert_eq!(piece.start, offset);
                prop_assert!(piece.end > offset && piece.end - offset <= PIECE_BYTES_MAX);
                offset = piece.end;
            }
            prop_assert_eq!(offset, start.max(length));
        }
    }
}
