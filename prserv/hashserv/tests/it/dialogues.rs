//! Dialogues of the protocol, byte for byte.

use super::harness::{GREETING, Server, database, hash};

const A: &str = "a69ec97f5af2e21e1a1f9cc8896965515d5559425666f734e245a3d40cee33d9";
const B: &str = "bf6e81926066f770e960f9f777cd088c62bea9addb7745f3e77deaa81a645747";

fn server() -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(database(&directory));
    (directory, server)
}

fn report(task: &str, outhash: &str, unihash: &str) -> String {
    format!(
        r#"{{"report": {{"taskhash": "{task}", "method": "m", "outhash": "{outhash}", "unihash": "{unihash}"}}}}"#
    )
}

#[test]
fn reports_and_look_ups_are_answered_as_bitbakes_server_does() {
    let (_directory, server) = server();
    let lines = [
        r#"{"ping": {}}"#,
        r#"{"get": {"taskhash": "t1", "method": "m", "all": false}}"#,
        &report("t1", "o1", A),
        &report("t2", "o1", B),
        &report("t2", "o2", B),
        r#"{"get": {"taskhash": "t2", "method": "m", "all": false}}"#,
        r#"{"report-equiv": {"taskhash": "t3", "method": "m", "unihash": "B"}}"#,
    ];
    let replies = server.dialogue(&format!(
        "{}\n",
        lines.join("\n").replace("\"B\"", &format!("\"{B}\""))
    ));
    let unihash = |task: &str, unihash: &str| {
        format!(r#"{{"taskhash": "{task}", "method": "m", "unihash": "{unihash}"}}"#)
    };
    let expected = [
        r#"{"alive": true}"#.to_owned(),
        "null".to_owned(),
        unihash("t1", A),
        unihash("t2", A),
        unihash("t2", A),
        unihash("t2", A),
        unihash("t3", B),
    ];
    assert_eq!(replies, expected);
}

#[test]
fn a_report_is_returned_with_all_of_its_members() {
    let (_directory, server) = server();
    let members = format!(
        r#"{{"report": {{"taskhash": "t", "method": "m", "outhash": "o", "unihash": "{A}", "owner": "me", "PN": "busybox", "PV": "1.36", "PR": "r0", "task": "do_compile", "outhash_siginfo": "é", "x": 1}}}}"#
    );
    let lines = [
        &members,
        r#"{"get": {"taskhash": "t", "method": "m", "all": true}}"#,
        r#"{"get-outhash": {"outhash": "o", "taskhash": "x", "method": "m", "with_unihash": false}}"#,
        r#"{"get-outhash": {"outhash": "none", "taskhash": "x", "method": "m"}}"#,
    ];
    let replies = server.dialogue(&format!("{}\n", lines.join("\n")));
    let row = r#"{"id": 1, "method": "m", "taskhash": "t", "outhash": "o", "created": "TIME", "owner": "me", "PN": "busybox", "PV": "1.36", "PR": "r0", "task": "do_compile", "outhash_siginfo": "\u00e9""#;
    let without_time = |reply: &str| {
        let (start, rest) = reply.split_once("\"created\": \"").unwrap();
        let (time, end) = rest.split_once('"').unwrap();
        assert_eq!(
            time.len(),
            "2026-11-30T00:00:00.000000+00:00".len(),
            "{time}"
        );
        format!("{start}\"created\": \"TIME\"{end}")
    };
    assert_eq!(
        without_time(&replies[1]),
        format!(r#"{row}, "unihash": "{A}", "gc_mark": ""}}"#)
    );
    assert_eq!(without_time(&replies[2]), format!("{row}}}"));
    assert_eq!(replies[3], "null");
}

#[test]
fn streams_are_lines_without_json_until_their_end() {
    let (_directory, server) = server();
    let lines = [
        &report("t1", "o1", A),
        r#"{"get-stream": null}"#,
        "m t1",
        "m t2",
        "m t1",
        "END",
        r#"{"exists-stream": null}"#,
        A,
        B,
        "",
        r#"{"gc-mark-stream": null}"#,
        &format!(r#"{{"mark": "X", "where": {{"unihash": "{A}"}}}}"#),
        r#"{"mark": "X", "where": {"unihash": "none"}}"#,
        "END",
        r#"{"gc-status": {}}"#,
    ];
    let replies = server.dialogue(&format!("{}\n", lines.join("\n")));
    let expected = [
        "\"ok\"",
        A,
        "",
        A,
        "ok",
        "\"ok\"",
        "true",
        "false",
        "ok",
        "\"ok\"",
        r#"{"count": 1}"#,
        r#"{"count": 0}"#,
        "ok",
        r#"{"keep": 1, "remove": 0, "mark": "X"}"#,
    ];
    assert_eq!(replies[1..], expected);
}

#[test]
fn many_pipelined_lines_are_answered_in_order() {
    let (_directory, server) = server();
    let reports: Vec<_> = (0..300)
        .map(|n| report(&hash(n), &hash(n), &hash(n)))
        .collect();
    let queries: Vec<_> = (0..5000).map(|n| format!("m {}", hash(n % 600))).collect();
    let lines = format!(
        "{}\n{{\"get-stream\": null}}\n{}\nEND\n",
        reports.join("\n"),
        queries.join("\n")
    );
    let replies = server.dialogue(&lines);
    assert_eq!(replies.len(), 300 + 1 + 5000 + 1);
    for (number, reply) in (0..5000).zip(&replies[301..]) {
        let known = number % 600;
        let expected = if known < 300 {
            hash(known)
        } else {
            String::new()
        };
        assert_eq!(*reply, expected, "{number}");
    }
}

#[test]
fn a_violation_is_told_and_ends_the_connection() {
    let (_directory, server) = server();
    let ping = r#"{"ping": {}}"#;
    for (line, message) in [
        (report("t", "o", "x").as_str(), "Invalid unihash"),
        (
            r#"{"nothing": {}}"#,
            "the message contains no known request",
        ),
        (
            r#"{"get": {"method": "m"}}"#,
            "the request lacks `taskhash`",
        ),
        (
            r#"{"gc-sweep": {"mark": "X"}}"#,
            "'X' is not the current mark. Refusing to sweep",
        ),
        (
            r#"{"remove": {"where": {"created": "x"}}}"#,
            "there is no column `created`; see get-db-query-columns",
        ),
        (
            r#"{"gc-mark": {"mark": "X", "where": {"PN": "x"}}}"#,
            "a mark selects by method, taskhash, unihash and gc_mark only",
        ),
    ] {
        let replies = server.dialogue(&format!("{line}\n{ping}\n"));
        let refusal = format!(r#"{{"invoke-error": {{"message": "{message}"}}}}"#);
        assert_eq!(replies, [refusal]);
    }
    let replies = server.dialogue(&format!(
        "{{\"get-stream\": null}}\nm t\nwrong\nm t\n{ping}\n"
    ));
    assert_eq!(replies[..2], ["\"ok\"", ""]);
    assert!(replies[2].contains("a line of get-stream"), "{replies:?}");
    assert_eq!(replies.len(), 3);
}

#[test]
fn other_greetings_are_closed_without_a_word() {
    let (_directory, server) = server();
    for greeting in ["OEHASHEQUIV 1.0\n\n", "PRSERVICE 1.0\n\n", "\n", "x\n"] {
        let received = server.exchange(format!("{greeting}{{\"ping\": {{}}}}\n").as_bytes());
        assert_eq!(received, "", "{greeting}");
    }
    let headers = GREETING.replace("false", "true");
    let received = server.exchange(format!("{headers}{{\"ping\": {{}}}}\n").as_bytes());
    assert_eq!(received, "\n{\"alive\": true}\n");
}

#[test]
fn long_messages_are_chunked_in_both_directions() {
    let (_directory, server) = server();
    let siginfo = "0".repeat(150_000);
    let message =
        report("t", "o", A).replace("}}", &format!(r#", "outhash_siginfo": "{siginfo}"}}}}"#));
    let chunks: Vec<&str> = message
        .as_bytes()
        .chunks(32767)
        .map(|chunk| std::str::from_utf8(chunk).unwrap())
        .collect();
    let get = r#"{"get-outhash": {"outhash": "o", "taskhash": "t", "method": "m"}}"#;
    let lines = format!(
        "{{\"chunk-stream\": null}}\n{}\n\n{get}\n",
        chunks.join("\n")
    );
    let replies = server.dialogue(&lines);
    assert_eq!(replies[1], r#"{"chunk-stream": null}"#);
    let text = replies[2..].concat();
    let reply: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(reply["outhash_siginfo"], siginfo);
    assert_eq!(replies[2].len(), 32767);
}

#[test]
fn statistics_count_requests_and_lines() {
    let (_directory, server) = server();
    server.dialogue("{\"get-stream\": null}\nm a\nm b\nEND\n{\"ping\": {}}\n");
    let replies =
        server.dialogue("{\"reset-stats\": null}\n{\"get-stats\": null}\n{\"get-db-usage\": {}}\n");
    assert!(
        replies[0].starts_with(r#"{"requests": {"num": 3, "total_time": "#),
        "{replies:?}"
    );
    assert!(
        replies[1].starts_with(r#"{"requests": {"num": 1, "#),
        "{replies:?}"
    );
    for table in ["unihashes_v3", "outhashes_v2", "users", "config"] {
        assert!(
            replies[2].contains(&format!(r#""{table}": {{"rows": 0}}"#)),
            "{replies:?}"
        );
    }
}
