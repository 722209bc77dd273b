//! The JSON protocol, byte for byte, as tables of requests and replies.

use super::harness::{GREETING, Server, wait_until};

/// A name, the bytes that the client sends, and the bytes that the server replies.
type Exchange = (&'static str, &'static str, &'static str);

const BUSYBOX: &str = r#""version": "busybox-1.36.1-r0", "pkgarch": "core2-64""#;

/// Exchanges after the greeting: each on a new connection, all on one database, in this order. `BB`
/// stands for [`BUSYBOX`].
const REQUESTS: &[Exchange] = &[
    ("ping", "{\"ping\": {}}\n", "{\"alive\": true}\n"),
    (
        "ping with a number that only Python accepts",
        "{\"ping\": NaN}\n",
        "{\"alive\": true}\n",
    ),
    (
        "ping with null",
        "{\"ping\": null}\n",
        "{\"alive\": true}\n",
    ),
    (
        "is-readonly",
        "{\"is-readonly\": {}}\n",
        "{\"readonly\": false}\n",
    ),
    (
        "an unknown package",
        "{\"test-package\": {BB}}\n",
        "{\"value\": false}\n",
    ),
    (
        "no greatest value yet",
        "{\"max-package-pr\": {BB}}\n",
        "{\"value\": null}\n",
    ),
    (
        "no value yet",
        "{\"test-pr\": {BB, \"checksum\": \"00\", \"history\": false}}\n",
        "{\"value\": null}\n",
    ),
    (
        "the first value",
        "{\"get-pr\": {BB, \"checksum\": \"00\", \"history\": false}}\n",
        "{\"value\": \"0\"}\n",
    ),
    (
        "the same again",
        "{\"get-pr\": {BB, \"checksum\": \"00\", \"history\": false}}\n",
        "{\"value\": \"0\"}\n",
    ),
    (
        "a client of BitBake 2.8",
        "{\"get-pr\": {BB, \"checksum\": \"01\"}}\n",
        "{\"value\": \"1\"}\n",
    ),
    (
        "its test-pr",
        "{\"test-pr\": {BB, \"checksum\": \"01\"}}\n",
        "{\"value\": \"1\"}\n",
    ),
    (
        "history is null",
        "{\"get-pr\": {BB, \"checksum\": \"01\", \"history\": null}}\n",
        "{\"value\": \"1\"}\n",
    ),
    (
        "the first checksum returns",
        "{\"get-pr\": {BB, \"checksum\": \"00\", \"history\": false}}\n",
        "{\"value\": \"2\"}\n",
    ),
    (
        "with history",
        "{\"get-pr\": {BB, \"checksum\": \"00\", \"history\": true}}\n",
        "{\"value\": \"0\"}\n",
    ),
    (
        "its largest value",
        "{\"test-pr\": {BB, \"checksum\": \"00\", \"history\": false}}\n",
        "{\"value\": \"2\"}\n",
    ),
    (
        "its smallest value",
        "{\"test-pr\": {BB, \"checksum\": \"00\", \"history\": \"x\"}}\n",
        "{\"value\": \"0\"}\n",
    ),
    (
        "the greatest value",
        "{\"max-package-pr\": {BB}}\n",
        "{\"value\": \"2\"}\n",
    ),
    (
        "a known package",
        "{\"test-package\": {BB}}\n",
        "{\"value\": true}\n",
    ),
    (
        "import an integer",
        "{\"import-one\": {BB, \"checksum\": \"03\", \"value\": 8}}\n",
        "{\"value\": 8}\n",
    ),
    (
        "import a text",
        "{\"import-one\": {BB, \"checksum\": \"04\", \"value\": \"8.1\"}}\n",
        "{\"value\": \"8.1\"}\n",
    ),
    (
        "import with leading zeros",
        "{\"import-one\": {BB, \"checksum\": \"05\", \"value\": \"007\"}}\n",
        "{\"value\": \"007\"}\n",
    ),
    (
        "import null",
        "{\"import-one\": {BB, \"checksum\": \"05\", \"value\": null}}\n",
        "null\n",
    ),
    (
        "import a smaller value",
        "{\"import-one\": {BB, \"checksum\": \"06\", \"value\": 3}}\n",
        "{\"value\": 3}\n",
    ),
    (
        "export with columns",
        "{\"export\": {BB, \"checksum\": null, \"colinfo\": true, \"history\": false}}\n",
        "{\"metainfo\": {\"tbl_name\": \"PRMAIN\", \"core_ver\": \"2.19.0\", \"col_info\": [\
         {\"name\": \"version\", \"type\": \"TEXT\", \"notnull\": 1, \"dflt_value\": null, \"pk\": 1}, \
         {\"name\": \"pkgarch\", \"type\": \"TEXT\", \"notnull\": 1, \"dflt_value\": null, \"pk\": 2}, \
         {\"name\": \"checksum\", \"type\": \"TEXT\", \"notnull\": 1, \"dflt_value\": null, \"pk\": 3}, \
         {\"name\": \"value\", \"type\": \"TEXT\", \"notnull\": 0, \"dflt_value\": null, \"pk\": 4}]}, \
         \"datainfo\": [{BB, \"checksum\": \"04\", \"value\": \"8.1\"}]}\n",
    ),
    (
        "export nothing",
        "{\"export\": {\"version\": \"nope\", \"pkgarch\": null, \"checksum\": null, \"colinfo\": false, \"history\": false}}\n",
        "{\"metainfo\": {}, \"datainfo\": []}\n",
    ),
    (
        "export the history of one checksum",
        "{\"export\": {\"version\": \"\", \"pkgarch\": \"core2-64\", \"checksum\": \"00\", \"colinfo\": false, \"history\": true}}\n",
        "{\"metainfo\": {}, \"datainfo\": [{BB, \"checksum\": \"00\", \"value\": \"0\"}, {BB, \"checksum\": \"00\", \"value\": \"2\"}]}\n",
    ),
    (
        "a number for a version",
        "{\"get-pr\": {\"version\": 12, \"pkgarch\": \"a\", \"checksum\": \"c\"}}\n",
        "{\"value\": \"0\"}\n",
    ),
    (
        "the number is stored as text",
        "{\"test-pr\": {\"version\": \"12\", \"pkgarch\": \"a\", \"checksum\": \"c\"}}\n",
        "{\"value\": \"0\"}\n",
    ),
    (
        "duplicate members",
        "{\"ping\": {}, \"is-readonly\": {}, \"ping\": {}}\n",
        "{\"alive\": true}\n",
    ),
    (
        "pipelined",
        "{\"ping\": {}}\n{\"is-readonly\": {}}\n{\"ping\": {}}\n",
        "{\"alive\": true}\n{\"readonly\": false}\n{\"alive\": true}\n",
    ),
    (
        "surrounding spaces",
        "  {\"ping\": {}}  \r\n",
        "{\"alive\": true}\n",
    ),
    (
        "chunked",
        "{\"chunk-stream\": null}\n{\"pi\nng\": {}}\n\n",
        "{\"alive\": true}\n",
    ),
    (
        "a closing null",
        "{\"ping\": {}}\nnull\n{\"ping\": {}}\n",
        "{\"alive\": true}\n",
    ),
];

/// Invalid requests and the reasons in the log. Each closes the connection without a reply.
const INVALID_REQUESTS: &[(&str, &str)] = &[
    ("{\"quit\": {}}\n", "no known request"),
    ("{}\n", "no known request"),
    ("[]\n", "no known request"),
    ("\"ping\"\n", "no known request"),
    ("7\n", "no known request"),
    ("false\n", "no known request"),
    ("\n", "not JSON"),
    ("{\"ping\": \n", "not JSON"),
    (
        "{\"get-pr\": {\"version\": \"v\", \"pkgarch\": \"a\"}}\n",
        "lacks `checksum`",
    ),
    ("{\"get-pr\": null}\n", "lacks `version`"),
    (
        "{\"get-pr\": {\"version\": null, \"pkgarch\": \"a\", \"checksum\": \"c\"}}\n",
        "`version` of a request has a wrong type",
    ),
    (
        "{\"get-pr\": {\"version\": [], \"pkgarch\": \"a\", \"checksum\": \"c\"}}\n",
        "`version` of a request has a wrong type",
    ),
    (
        "{\"import-one\": {\"version\": \"v\", \"pkgarch\": \"a\", \"checksum\": \"c\", \"value\": \"abc\"}}\n",
        "cannot be imported",
    ),
    ("{\"ping\": {}}", "ended within a message"),
    (
        "{\"chunk-stream\": null}\n{\"ping\"",
        "ended within a message",
    ),
];

/// Greetings and the bytes that the server replies if a ping follows.
const GREETINGS: &[Exchange] = &[
    ("of current clients", GREETING, "{\"alive\": true}\n"),
    (
        "that requests headers",
        "PRSERVICE 1.0\nneeds-headers: true\n\n",
        "\n{\"alive\": true}\n",
    ),
    (
        "with other cases and spaces",
        "PRSERVICE 01.00\r\nNeeds-Headers:true\r\n\r\n",
        "\n{\"alive\": true}\n",
    ),
    (
        "with an upper-case value",
        "PRSERVICE 1.0\nneeds-headers: TRUE\n\n",
        "{\"alive\": true}\n",
    ),
    (
        "without headers",
        "PRSERVICE 1.0\n\n",
        "{\"alive\": true}\n",
    ),
    ("another version", "PRSERVICE 1.1\n\n", ""),
    ("a short version", "PRSERVICE 1\n\n", ""),
    ("another service", "OEHASHEQUIV 1.0\n\n", ""),
    ("one word", "PRSERVICE\n\n", ""),
    ("an empty line", "\n", ""),
    (
        "a header without a colon",
        "PRSERVICE 1.0\nneeds-headers\n\n",
        "",
    ),
];

#[test]
fn every_request_is_answered_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    for (name, request, reply) in REQUESTS {
        let request = format!("{GREETING}{}", request.replace("BB", BUSYBOX));
        let answer = server.exchange(request.as_bytes());
        assert_eq!(
            String::from_utf8_lossy(&answer),
            reply.replace("BB", BUSYBOX),
            "{name}"
        );
    }
}

