//! Acknowledged reports survive `kill -9`, and answers never contradict each other.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use super::harness::{Server, database, hash};

/// Reports tasks with shared outhashes until the connection ends. Returns the answers.
fn report_until_killed(server: &Server, worker: u64) -> HashMap<u64, String> {
    let mut answers = HashMap::new();
    let mut client = server.client();
    for number in 0.. {
        let task = worker * 1_000_000 + number;
        match client.report(task, number % 50) {
            Ok(unihash) => answers.insert(task, unihash),
            Err(_) => break,
        };
    }
    answers
}

#[test]
fn acknowledged_reports_survive_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<u64, String> = HashMap::new();
    for round in 0..3 {
        let mut server = Server::start(database(&directory));
        let mut client = server.client();
        for (task, unihash) in &acknowledged {
            assert_eq!(
                client.get(*task).unwrap().as_ref(),
                Some(unihash),
                "round {round}"
            );
        }
        let answers = thread::scope(|scope| {
            let server = &server;
            let workers: Vec<_> = (0..4)
                .map(|worker| scope.spawn(move || report_until_killed(server, round * 4 + worker)))
                .collect();
            thread::sleep(std::time::Duration::from_millis(300));
            server.signal(Signal::SIGKILL);
            let ended = workers.into_iter().map(|worker| worker.join().unwrap());
            ended.collect::<Vec<_>>()
        });
        server.wait();
        acknowledged.extend(answers.into_iter().flatten());
    }
    assert!(acknowledged.len() > 100, "only {}", acknowledged.len());
    // All tasks with an outhash have one unihash: that of the first.
    let mut by_outhash: HashMap<u64, &String> = HashMap::new();
    for (task, unihash) in &acknowledged {
        let first = by_outhash.entry(task % 1_000_000 % 50).or_insert(unihash);
        assert_eq!(first, &unihash, "{task}");
    }
}

#[test]
fn a_look_up_sees_every_report_that_was_acknowledged_before() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(database(&directory));
    let acknowledged: Mutex<Vec<(u64, String)>> = Mutex::default();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        for worker in 0..3 {
            let (server, acknowledged, is_done) = (&server, &acknowledged, &is_done);
            scope.spawn(move || {
                let mut client = server.client();
                for number in 0..300 {
                    let task = number * 3 + worker;
                    // Unknown tasks are looked up first, so that a wrong cache would keep that.
                    let _ = client.get(task).unwrap();
                    let unihash = client.report(task, number % 7).unwrap();
                    acknowledged.lock().unwrap().push((task, unihash));
                }
                is_done.store(true, Ordering::SeqCst);
            });
        }
        scope.spawn(|| {
            let mut client = server.client();
            client.send("{\"get-stream\": null}").unwrap();
            assert_eq!(client.receive().unwrap(), "\"ok\"");
            while !is_done.load(Ordering::SeqCst) {
                let known = acknowledged.lock().unwrap().clone();
                for (task, unihash) in known.iter().rev().take(40) {
                    client.send(&format!("m {}", hash(*task))).unwrap();
                    assert_eq!(&client.receive().unwrap(), unihash);
                }
            }
        });
    });
}

#[test]
fn sigterm_ends_the_server_while_clients_are_connected() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listen = format!("unix://{}", socket.display());
    let mut server = Server::start_with(
        database(&directory),
        &["--listen", &listen, "--listen", "127.0.0.1:0"],
    );
    assert!(socket.exists());
    let stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let mut client = super::harness::Client::new(stream);
    client.report(1, 1).unwrap();
    server.signal(Signal::SIGTERM);
    server.wait();
    assert!(!socket.exists());
}
