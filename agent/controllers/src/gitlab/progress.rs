//! The steps of a job's report, in their order: its log while it runs, then the archives, then the final
//! state; pure. What was done is in the [`Progress`], with which the next agent continues.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::artifacts::Archive;
use super::ending::FinalState;
use super::trace::{TraceAnswer, next_piece};

/// The pause between two pieces of a log, if GitLab asks for none.
const PAUSE: Duration = Duration::from_secs(3);
/// The time after which a job that is quiet gives a sign of life.
const QUIET_MAX: Duration = Duration::from_secs(30);

/// The progress of a job's report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The number of bytes of the log that GitLab has.
    #[serde(default)]
    pub offset: u64,
    /// The pause between two pieces that GitLab asks for.
    #[serde(default)]
    pub pause: Option<Duration>,
    /// The files of the archives that GitLab has or refuses.
    #[serde(default)]
    pub uploaded: Vec<String>,
}

/// The state of a job on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Its build waits or runs.
    Open,
    /// Its build has ended, and its log does not grow.
    Ended(FinalState),
}

/// The next step of a job's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportStep {
    /// Nothing is due for this time.
    Wait(Duration),
    /// A piece of the log is sent.
    Piece(Range<u64>),
    /// A sign of life is given.
    Touch,
    /// An archive is uploaded.
    Archive(Archive),
    /// The final state is sent, which settles the lease.
    Finish(FinalState),
}

impl Progress {
    /// Returns the next step. `length` is that of the log, `archives` are those that exist, and `quiet`
    /// is the time since the last step.
    pub fn next_step(
        &self,
        state: JobState,
        length: u64,
        archives: &[Archive],
        quiet: Duration,
    ) -> ReportStep {
        let piece = next_piece(self.offset, length);
        match (state, piece) {
            (JobState::Open, piece) => {
                let due = match piece {
                    Some(_) => self.pause.unwrap_or(PAUSE),
                    None => QUIET_MAX,
                };
                match (due.saturating_sub(quiet), piece) {
                    (Duration::ZERO, Some(piece)) => ReportStep::Piece(piece),
                    (Duration::ZERO, None) => ReportStep::Touch,
                    // More output may come meanwhile.
                    (left, _) => ReportStep::Wait(left.min(PAUSE)),
                }
            }
            (JobState::Ended(_), Some(piece)) => ReportStep::Piece(piece),
            (JobState::Ended(state), None) => {
                let is_missing = |it: &&Archive| !self.uploaded.contains(&it.file);
                let missing = archives.iter().find(is_missing);
                missing.map_or(ReportStep::Finish(state), |archive| {
                    ReportStep::Archive(archive.clone())
                })
            }
        }
    }

    /// Notes the answer to a piece or a sign of life.
    pub fn note(&mut self, answer: &TraceAnswer) {
        if let TraceAnswer::Continue { offset, pause } = answer {
            self.offset = offset.unwrap_or(self.offset);
            self.pause = pause.or(self.pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENDED: JobState = JobState::Ended(FinalState::Success);

    fn archive(file: &str) -> Archive {
        Archive {
            file: file.to_owned(),
            name: "artifacts.zip".to_owned(),
            format: "zip".to_owned(),
            kind: "archive".to_owned(),
            expire_in: None,
        }
    }

    #[test]
    fn a_running_job_sends_its_log_at_the_pace_of_gitlab_and_signs_of_life() {
        let quick = Progress::default();
        let slow = Progress {
            pause: Some(Duration::from_mins(1)),
            ..Progress::default()
        };
        let wait = |seconds| ReportStep::Wait(Duration::from_secs(seconds));
        for (progress, length, quiet, expected) in [
            (&quick, 10, 0, wait(3)),
            (&quick, 10, 2, wait(1)),
            (&quick, 10, 3, ReportStep::Piece(0..10)),
            (&slow, 10, 3, wait(3)),
            (&slow, 10, 59, wait(1)),
            (&slow, 10, 60, ReportStep::Piece(0..10)),
            (&quick, 0, 29, wait(1)),
            (&quick, 0, 30, ReportStep::Touch),
        ] {
            let quiet = Duration::from_secs(quiet);
            let step = progress.next_step(JobState::Open, length, &[archive("a")], quiet);
            assert_eq!(step, expected, "{progress:?} {length} {quiet:?}");
        }
    }

    #[test]
    fn answers_without_a_place_or_a_pause_change_nothing() {
        let mut progress = Progress::default();
        let pause = Some(Duration::from_secs(9));
        progress.note(&TraceAnswer::Continue {
            offset: Some(5),
            pause,
        });
        let known = progress.clone();
        for answer in [
            TraceAnswer::Continue {
                offset: None,
                pause: None,
            },
            TraceAnswer::Retry(String::new()),
            TraceAnswer::Over(String::new()),
        ] {
            progress.note(&answer);
            assert_eq!(progress, known);
        }
        assert_eq!((known.offset, known.pause), (5, pause));
    }

    proptest! {
        /// GitLab may lose the end of what it was sent, and any agent may be the last one.
        #[test]
        fn the_final_state_comes_once_after_all_else(
            length in 0_u64..10_000, lost in prop::collection::vec(0_u64..5_000, 0..8), archives in 0_usize..4,
        ) {
            let archives: Vec<_> = (0..archives).map(|it| archive(&it.to_string())).collect();
            let (mut progress, mut lost) = (Progress::default(), lost.into_iter());
            let (mut has, mut uploads) = (0, Vec::new());
            loop {
                let text = serde_json::to_string(&progress).unwrap();
                progress = serde_json::from_str(&text).unwrap();
                match progress.next_step(ENDED, length, &archives, Duration::ZERO) {
                    ReportStep::Piece(piece) => {
                        prop_assert_eq!(piece.start, has);
                        has = piece.end - lost.next().unwrap_or(0).min(piece.end - piece.start);
                        progress.note(&TraceAnswer::Continue { offset: Some(has), pause: None });
                    }
                    ReportStep::Archive(archive) => {
                        prop_assert_eq!(has, length);
                        prop_assert!(!uploads.contains(&archive));
                        progress.uploaded.push(archive.file.clone());
                        uploads.push(archive);
                    }
                    ReportStep::Finish(state) => {
                        prop_assert_eq!(state, FinalState::Success);
                        break;
                    }
                    step => prop_assert!(false, "{:?}", step),
                }
            }
            prop_assert_eq!((has, uploads), (length, archives));
        }
    }
}