#[test]
fn an_invalid_request_closes_the_connection_and_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    for (request, reason) in INVALID_REQUESTS {
        let before = server.log().len();
        assert_eq!(
            server.exchange(format!("{GREETING}{request}").as_bytes()),
            b"",
            "{request}"
        );
        wait_until(&format!("the log contains {reason:?}"), || {
            server.log()[before..].contains(reason)
        });
    }
    let received = server.exchange(format!("{GREETING}{{\"ping\": {{}}}}\nnonsense\n").as_bytes());
    assert_eq!(
        received, b"{\"alive\": true}\n",
        "earlier requests are answered"
    );
}

#[test]
fn greetings_are_accepted_as_bitbake_does() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    for (name, greeting, reply) in GREETINGS {
        let answer = server.exchange(format!("{greeting}{{\"ping\": {{}}}}\n").as_bytes());
        assert_eq!(String::from_utf8_lossy(&answer), *reply, "{name}");
    }
}

#[test]
fn invalid_utf8_and_too_long_lines_close_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let mut garbage = GREETING.as_bytes().to_vec();
    garbage.extend_from_slice(b"{\"ping\": \"\xff\"}\n");
    assert_eq!(server.exchange(&garbage), b"");
    let line = |length: usize| {
        let padding = " ".repeat(length - 13);
        server.exchange(format!("{GREETING}{{\"ping\": {{}}}}{padding}\n").as_bytes())
    };
    assert_eq!(line(65536), b"{\"alive\": true}\n");
    assert_eq!(line(70000), b"");
}

#[test]
fn a_long_export_is_sent_in_chunks_of_32767_characters() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let mut client = server.client();
    for number in 0..500 {
        client
            .get("long-1.0-r0", &format!("{number:064x}"))
            .unwrap();
    }
    let export = r#"{"export": {"version": null, "pkgarch": null, "checksum": null, "colinfo": false, "history": true}}"#;
    let received =
        String::from_utf8(server.exchange(format!("{GREETING}{export}\n").as_bytes())).unwrap();
    let lines: Vec<&str> = received.lines().collect();
    assert_eq!(lines[0], "{\"chunk-stream\": null}");
    assert_eq!(lines[1].len(), 32767);
    assert_eq!(*lines.last().unwrap(), "");
    assert_eq!(client.rows().len(), 500);
}
