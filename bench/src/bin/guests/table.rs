//! Times by name, and what they are held against.

use std::time::Duration;

/// Times by name.
#[derive(Default)]
pub(crate) struct Table(Vec<(String, Duration)>);

impl Table {
    pub(crate) fn add(&mut self, name: &str, time: Duration) {
        self.0.push((name.to_owned(), time));
    }

    /// The median of a name's times, in seconds, if it has any.
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        let named = self.0.iter().filter(|(other, _)| other == name);
        let mut times: Vec<_> = named.map(|(_, time)| time.as_secs_f64()).collect();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied()
    }

    /// Prints the median of a name's times and returns it, in seconds.
    pub(crate) fn print(&self, name: &str) -> f64 {
        let median = self.median(name).unwrap();
        println!("{:>9.1} ms  {name}", median * 1e3);
        median
    }
}

/// Says whether something is at most what it should be.
pub(crate) fn at_most(what: &str, value: f64, goal: f64, unit: &str) {
    let word = if value <= goal { "pass" } else { "FAIL" };
    println!("{word}  {what}: {value:.2}{unit} (goal: at most {goal}{unit})");
}

/// Says whether something is at least what it should be.
pub(crate) fn at_least(what: &str, value: f64, goal: f64, unit: &str) {
    let word = if value >= goal { "pass" } else { "FAIL" };
    println!("{word}  {what}: {value:.2}{unit} (goal: at least {goal}{unit})");
}

/// Begins a part of the table.
pub(crate) fn title(text: &str) {
    println!("== {text} ==");
}
