//! A sample of simulated farms. `BUILDHOST_LONG=1` runs 400 times as many, with ten million
//! faults, and
//! `BUILDHOST_SEEDS` sets the number.

use std::time::Instant;

use farm_simulation::{Bug, Statistics, replay, run};

/// The most seeds in which each planted bug is found.
const BUG_SEEDS_MAX: u64 = 100_000;

fn seeds(sample: u64) -> u64 {
    let given = std::env::var("BUILDHOST_SEEDS").ok();
    let given = given.and_then(|it| it.parse().ok());
    given.unwrap_or(if std::env::var_os("BUILDHOST_LONG").is_some() {
        400 * sample
    } else {
        sample
    })
}

#[test]
fn the_invariants_hold_in_every_farm() {
    let started = Instant::now();
    let mut sum = Statistics::default();
    let seeds = seeds(300);
    for seed in 0..seeds {
        match run(seed, None) {
            Ok(statistics) => {
                sum.add(&statistics);
            }
            Err(failure) => {
                let trace = replay(seed, None).unwrap_err().trace;
                let tail = trace.len().saturating_sub(200);
                panic!(
                    "seed {seed}: {}\n{}",
                    failure.message,
                    trace[tail..].join("\n")
                );
            }
        }
    }
    println!("{seeds} seeds, {sum:?}, {:?}", started.elapsed());
    assert!(sum.rescued > seeds / 10 && sum.finished > seeds, "{sum:?}");
}

#[test]
fn every_planted_bug_is_found_and_replayed_from_its_seed() {
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let found = (0..seeds(BUG_SEEDS_MAX).min(BUG_SEEDS_MAX))
            .find_map(|seed| run(seed, Some(bug)).err());
        let Some(failure) = found else {
            missed.push(bug);
            continue;
        };
        println!("{bug:?}: seed {}: {}", failure.seed, failure.message);
        let again = replay(failure.seed, Some(bug)).unwrap_err();
        assert_eq!(again.message, failure.message);
        assert!(again.trace.iter().any(|it| it.contains("VIOLATION")));
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn a_seed_always_gives_the_same_run() {
    for seed in 0..20 {
        assert_eq!(run(seed, None), replay(seed, None));
    }
}
