use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn build() -> Build {
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let task = "0".repeat(64).parse().unwrap();
    let toolchain = "default".parse().unwrap();
    Build::new(
        BuildId(1),
        request,
        toolchain,
        task,
        Submitter::root(),
        at(0),
    )
}

#[test]
fn startup_measures_the_last_guest() {
    let mut build = build();
    for (second, state) in [
        (1, State::Starting),
        (5, State::Running),
        (6, State::Queued),
        (7, State::Starting),
    ] {
        build.enter(state, at(second)).unwrap();
    }
    assert_eq!(build.startup(), None);
    build.enter(State::Running, at(9)).unwrap();
    assert_eq!(build.startup(), Some((StartKind::Cold, 2.0)));
    build.enter(State::Finished, at(20)).unwrap();
    assert_eq!(build.startup(), Some((StartKind::Cold, 2.0)));
    assert_eq!(build.finished, Some(at(20)));
    assert_eq!(build.phases.len(), 7);
}

#[test]
fn the_number_of_phases_is_bounded() {
    let mut build = build();
    for second in 1..1000 {
        let state = [State::Queued, State::Starting][usize::from(second % 2 == 1)];
        build.enter(state, at(second)).unwrap();
    }
    assert_eq!(build.phases.len(), PHASES_MAX);
    assert_eq!(build.phases[0].at, at(0));
    assert_eq!(build.phases[PHASES_MAX - 1].at, at(999));
}

#[test]
fn submitters_have_no_blanks_or_control_characters() {
    for name in ["root", "token:ci", "uid:1000", "jürgen@example.org"] {
        assert_eq!(name.parse::<Submitter>().unwrap().as_str(), name);
    }
    for name in ["", "a b", "a\nb", &"x".repeat(101)] {
        assert!(name.parse::<Submitter>().is_err(), "{name}");
    }
}
