//! XML-RPC as BitBake up to 1.50 uses it, on the port of the JSON stream.

use super::harness::Server;

/// Posts as Python's `ServerProxy` does. Returns the head and the body of the response.
fn post(server: &Server, path: &str, body: &str) -> (String, String) {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nContent-Type: text/xml\r\n\
         User-Agent: Python-xmlrpc/3.9\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let reply = String::from_utf8(server.exchange(request.as_bytes())).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn call(server: &Server, method: &str, params: &[&str]) -> String {
    let params: Vec<_> = params
        .iter()
        .map(|param| {
            format!(
                "<param>
<value>{param}</value>
</param>
"
            )
        })
        .collect();
    let params = params.concat();
    let body = format!(
        "<?xml version='1.0'?>\n<methodCall>\n<methodName>{method}</methodName>\n<params>\n{params}</params>\n</methodCall>\n"
    );
    let (head, body) = post(server, "/", &body);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/xml"), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    body
}

fn result(value: &str) -> String {
    format!(
        "<?xml version='1.0'?>\n<methodResponse>\n<params>\n<param>\n<value>{value}</value>\n</param>\n</params>\n</methodResponse>\n"
    )
}

#[test]
fn values_are_integers_and_assigned_without_history() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let get = |checksum: &str| {
        let checksum = format!("<string>{checksum}</string>");
        call(&server, "getPR", &["<string>v</string>", "all", &checksum])
    };
    for (checksum, value) in [("c0", 0), ("c1", 1), ("c0", 2), ("c0", 2)] {
        assert_eq!(get(checksum), result(&format!("<int>{value}</int>")));
    }
    assert_eq!(
        server.client().get("v", "c0").unwrap(),
        "2",
        "both protocols return the same value"
    );
    let import = |value: u32| {
        let value = format!("<int>{value}</int>");
        call(&server, "importone", &["v", "all", "i", &value])
    };
    for (sent, recorded) in [(7, 7), (3, 7), (9, 9)] {
        assert_eq!(import(sent), result(&format!("<int>{recorded}</int>")));
    }
    assert_eq!(get("c9"), result("<int>10</int>"));
    assert_eq!(
        call(&server, "getPR", &["<nil/>", "a", "c"]),
        result("<nil/>")
    );
}

#[test]
fn the_other_methods_work_and_quit_is_not_supported() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    server.client().get("v", "it's").unwrap();
    assert_eq!(call(&server, "ping", &[]), result("<boolean>1</boolean>"));
    let export = call(&server, "export", &[]);
    assert!(
        export.contains("<name>tbl_name</name>\n<value><string>PRMAIN_nohist</string></value>")
    );
    assert!(export.contains("<name>value</name>\n<value><int>0</int></value>"));
    assert!(
        !call(
            &server,
            "export",
            &["<nil/>", "", "", "<boolean>0</boolean>"]
        )
        .contains("tbl_name")
    );
    assert!(call(&server, "dump_db", &[]).contains("VALUES('v','all','it''s','0');"));
    assert!(call(&server, "system.listMethods", &[]).contains("<string>getPR</string>"));
    for (method, reason) in [
        (
            "quit",
            "&lt;class 'Exception'&gt;:method \"quit\" is not supported",
        ),
        (
            "getPR",
            "&lt;class 'TypeError'&gt;:getPR() does not take 0 parameters",
        ),
    ] {
        let fault = call(&server, method, &[]);
        assert!(
            fault.contains("<name>faultCode</name>\n<value><int>1</int></value>"),
            "{fault}"
        );
        assert!(fault.contains(reason), "{fault}");
    }
}

#[test]
fn other_paths_and_http_methods_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    assert!(post(&server, "/RPC2", "x").1.contains("ExpatError"));
    assert!(post(&server, "/other", "x").0.starts_with("HTTP/1.1 404"));
    let reply = server.exchange(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(
        String::from_utf8(reply)
            .unwrap()
            .starts_with("HTTP/1.1 501")
    );
}

#[test]
fn quit_ends_the_server_if_it_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(dir.path().join("prserv.sqlite3"), &["--allow-quit"]);
    assert_eq!(call(&server, "quit", &[]), result("<nil/>"));
    assert!(server.wait().success());
}
