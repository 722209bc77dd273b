//! The stream of events: what a client hears, and how one that was away goes on.

use std::io::{BufRead, BufReader, Lines};

use config::BuildId;
use reqwest::blocking::Response;
use tests::api_host::ApiHost;

/// The lines of a stream that begins after an event, or now.
fn listen(host: &ApiHost, last: Option<&str>) -> Lines<BufReader<Response>> {
    let url = "http://agent/api/v1/events";
    let mut request = host.local().get(url);
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let answer = request.send().unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    BufReader::new(answer).lines()
}

/// The next event: its id, what it is, and its data.
fn next(lines: &mut Lines<BufReader<Response>>) -> (String, String, String) {
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
fn a_client_hears_what_changes_and_goes_on_where_it_was() {
    let host = ApiHost::new("");
    let events = host.host.records.events();
    let mut lines = listen(&host, None);
    let (start, hello, _) = next(&mut lines);
    assert_eq!(hello, "hello");
    events.deleted(BuildId(1));
    let (first, kind, data) = next(&mut lines);
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
        let mut lines = listen(&host, Some(last));
        let heard = expected.iter().map(|_| {
            let (_, kind, data) = next(&mut lines);
            let digit = data.trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
            match kind.as_str() {
                "reset" => data.split('"').nth(3).unwrap().to_owned(),
                _ if digit.is_empty() => kind,
                _ => digit,
            }
        });
        for (heard, expected) in heard.collect::<Vec<_>>().iter().zip(expected) {
            assert!(heard.starts_with(expected), "after {last}: {heard}");
        }
    }
}
