//! A progress line on a terminal: size, rate and remaining time of a stream.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Output, mebibytes};

/// The time between two updates of the line.
const UPDATE_INTERVAL: Duration = Duration::from_millis(200);
/// Moves to the first column and clears the line.
const CLEAR_LINE: &str = "\r\x1b[K";

/// A progress line; removed when dropped.
pub(crate) struct Progress {
    /// The number of bytes that have passed.
    pub(crate) passed: Arc<AtomicU64>,
    /// The thread that draws the line until the channel closes; `None` without a terminal.
    drawing: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Starts the line. On a terminal, `measure` determines the expected size in the background.
    pub(crate) fn start(
        output: &Output,
        measure: impl FnOnce() -> Option<u64> + Send + 'static,
    ) -> Self {
        let passed = Arc::new(AtomicU64::new(0));
        let drawn = Arc::clone(&passed);
        let drawing = Self::is_visible(output).then(|| {
            let total = Arc::new(AtomicU64::new(0));
            let measured = Arc::clone(&total);
            std::thread::spawn(move || measured.store(measure().unwrap_or(0), Ordering::Relaxed));
            start_drawing(move || {
                let load = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed);
                (load(&drawn), load(&total))
            })
        });
        Self { passed, drawing }
    }

    /// Starts the line of a source that tells the number of bytes that have passed, and of all.
    pub(crate) fn watch(output: &Output, bytes: impl Fn() -> (u64, u64) + Send + 'static) -> Self {
        Self {
            passed: Arc::default(),
            drawing: Self::is_visible(output).then(|| start_drawing(bytes)),
        }
    }

    /// Returns a writer whose bytes pass.
    pub(crate) fn counted<W>(&self, sink: W) -> Counted<W> {
        let passed = Arc::clone(&self.passed);
        Counted { sink, passed }
    }

    /// Returns true if progress is shown.
    pub(crate) fn is_visible(output: &Output) -> bool {
        !output.is_quiet() && io::stderr().is_terminal()
    }
}

/// A writer that counts the bytes.
pub(crate) struct Counted<W> {
    sink: W,
    passed: Arc<AtomicU64>,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.sink.write(bytes)?;
        self.passed.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Starts the thread that draws the line until the channel closes.
fn start_drawing(bytes: impl Fn() -> (u64, u64) + Send + 'static) -> (Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = mpsc::channel();
    let thread = std::thread::spawn(move || draw(&bytes, &stopped));
    (stop, thread)
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.drawing.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

fn draw(bytes: &impl Fn() -> (u64, u64), stopped: &Receiver<()>) {
    let started = Instant::now();
    while stopped.recv_timeout(UPDATE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let (passed, total) = bytes();
        let line = line(passed, total, started.elapsed());
        let _ = write!(io::stderr(), "{CLEAR_LINE}  {line}");
    }
    let _ = write!(io::stderr(), "{CLEAR_LINE}");
}

/// Returns the text of the line. `total` is an estimate, which `bytes` may exceed; 0 is unknown.
fn line(bytes: u64, total: u64, elapsed: Duration) -> String {
    let milliseconds = u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let rate = bytes.saturating_mul(1000) / milliseconds;
    let (passed, per_second) = (mebibytes(bytes), mebibytes(rate));
    if total <= bytes {
        return format!("{passed}, {per_second}/s");
    }
    let (all, percent) = (mebibytes(total), bytes.saturating_mul(100) / total);
    let left = match (total - bytes).checked_div(rate) {
        Some(seconds) => format!(", {}:{:02} left", seconds / 60, seconds % 60),
        None => String::new(),
    };
    format!("{percent:>3} %: {passed} of about {all}, {per_second}/s{left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_rate_and_remaining_time_are_shown_if_known() {
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
