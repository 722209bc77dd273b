//! The stream of events, and how a client resumes it.

use std::io::{BufRead, BufReader, Lines};

use config::BuildId;
use reqwest::blocking::Response;
use tests::api_host::ApiHost;

/// Opens a stream that starts after an event, or now, and returns its lines.
fn subscribe(host: &ApiHost, last: Option<&str>) -> Lines<BufReader<Response>> {
    let url = "http://agent/api/v1/events";
    let mut request = host.local().get(url);
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let response = request.send().unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    BufReader::new(response).lines()
}

/// Returns the id, the kind and the data of the next event.
fn next_event(lines: &mut Lines<BufReader<Response>>) -> (String, String, String) {
    let mut event = (String::new(), String::new(), String::new());
    for line in lines {
        let line = line.unwrap();
        match line.split_once(": ") {
            Some(("id", id)) => id.clone_into(&mut event.0),
            Some(("event", kind)) => kind.clone_into(&mut event.1),
            Some(("data", data)) => data.clone_into(&mut event.2),
            None if line.is_empty() && !event.1.is_empty() => break,
            _ => {}
        }
    }
    event
}

#[test]
fn a_client_receives_events_and_resumes_after_the_last_one() {
    let host = ApiHost::new("");
    let events = &host.host.telemetry.events;
    let mut lines = subscribe(&host, None);
    let (start, hello, _) = next_event(&mut lines);
    assert_eq!(hello, "hello");
    events.deleted(BuildId(1));
    let (first, kind, data) = next_event(&mut lines);
    assert_eq!((kind.as_str(), data.as_str()), ("deleted", r#"{"id":1}"#));
    drop(lines);
    events.deleted(BuildId(2));
    events.deleted(BuildId(3));
    for (last, expected) in [
        (&start, vec!["hello", "1", "2", "3"]),
        (&first, vec!["hello", "2", "3"]),
        (&"7-7".to_owned(), vec!["the agent was restarted"]),
        (&"nonsense".to_owned(), vec!["there was no such event"]),
    ] {
        let mut lines = subscribe(&host, Some(last));
        let received = expected.iter().map(|_| {
            let (_, kind, data) = next_event(&mut lines);
            let digit = data.trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
            match kind.as_str() {
                "reset" => data.split('"').nth(3).unwrap().to_owned(),
                _ if digit.is_empty() => kind,
                _ => digit,
            }
        });
        for (received, expected) in received.collect::<Vec<_>>().iter().zip(expected) {
            assert!(received.starts_with(expected), "after {last}: {received}");
        }
    }
}
