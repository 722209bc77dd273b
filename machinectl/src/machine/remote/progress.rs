//! How far a stream has come: size, rate and time left, on a terminal only.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Voice;

/// How often the line is drawn.
const PAUSE: Duration = Duration::from_millis(200);

/// A line that tells how much has passed; dropping it removes the line.
pub(super) struct Progress {
    /// How many bytes have passed.
    pub(super) passed: Arc<AtomicU64>,
    /// Draws the line until nobody holds the other end; nobody does without a terminal.
    artist: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Begins now. How much there will be is measured beside, if anybody watches.
    pub(super) fn start(
        voice: &Voice,
        measure: impl FnOnce() -> Option<u64> + Send + 'static,
    ) -> Self {
        let passed = Arc::new(AtomicU64::new(0));
        let shown = !voice.quiet() && io::stderr().is_terminal();
        let artist = shown.then(|| {
            let total = Arc::new(AtomicU64::new(0));
            let measured = Arc::clone(&total);
            std::thread::spawn(move || measured.store(measure().unwrap_or(0), Ordering::Relaxed));
            let (end, ended) = mpsc::channel();
            let passed = Arc::clone(&passed);
            (
                end,
                std::thread::spawn(move || draw(&passed, &total, &ended)),
            )
        });
        Self { passed, artist }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, artist)) = self.artist.take() {
            drop(end);
            let _ = artist.join();
        }
    }
}

fn draw(passed: &AtomicU64, total: &AtomicU64, ended: &Receiver<()>) {
    let begun = Instant::now();
    while ended.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        let (passed, total) = (
            passed.load(Ordering::Relaxed),
            total.load(Ordering::Relaxed),
        );
        let line = line(passed, total, begun.elapsed());
        let _ = write!(io::stderr(), "\r\x1b[K  {line}");
    }
    let _ = write!(io::stderr(), "\r\x1b[K");
}

/// What is shown. The total is an estimate: more may pass.
fn line(bytes: u64, total: u64, elapsed: Duration) -> String {
    let milliseconds = u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let rate = bytes.saturating_mul(1000) / milliseconds;
    let passed = mebibytes(bytes);
    let rate_shown = mebibytes(rate);
    if total <= bytes {
        return format!("{passed}, {rate_shown}/s");
    }
    let (all, percent) = (mebibytes(total), bytes.saturating_mul(100) / total);
    let left = match (total - bytes).checked_div(rate) {
        Some(seconds) => format!(", {}:{:02} left", seconds / 60, seconds % 60),
        None => String::new(),
    };
    format!("{percent:>3} %: {passed} of about {all}, {rate_shown}/s{left}")
}

/// A size as people read it.
pub(super) fn mebibytes(bytes: u64) -> String {
    if bytes < 1 << 20 {
        format!("{} KiB", bytes.div_ceil(1024))
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_rate_and_time_left_are_told_as_far_as_they_are_known() {
        let seconds = Duration::from_secs;
        let mib = |count: u64| count << 20;
        assert_eq!(
            line(mib(100), mib(400), seconds(10)),
            " 25 %: 100 MiB of about 400 MiB, 10 MiB/s, 0:30 left"
        );
        assert_eq!(line(mib(100), 0, seconds(10)), "100 MiB, 10 MiB/s");
        assert_eq!(line(mib(101), mib(100), seconds(1)), "101 MiB, 101 MiB/s");
        assert_eq!(
            line(0, mib(100), seconds(0)),
            "  0 %: 0 KiB of about 100 MiB, 0 KiB/s"
        );
        assert_eq!(
            line(mib(1), mib(4000), seconds(1)),
            "  0 %: 1 MiB of about 4000 MiB, 1 MiB/s, 66:39 left"
        );
    }
}
