//! The tables that the measurements print.

use std::time::Duration;

/// A comparison of an operation with a reference that does the same.
#[derive(Debug)]
pub struct Comparison {
    /// The operation.
    pub operation: &'static str,
    /// The duration of the operation.
    pub duration: Duration,
    /// The duration of the reference.
    pub reference: Duration,
    /// The name of the reference.
    pub reference_name: &'static str,
    /// The greatest ratio of both durations that passes.
    pub ratio_max: f64,
}

/// Prints comparisons as a table.
pub fn print_comparisons(comparisons: &[Comparison]) {
    println!(
        "{:<34} {:>10} {:>10}  {:<28} {:>6} {:>6}",
        "OPERATION", "BUILDHOST", "REFERENCE", "BY", "RATIO", "GOAL"
    );
    for it in comparisons {
        let ratio = it.duration.as_secs_f64() / it.reference.as_secs_f64();
        let verdict = if ratio <= it.ratio_max {
            "pass"
        } else {
            "FAIL"
        };
        println!(
            "{:<34} {:>10} {:>10}  {:<28} {ratio:>6.2} {:>6.2} {verdict}",
            it.operation,
            milliseconds(it.duration),
            milliseconds(it.reference),
            it.reference_name,
            it.ratio_max
        );
    }
}

/// Formats a duration in milliseconds.
pub fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

/// Prints whether a value is at most its goal.
pub fn print_at_most(name: &str, value: f64, goal: f64, unit: &str) {
    let verdict = if value <= goal { "pass" } else { "FAIL" };
    println!("{verdict}  {name}: {value:.2}{unit} (goal: at most {goal}{unit})");
}

/// Prints whether a value is at least its goal.
pub fn print_at_least(name: &str, value: f64, goal: f64, unit: &str) {
    let verdict = if value >= goal { "pass" } else { "FAIL" };
    println!("{verdict}  {name}: {value:.2}{unit} (goal: at least {goal}{unit})");
}

/// Prints the title of a part of the output.
pub fn print_title(text: &str) {
    println!("== {text} ==");
}
