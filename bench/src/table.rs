//! The tables that the measurements print.

use std::time::Duration;

use crate::statistics::Cost;

/// A comparison of an operation with a reference that does the same.
#[derive(Debug)]
pub struct Comparison {
    /// The operation.
    pub operation: &'static str,
    /// The cost of the operation.
    pub cost: Cost,
    /// The cost of the reference.
    pub reference: Cost,
    /// The name of the reference.
    pub reference_name: &'static str,
    /// The greatest ratio of both durations, and of both times on processors, that passes.
    pub ratio_max: f64,
}

/// Prints comparisons as a table, with two lines for each.
pub fn print_comparisons(comparisons: &[Comparison]) {
    println!(
        "{:<28} {:<4} {:>12} {:>12}  {:<38} {:>6} {:>6}",
        "OPERATION", "", "BUILDHOST", "REFERENCE", "BY", "RATIO", "GOAL"
    );
    for it in comparisons {
        for (kind, ours, reference) in [
            ("wall", it.cost.wall, it.reference.wall),
            ("cpu", it.cost.cpu, it.reference.cpu),
        ] {
            let ratio = ours.as_secs_f64() / reference.as_secs_f64();
            let verdict = if ratio <= it.ratio_max {
                "pass"
            } else {
                "FAIL"
            };
            println!(
                "{:<28} {kind:<4} {:>12} {:>12}  {:<38} {ratio:>6.2} {:>6.2} {verdict}",
                it.operation,
                milliseconds(ours),
                milliseconds(reference),
                it.reference_name,
                it.ratio_max
            );
        }
    }
}

/// Prints the cost of an operation without a reference.
pub fn print_cost(operation: &str, cost: Cost, wall_max: Duration) {
    let verdict = if cost.wall <= wall_max {
        "pass"
    } else {
        "FAIL"
    };
    println!(
        "{operation}: {}, cpu {} (goal: at most {}) {verdict}",
        milliseconds(cost.wall),
        milliseconds(cost.cpu),
        milliseconds(wall_max)
    );
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
