//! The answers that all share who ask within a second.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ::toaster::answer::Json;
use axum::body::Bytes;
use tokio::sync::Mutex;

/// The age up to which an answer is given again.
const FRESH: Duration = Duration::from_secs(1);
/// The most answers that are kept.
const KEPT_MAX: usize = 16;

/// The last answers. They are read one at a time, so that any number of askers costs as much as one.
#[derive(Debug, Default)]
pub(super) struct Answers(Mutex<BTreeMap<String, (Instant, Bytes)>>);

impl Answers {
    /// Returns the answer to a question at a time, which is read if it is not fresh.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) async fn get<E>(
        &self,
        now: Instant,
        question: String,
        read: impl Future<Output = Result<Json, E>>,
    ) -> Result<Json, E> {
        let mut known = self.0.lock().await;
        // Those who have waited get what was read meanwhile.
        known.retain(|_, (at, _)| now.saturating_duration_since(*at) < FRESH);
        if let Some((_, body)) = known.get(&question) {
            return Ok(Json(body.clone()));
        }
        let answer = read.await?;
        if known.len() < KEPT_MAX {
            known.insert(question, (now, answer.0.clone()));
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// Asks a question so many milliseconds after a time, and returns the answer; it is a new one if it is read.
    async fn ask(answers: &Answers, at: Instant, ms: u64, question: &str, new: &str) -> Bytes {
        let now = at + Duration::from_millis(ms);
        let new = Bytes::copy_from_slice(new.as_bytes());
        let read = async { Ok::<_, Infallible>(Json(new)) };
        let Ok(answer) = answers.get(now, question.to_owned(), read).await;
        answer.0
    }

    #[tokio::test]
    async fn all_who_ask_within_a_second_share_an_answer() {
        let (answers, at) = (Answers::default(), Instant::now());
        for (ms, question, new, expected) in [
            (0, "a", "1", "1"),
            (999, "a", "2", "1"),
            (999, "b", "3", "3"),
            (1_000, "a", "4", "4"),
            // One who has waited for the lock, and asked before the answer was read.
            (500, "a", "5", "4"),
        ] {
            assert_eq!(ask(&answers, at, ms, question, new).await, expected);
        }
    }

    #[tokio::test]
    async fn few_answers_are_kept() {
        let (answers, at) = (Answers::default(), Instant::now());
        for number in 0..100 {
            ask(&answers, at, 0, &number.to_string(), "1").await;
        }
        assert_eq!(answers.0.lock().await.len(), KEPT_MAX);
        ask(&answers, at, 1_000, "new", "1").await;
        assert_eq!(answers.0.lock().await.len(), 1);
    }
}
