//! Runs a parser on mutated inputs, and checks that it stays within its limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tests::mutation;

/// The time after which a parser is taken for endless. No input takes a second.
const INPUT_TIMEOUT: Duration = Duration::from_mins(1);
/// The bytes of a failing input that are printed.
const PRINTED_MAX: usize = 8 * 1024;

/// A function that parses an input, and checks properties of what it finds.
pub(crate) type Parse = dyn FnMut(&[u8]);

/// A parser with valid inputs and a limit of its memory.
pub(crate) struct Parser {
    pub(crate) valid: Vec<Vec<u8>>,
    /// The limit, in bytes, is `memory_constant + memory_factor * input`.
    pub(crate) memory_constant: usize,
    pub(crate) memory_factor: usize,
    pub(crate) parse: Box<Parse>,
}

impl Parser {
    /// Returns a parser of texts that takes at most so many times the memory of its input.
    pub(crate) fn of_text(
        valid: &[&str],
        memory_factor: usize,
        mut parse: impl FnMut(&str) + 'static,
    ) -> Self {
        Self {
            valid: valid.iter().map(|text| text.as_bytes().to_vec()).collect(),
            memory_constant: 4096,
            memory_factor: memory_factor + 3, // the text itself, and its conversion
            parse: Box::new(move |bytes| parse(&String::from_utf8_lossy(bytes))),
        }
    }

    /// Parses the valid inputs, then so many mutated ones.
    pub(crate) fn run(mut self, inputs: u64) {
        let name = thread::current().name().unwrap_or_default().to_owned();
        let watchdog = Watchdog::start(name.clone());
        let began = Instant::now();
        for valid in self.valid.clone() {
            self.parse(&valid);
        }
        let mut most = 0;
        for number in 0..inputs {
            watchdog.number.store(number, Ordering::Relaxed);
            let input = mutation::input(&self.valid, number);
            let report = FailureReport {
                number,
                input: &input,
            };
            most = most.max(self.parse(&input));
            drop(report);
        }
        println!(
            "{inputs:>8} inputs in {:6.1} s, at most {most:>9} bytes: {name}",
            began.elapsed().as_secs_f64()
        );
    }

    /// Parses an input, and returns the memory that this took.
    fn parse(&mut self, input: &[u8]) -> usize {
        let memory = allocation_counter::measure(|| (self.parse)(input));
        let bytes = usize::try_from(memory.bytes_max).unwrap();
        let limit = self.memory_constant + self.memory_factor * input.len();
        assert!(
            bytes <= limit,
            "an input of {} bytes takes {bytes} bytes of memory, more than {limit}",
            input.len()
        );
        bytes
    }
}

/// Prints an input if its test fails.
struct FailureReport<'a> {
    number: u64,
    input: &'a [u8],
}

impl Drop for FailureReport<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let start = &self.input[..self.input.len().min(PRINTED_MAX)];
            println!("input {}: b\"{}\"", self.number, start.escape_ascii());
        }
    }
}

/// Ends the process if one input takes too long.
struct Watchdog {
    number: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    fn start(name: String) -> Self {
        let (number, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (seen, stopped) = (Arc::clone(&number), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let (mut last, mut since) = (u64::MAX, Instant::now());
            while !stopped.load(Ordering::Relaxed) {
                let current = seen.load(Ordering::Relaxed);
                if current != last {
                    (last, since) = (current, Instant::now());
                } else if since.elapsed() > INPUT_TIMEOUT {
                    println!(
                        "{name}: input {current} is still being parsed after {INPUT_TIMEOUT:?}"
                    );
                    std::process::abort();
                }
                thread::park_timeout(INPUT_TIMEOUT / 10);
            }
        });
        Self {
            number,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
