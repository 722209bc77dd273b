//! Parsers of untrusted input, each with mutations of valid inputs: none panics, runs without end,
//! or takes more memory than its limit.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails at the first error, and prints its measurements"
)]

mod api;
mod files;
mod harness;
mod packets;
mod pr;
mod results;
mod streams;

/// The inputs of each parser in a usual run.
const SAMPLE: u64 = 2_000;
/// The inputs of each parser in a long run.
const ALL: u64 = 1_000_000;

/// Declares the tests of parsers: a sample, and a long run.
macro_rules! no_input_does_harm {
    ($($room:ident: $($parser:ident),+;)+) => {
        mod sample {
            $($(#[test] fn $parser() { crate::$room::$parser().run(crate::SAMPLE); })+)+
        }
        mod long {
            $($(#[test] fn $parser() { crate::$room::$parser().run(crate::ALL); })+)+
        }
    };
}

no_input_does_harm! {
    api: build_requests, schedules, small_bodies, list_queries;
    files: build2_manifests, machine_manifests, provenance, task_manifests, package_lists, breakpoints,
        checkpoint_texts, content_manifests, logs;
    packets: tftp_packets, dhcp_packets, dns_packets, control_port;
    pr: json_messages, json_replies, xmlrpc_calls, inc_files, values_and_targets, connections;
    results: result_manifests, compressed_results, upload_archives;
    streams: streams_from_files, streams_from_pipes;
}
