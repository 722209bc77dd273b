//! The bytes on the wire, as a table: what is said, and everything that is heard until the end.

use super::harness::{HELLO, Server, wait_until};

/// A name, what the client says after its greeting, and what it hears.
type Dialogue = (&'static str, &'static str, &'static str);

const BUSYBOX: &str = r#""version": "busybox-1.36.1-r0", "pkgarch": "core2-64""#;

/// Each on a fresh connection, all on one database, in this order. `BB` is [`BUSYBOX`].
const REQUESTS: &[Dialogue] = &[
    ("ping", "{\"ping\": {}}\n", "{\"alive\": true}\n"),
    (
        "ping takes what only Python knows",
        "{\"ping\": NaN}\n",
        "{\"alive\": true}\n",
    ),
    (
        "ping takes anything",
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
        "no greatest value",
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
        "2.8's client",
        "{\"get-pr\": {BB, \"checksum\": \"01\"}}\n",
        "{\"value\": \"1\"}\n",
    ),
    (
        "its test",
        "{\"test-pr\": {BB, \"checksum\": \"01\"}}\n",
        "{\"value\": \"1\"}\n",
    ),
    (
        "null history",
        "{\"get-pr\": {BB, \"checksum\": \"01\", \"history\": null}}\n",
        "{\"value\": \"1\"}\n",
    ),
    (
        "the first comes back",
        "{\"get-pr\": {BB, \"checksum\": \"00\", \"history\": false}}\n",
        "{\"value\": \"2\"}\n",
    ),
    (
        "its history",
        "{\"get-pr\": {BB, \"checksum\": \"00\", \"history\": true}}\n",
        "{\"value\": \"0\"}\n",
    ),
    (
        "its largest",
        "{\"test-pr\": {BB, \"checksum\": \"00\", \"history\": false}}\n",
        "{\"value\": \"2\"}\n",
    ),
    (
        "its smallest",
        "{\"test-pr\": {BB, \"checksum\": \"00\", \"history\": \"x\"}}\n",
        "{\"value\": \"0\"}\n",
    ),
    (
        "the greatest",
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
        "import with zeros",
        "{\"import-one\": {BB, \"checksum\": \"05\", \"value\": \"007\"}}\n",
        "{\"value\": \"007\"}\n",
    ),
    (
        "import null",
        "{\"import-one\": {BB, \"checksum\": \"05\", \"value\": null}}\n",
        "null\n",
    ),
    (
        "import a lower one",
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
        "export one checksum's history",
        "{\"export\": {\"version\": \"\", \"pkgarch\": \"core2-64\", \"checksum\": \"00\", \"colinfo\": false, \"history\": true}}\n",
        "{\"metainfo\": {}, \"datainfo\": [{BB, \"checksum\": \"00\", \"value\": \"0\"}, {BB, \"checksum\": \"00\", \"value\": \"2\"}]}\n",
    ),
    (
        "a number for a version",
        "{\"get-pr\": {\"version\": 12, \"pkgarch\": \"a\", \"checksum\": \"c\"}}\n",
        "{\"value\": \"0\"}\n",
    ),
    (
        "stored as text",
        "{\"test-pr\": {\"version\": \"12\", \"pkgarch\": \"a\", \"checksum\": \"c\"}}\n",
        "{\"value\": \"0\"}\n",
    ),
    (
        "the last of equal members",
        "{\"ping\": {}, \"is-readonly\": {}, \"ping\": {}}\n",
        "{\"alive\": true}\n",
    ),
    (
        "pipelined",
        "{\"ping\": {}}\n{\"is-readonly\": {}}\n{\"ping\": {}}\n",
        "{\"alive\": true}\n{\"readonly\": false}\n{\"alive\": true}\n",
    ),
    (
        "blanks around",
        "  {\"ping\": {}}  \r\n",
        "{\"alive\": true}\n",
    ),
    (
        "in pieces",
        "{\"chunk-stream\": null}\n{\"pi\nng\": {}}\n\n",
        "{\"alive\": true}\n",
    ),
    (
        "a polite end",
        "{\"ping\": {}}\nnull\n{\"ping\": {}}\n",
        "{\"alive\": true}\n",
    ),
];

/// Each closes the connection without a word; the log says why.
const FAULTS: &[(&str, &str)] = &[
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
        "`value` of a request is malformed",
    ),
    ("{\"ping\": {}}", "ended within a message"),
    (
        "{\"chunk-stream\": null}\n{\"ping\"",
        "ended within a message",
    ),
];

