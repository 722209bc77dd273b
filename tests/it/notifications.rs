//! Notifications by a webhook whose server misbehaves.

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use agent::triggers::problems;
use config::builds::State;
use config::task::Outcome;
use jiff::Timestamp;
use serde_json::{Value, json};
use tests::api_host::ApiHost;
use tests::webhooks::{HangingWebhook, Received, read};

use super::openapi::check;

/// The time limit for a request of the agent.
const LIMIT: Duration = Duration::from_mins(2);

/// Serves requests with these answers, one connection for each; an empty one is lost.
fn serve(answers: &'static [&'static str]) -> (String, Receiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, received) = channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let request = read(&stream);
            if !answer.is_empty() {
                let text =
                    format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                (&stream).write_all(text.as_bytes()).unwrap();
            }
            drop(stream);
            let _ = sender.send(request);
        }
    });
    (url, received)
}

fn end_build(host: &ApiHost, outcome: Outcome) {
    let records = &host.host.records;
    let request = serde_json::from_str(r#"{"machine": "linux", "sources": []}"#).unwrap();
    let (toolchain, root) = ("default".parse().unwrap(), "root".parse().unwrap());
    let now = Timestamp::now();
    let submitted = records.submit(request, toolchain, root, now);
    let mut build = host.block_on(submitted).unwrap();
    build.enter(State::Starting, now).unwrap();
    build.enter(State::Finished, now).unwrap();
    build.outcome = Some(outcome);
    build.finished = Some(now);
    host.block_on(records.save(&mut build)).unwrap();
}

fn state(host: &ApiHost) -> Value {
    let answer = host.remote("GET", "/api/v1/notify").bearer_auth("a");
    check("GET", "/api/v1/notify", answer.send().unwrap())[0].clone()
}

fn host(url: &str, more: &str) -> ApiHost {
    let host = ApiHost::new(&format!(
        "[[notify]]\nname = \"chat\"\nwebhook = \"{url}\"\n{more}"
    ));
    host.allow(&[("admin", "a")]);
    host
}

#[test]
fn a_change_arrives_although_answers_are_lost_and_the_server_fails() {
    let key = tempfile::NamedTempFile::new().unwrap();
    tests::write_file(key.path(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
    let (url, received) = serve(&["", "503 Busy", "204 Fine", "200 OK"]);
    let secret = format!("secret = {:?}\n", key.path());
    let host = host(&url, &secret);
    end_build(&host, Outcome::Success);
    end_build(&host, Outcome::Error);
    end_build(&host, Outcome::Error);
    end_build(&host, Outcome::Success);
    assert_eq!(state(&host)["waiting"], 2);
    let guard = host.runtime.enter();
    agent::triggers::notifications::run(&host.host);
    drop(guard);
    let next = || received.recv_timeout(LIMIT).unwrap();
    let (lost, failed, arrived, fixed) = (next(), next(), next(), next());
    assert_eq!(lost.id, failed.id);
    assert_eq!(lost.id, arrived.id);
    assert_ne!(lost.id, fixed.id);
    assert!(arrived.signature.unwrap().starts_with("v1,"));
    assert_eq!(arrived.body["type"], "build.failed");
    assert_eq!(arrived.body["data"]["build"]["id"], 2);
    assert_eq!(fixed.body["type"], "build.fixed");
    assert_eq!(fixed.body["data"]["before"]["build"], 2);
    tests::wait_until("both are recorded as delivered", || {
        state(&host)["waiting"] == 0
    });
    let state = state(&host);
    assert_eq!(
        (&state["failure"], &state["given_up"]),
        (&json!(""), &json!(0))
    );
    assert!(state["delivered"].is_string(), "{state}");
}

#[test]
fn a_test_tells_the_answer_and_follows_no_redirection() {
    let (url, received) = serve(&["200 OK", "302 Found\r\nLocation: http://127.0.0.1:1/"]);
    let host = host(&url, "");
    let test = |name: &str| {
        let path = format!("/api/v1/notify/{name}/test");
        let request = host.remote("POST", &path).bearer_auth("a");
        check(
            "POST",
            "/api/v1/notify/{name}/test",
            request.send().unwrap(),
        )
    };
    let answer = test("chat");
    assert_eq!(answer["delivered"], true, "{answer}");
    let request = received.recv_timeout(LIMIT).unwrap();
    assert_eq!(
        (&request.body["type"], request.signature),
        (&json!("test"), None)
    );
    let answer = test("chat");
    assert_eq!(answer["delivered"], false);
    let refusal = answer["answer"].as_str().unwrap();
    assert!(refusal.contains("redirection"), "{refusal}");
    assert_eq!(state(&host)["waiting"], 0);
    assert_eq!(test("other")["status"], 404);
}

#[test]
fn a_recipient_that_hangs_delays_neither_builds_nor_other_recipients() {
    let hanging = HangingWebhook::start();
    let (url, received) = serve(&["200 OK"; 5]);
    let more = format!(
        "on = \"always\"\nrequest_seconds_max = 600\n[[notify]]\nname = \"other\"\nwebhook = \"{url}\"\non = \"always\"\n"
    );
    let host = host(hanging.url(), &more);
    let guard = host.runtime.enter();
    agent::triggers::notifications::run(&host.host);
    drop(guard);
    end_build(&host, Outcome::Success);
    let id = hanging.next_id();
    for _ in 0..4 {
        // The end of a build waits for no recipient: the request before it is still open.
        end_build(&host, Outcome::Success);
    }
    let ids: Vec<_> = (0..5)
        .map(|_| received.recv_timeout(LIMIT).unwrap().id)
        .collect();
    assert_eq!(
        ids.iter().collect::<std::collections::BTreeSet<_>>().len(),
        5
    );
    assert_eq!(
        state(&host)["waiting"],
        5,
        "the first rule waits for its recipient"
    );
    hanging.answer();
    tests::wait_until("all are delivered", || state(&host)["waiting"] == 0);
    let rest: Vec<_> = (0..4).map(|_| hanging.next_id()).collect();
    assert!(!rest.contains(&id), "the first one was accepted");
}

/// A pace at which an absence is certain after a few looks.
const PACE: problems::Pace = problems::Pace {
    look: Duration::from_millis(20),
    begin: Duration::ZERO,
    end: Duration::from_millis(200),
};

/// Watches a host for problems, as an agent does that has made its directories.
fn watch_problems(host: &ApiHost) {
    std::fs::create_dir_all(host.path("run/guests")).unwrap();
    problems::run(&host.host, PACE);
}

/// Returns a host with a controller that is never asked, and a rule about problems alone.
fn host_with_controller(url: &str) -> ApiHost {
    let controller = "[[controllers]]\nname = \"ci\"\nurl = \"http://localhost/\"\ntoolchain_version = \"1.0\"\n";
    let more = format!("on = \"never\"\nproblems = [\"controller-*\"]\n{controller}");
    host(url, &more)
}

#[test]
fn the_begin_and_the_end_of_a_problem_are_told_once_each() {
    let (url, received) = serve(&["200 OK", "503 Busy", "200 OK", "200 OK"]);
    let host = host_with_controller(&url);
    let name = "ci".parse().unwrap();
    let (long_ago, contacts) = (Timestamp::UNIX_EPOCH, &host.host.contacts);
    contacts.failed(&name, "no route", long_ago);
    let guard = host.runtime.enter();
    agent::triggers::notifications::run(&host.host);
    watch_problems(&host);
    drop(guard);
    let next = || received.recv_timeout(LIMIT).unwrap();
    let began = next();
    assert_eq!(began.body["type"], "problem.began");
    let problem = &began.body["data"]["problem"];
    assert_eq!(problem["id"], "controller-unreachable");
    assert_eq!(problem["subject"], "controller ci");
    assert!(problem["proof"].as_str().unwrap().ends_with(": no route"));
    assert_eq!(began.body["data"]["host"], "buildhost");
    end_build(&host, Outcome::Error);
    contacts.answered(&name, Timestamp::now());
    let (failed, ended) = (next(), next());
    assert_eq!(ended.body["type"], "problem.ended");
    assert_eq!((&failed.id, &failed.body), (&ended.id, &ended.body));
    contacts.failed(&name, "no route again", long_ago);
    let again = next();
    assert_eq!(again.body["type"], "problem.began");
    tests::wait_until("nothing waits", || state(&host)["waiting"] == 0);
    let state = state(&host);
    assert_eq!(
        (&state["on"], &state["given_up"]),
        (&json!("never"), &json!(0))
    );
    assert_eq!(state["problems"], json!(["controller-*"]));
}

#[test]
fn a_full_disk_is_told() {
    let (url, received) = serve(&["200 OK"; 2]);
    let host = ApiHost::new(&format!(
        "paths.reserve_mib = 1073741824\n[[notify]]\nname = \"chat\"\nwebhook = \"{url}\"\n\
         on = \"never\"\nproblems = [\"low-space\"]\n"
    ));
    let guard = host.runtime.enter();
    agent::triggers::notifications::run(&host.host);
    watch_problems(&host);
    drop(guard);
    let told = [(); 2].map(|()| received.recv_timeout(LIMIT).unwrap());
    let subjects = told.map(|it| {
        let problem = &it.body["data"]["problem"];
        assert_eq!(problem["id"], "low-space", "{problem}");
        problem["subject"].as_str().unwrap().to_owned()
    });
    for place in ["state", "volume"] {
        let path = host.path(place).canonicalize().unwrap();
        assert!(
            subjects.contains(&path.display().to_string()),
            "{subjects:?}"
        );
    }
}
