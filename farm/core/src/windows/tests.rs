use super::*;

fn zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn weekly(days: &[Day], from: &str, until: &str) -> Weekly {
    Weekly {
        days: days.to_vec(),
        from: from.parse().unwrap(),
        until: until.parse().unwrap(),
        zone: "Europe/Berlin".to_owned(),
    }
}

fn shown(occurrence: Occurrence) -> (String, String) {
    let text = |it: u64| {
        let at = Timestamp::from_millisecond(it.cast_signed()).unwrap();
        at.to_string()
    };
    (text(occurrence.opens_ms), text(occurrence.closes_ms))
}

#[track_caller]
fn check(weekly: &Weekly, now: &str, from: &str, until: &str) {
    let found = shown(next(weekly, at(now), zone).unwrap());
    assert_eq!(found, (from.to_owned(), until.to_owned()));
}

#[test]
fn a_weekly_window_is_the_present_or_the_next_one_in_its_zone() {
    let sunday = weekly(&[Day::Sun], "02:00", "04:00");
    let first = ("2026-12-06T01:00:00Z", "2026-12-06T03:00:00Z");
    check(&sunday, "2026-12-01T12:00:00Z", first.0, first.1);
    check(&sunday, "2026-12-06T02:59:59Z", first.0, first.1);
    let second = ("2026-12-13T01:00:00Z", "2026-12-13T03:00:00Z");
    check(&sunday, "2026-12-06T03:00:00Z", second.0, second.1);
    // In summer the zone is another hour ahead.
    let summer = ("2026-07-05T00:00:00Z", "2026-07-05T02:00:00Z");
    check(&sunday, "2026-07-01T00:00:00Z", summer.0, summer.1);
    assert_eq!(sunday.to_string(), "sun 02:00–04:00 Europe/Berlin");
}

#[test]
fn a_window_may_end_on_the_next_day_and_has_several_days() {
    let night = weekly(&[Day::Mon, Day::Wed], "23:00", "01:00");
    let monday = ("2026-12-07T22:00:00Z", "2026-12-08T00:00:00Z");
    check(&night, "2026-12-07T23:30:00Z", monday.0, monday.1);
    let wednesday = ("2026-12-09T22:00:00Z", "2026-12-10T00:00:00Z");
    check(&night, "2026-12-08T00:00:00Z", wednesday.0, wednesday.1);
}

#[test]
fn a_window_that_a_clock_change_swallows_comes_a_week_later() {
    let skipped = weekly(&[Day::Sun], "02:00", "03:00");
    // On 2026-03-29 the clocks go from 02:00 to 03:00.
    let next = ("2026-04-05T00:00:00Z", "2026-04-05T01:00:00Z");
    check(&skipped, "2026-03-28T12:00:00Z", next.0, next.1);
}

#[test]
fn requests_that_name_no_time_are_refused() {
    let request = |from: Option<&str>, until: Option<&str>, weekly| {
        let request = WindowRequest {
            from: from.map(at),
            until: until.map(at),
            weekly,
            reason: String::new(),
        };
        window(request, at("2026-12-01T12:00:00Z"), zone).map(|it| shown(it.occurrence))
    };
    let (from, until) = (Some("2026-12-01T13:00:00Z"), Some("2026-12-01T14:00:00Z"));
    assert!(request(from, until, None).is_ok());
    assert!(matches!(
        request(until, from, None),
        Err(WindowError::Empty { .. })
    ));
    let past = request(
        Some("2026-12-01T10:00:00Z"),
        Some("2026-12-01T11:00:00Z"),
        None,
    );
    assert!(matches!(past, Err(WindowError::Past(_))));
    assert_eq!(
        request(from, Some("2027-12-01T14:00:00Z"), None),
        Err(WindowError::Long)
    );
    assert_eq!(request(from, None, None), Err(WindowError::NoDay));
    let none = weekly(&[], "02:00", "03:00");
    assert_eq!(request(None, None, Some(none)), Err(WindowError::NoDay));
    let mars = Weekly {
        zone: "Mars/Olympus".to_owned(),
        ..weekly(&[Day::Sun], "02:00", "03:00")
    };
    assert!(matches!(
        request(None, None, Some(mars)),
        Err(WindowError::Zone(_))
    ));
    assert!("funday".parse::<Day>().is_err() && "Sun".parse() == Ok(Day::Sun));
}

#[test]
fn a_weekly_window_stays_open_until_its_next_occurrence_is_known() {
    let occurrence = Occurrence {
        opens_ms: 100,
        closes_ms: 200,
    };
    let mut window = Window {
        id: WindowId(1),
        occurrence,
        weekly: None,
        reason: String::new(),
    };
    let states = |it: &Window| [99, 100, 199, 200].map(|now| it.is_open(now));
    assert_eq!(states(&window), [false, true, true, false]);
    window.weekly = Some(weekly(&[Day::Sun], "02:00", "04:00"));
    assert_eq!(states(&window), [false, true, true, true]);
    assert_eq!(opens_in_ms([&window], 40), Some(60));
    assert_eq!(opens_in_ms([&window], 100), None);
    assert!(ends_before(Some(60), Some(60)) && !ends_before(Some(60), Some(61)));
    assert!(ends_before(None, None) && !ends_before(Some(UNKNOWN_MS - 1), None));
}