/// Greetings and what is heard in return when a ping follows.
const GREETINGS: &[Dialogue] = &[
    ("today's", HELLO, "{\"alive\": true}\n"),
    (
        "with headers wanted",
        "PRSERVICE 1.0\nneeds-headers: true\n\n",
        "\n{\"alive\": true}\n",
    ),
    (
        "headers by another case",
        "PRSERVICE 01.00\r\nNeeds-Headers:true\r\n\r\n",
        "\n{\"alive\": true}\n",
    ),
    (
        "wanted by shouting",
        "PRSERVICE 1.0\nneeds-headers: TRUE\n\n",
        "{\"alive\": true}\n",
    ),
    ("no headers", "PRSERVICE 1.0\n\n", "{\"alive\": true}\n"),
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
    for (name, said, heard) in REQUESTS {
        let said = format!("{HELLO}{}", said.replace("BB", BUSYBOX));
        let answer = server.say(said.as_bytes());
        assert_eq!(
            String::from_utf8_lossy(&answer),
            heard.replace("BB", BUSYBOX),
            "{name}"
        );
    }
}

#[test]
fn every_fault_closes_the_connection_without_a_word_and_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    for (said, why) in FAULTS {
        let before = server.log().len();
        assert_eq!(
            server.say(format!("{HELLO}{said}").as_bytes()),
            b"",
            "{said}"
        );
        wait_until(&format!("the log says {why:?}"), || {
            server.log()[before..].contains(why)
        });
    }
    let heard = server.say(format!("{HELLO}{{\"ping\": {{}}}}\nnonsense\n").as_bytes());
    assert_eq!(
        heard, b"{\"alive\": true}\n",
        "what came before the fault is answered"
    );
}

#[test]
fn greetings_are_read_as_bitbake_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    for (name, greeting, heard) in GREETINGS {
        let answer = server.say(format!("{greeting}{{\"ping\": {{}}}}\n").as_bytes());
        assert_eq!(String::from_utf8_lossy(&answer), *heard, "{name}");
    }
}

#[test]
fn bytes_that_are_no_text_and_lines_without_end_close_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let mut garbage = HELLO.as_bytes().to_vec();
    garbage.extend_from_slice(b"{\"ping\": \"\xff\"}\n");
    assert_eq!(server.say(&garbage), b"");
    let line = |length: usize| {
        let padding = " ".repeat(length - 13);
        server.say(format!("{HELLO}{{\"ping\": {{}}}}{padding}\n").as_bytes())
    };
    assert_eq!(line(65536), b"{\"alive\": true}\n");
    assert_eq!(line(70000), b"");
}

#[test]
fn a_long_export_comes_in_pieces_of_32767_characters() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let mut client = server.client();
    for number in 0..500 {
        client
            .get("long-1.0-r0", &format!("{number:064x}"))
            .unwrap();
    }
    let export = r#"{"export": {"version": null, "pkgarch": null, "checksum": null, "colinfo": false, "history": true}}"#;
    let heard = String::from_utf8(server.say(format!("{HELLO}{export}\n").as_bytes())).unwrap();
    let lines: Vec<&str> = heard.lines().collect();
    assert_eq!(lines[0], "{\"chunk-stream\": null}");
    assert_eq!(lines[1].len(), 32767);
    assert_eq!(*lines.last().unwrap(), "");
    assert_eq!(client.rows().len(), 500);
}
