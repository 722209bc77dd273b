//! Faults while a transfer is cut, continued or received in parts. What has arrived is kept whole or
//! not at all, and the next transfer leads to the same revision.

use std::path::Path;

use ::sys::command::prepare;
use tests::hosts::{BuildHost, CommandOutput};
use tests::transfers::{rest, whole};

use super::{FaultTest, Streams, linux};

const RECEIVE: &[&str] = &["receive", "linux"];
/// The exit code of a transfer that was cut.
const BAD_STREAM: i32 = 14;

/// Transfers the rest of revision 2, up to this length of its stream.
fn receive(host: &BuildHost, stream: &[u8]) -> CommandOutput {
    host.machinectl(RECEIVE, &rest(&host.volume, &linux(), stream))
}

/// Creates a test of a transfer of revision 2 from one length of its stream to another.
fn transfer(streams: &Streams, from: usize, to: usize) -> FaultTest {
    let stream = streams.two.clone();
    let begin = move |host: &BuildHost| {
        if from > 0 {
            let cut = receive(host, &stream[..from]);
            assert_eq!(cut.code, Some(BAD_STREAM), "{cut:?}");
        }
    };
    let model = streams.host(1);
    begin(&model);
    let input = rest(&model.volume, &linux(), &streams.two[..to]);
    let is_continued = input.len() < whole(&streams.two[..to]).len();
    assert_eq!(is_continued, from > 0);
    let stream = streams.two.clone();
    FaultTest {
        name: if from > 0 {
            "continued receive"
        } else {
            "receive"
        },
        prepare: Box::new(begin),
        completion: Some(Box::new(move |host| {
            let received = receive(host, &stream);
            host.machinectl(&["verify", "linux"], b"").success();
            received
        })),
        ..FaultTest::new(streams.host(1), RECEIVE, &input)
    }
    .with_separate_parts(&["linux/linux-2"])
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_cut_transfer_recovers_from_faults_at_system_calls() {
    let streams = Streams::with_manifests();
    let test = || transfer(&streams, 0, streams.two.len() / 2);
    test().run_all();
    test().in_child("btrfs").run_all();
}

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_continued_transfer_recovers_from_faults_at_system_calls() {
    let streams = Streams::with_manifests();
    let length = streams.two.len();
    let test = || transfer(&streams, length / 2, length);
    test().run_all();
    test().in_child("btrfs").run_all();
    if tests::is_long_run() {
        // It is cut once more.
        transfer(&streams, length / 3, length / 3 * 2).run_all();
    }
}

/// The program that keeps what has arrived after each command.
const RECEIVE_IN_PARTS: &str = env!("CARGO_BIN_EXE_receive-in-parts");

#[test]
#[ignore = "needs root: real btrfs, QEMU and network namespaces"]
fn a_transfer_in_parts_recovers_from_faults_at_system_calls() {
    let streams = Streams::with_manifests();
    let receive = |host: &BuildHost, program: &Path| {
        let mut command = prepare(program);
        command.arg(host.volume.path()).env("RUST_BACKTRACE", "0");
        command
    };
    let test = FaultTest {
        name: "receive in parts",
        victim: RECEIVE_IN_PARTS.into(),
        call: Box::new(receive),
        ..FaultTest::new(streams.host(1), &["list"], &streams.two)
    };
    test.with_separate_parts(&["linux/linux-2"]).run_all();
}
