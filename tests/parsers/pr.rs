//! The protocols of the PR service.

use prserv::access::{Access, Rights, Token, bearer};
use prserv::client::{Proxies, Target};
use prserv::inc_file;
use prserv::wire::decoder::{Event, MessageDecoder};
use prserv::wire::request::Request;
use prserv::wire::xmlrpc::Call;
use prserv::wire::{GREETING, MESSAGE_BYTES_MAX, REPLY_BYTES_MAX};
use prserv::{History, OpenOptions, Peer, Server, Service, Tuple, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;

use crate::harness::Parser;

const JSON: [&str; 6] = [
    "PRSERVICE 1.0\nneeds-headers: false\n\n{\"ping\": {}}\n{\"is-readonly\": {}}\n",
    "PRSERVICE 1.0\n\n{\"get-pr\": {\"version\": \"v\", \"pkgarch\": \"a\", \"checksum\": \"c\", \"history\": false}}\n",
    "PRSERVICE 1.0\n\n{\"chunk-stream\": null}\n{\"test-pr\": {\"version\": \"v\", \"pkgarch\": \"a\"\n, \"checksum\": \"c\"}}\n\n",
    "PRSERVICE 1.0\n\n{\"import-one\": {\"version\": \"v\", \"pkgarch\": \"a\", \"checksum\": \"c\", \"value\": \"1.10\"}}\n",
    "PRSERVICE 1.0\n\n{\"export\": {\"version\": null, \"pkgarch\": null, \"checksum\": null, \"colinfo\": true, \"history\": true}}\n",
    "PRSERVICE 1.0\n\n{\"max-package-pr\": {\"version\": \"v\", \"pkgarch\": \"a\", \"x\": [NaN, -Infinity, {\"y\": []}]}}\n",
];
const CALL: &str = "<?xml version='1.0'?><methodCall><methodName>getPR</methodName><params><param><value><string>v&amp;</string></value></param><param><value><int>1</int></value></param><param><value><nil/></value></param></params></methodCall>";

/// Returns the parser of a decoder's stream, which arrives in one piece.
fn messages(valid: &[&str], decoder: fn() -> MessageDecoder) -> Parser {
    let mut parser = Parser::of_text(valid, 0, |_| {});
    parser.memory_factor = 64;
    parser.parse = Box::new(move |bytes| {
        let mut decoder = decoder();
        decoder.buffer().extend_from_slice(bytes);
        while let Ok(Some(event)) = decoder.next_event() {
            if let Event::Message(message) = event {
                let _ = Request::parse(message);
            }
        }
    });
    parser
}

pub(crate) fn json_messages() -> Parser {
    messages(&JSON, || MessageDecoder::new(GREETING, MESSAGE_BYTES_MAX))
}

/// The replies of another server to the agent.
pub(crate) fn json_replies() -> Parser {
    let valid = [
        "{\"value\": \"1.2\"}\n{\"alive\": true}\n",
        "{\"chunk-stream\": null}\n{\"metainfo\": null, \"datainfo\": [{\"version\": \"v\",\n \"value\": \"1\"}]}\n\n",
        "{\"invoke-error\": {\"message\": \"no\"}}\n",
    ];
    messages(&valid, || MessageDecoder::for_replies(REPLY_BYTES_MAX))
}

pub(crate) fn xmlrpc_calls() -> Parser {
    let import = CALL
        .replace("getPR", "importone")
        .replace("<nil/>", "<i4>5</i4>");
    Parser::of_text(&[CALL, &import], 16, |text| {
        if let Ok(call) = Call::parse(text) {
            let _ = call.method();
        }
    })
}

pub(crate) fn inc_files() -> Parser {
    let valid = "PRAUTO$v-1.0-r0$all$00 = \"1.2\"\nPRAUTO_v_all = \"2\"\nPRSERV_LOCKDOWN = \"1\"\n";
    Parser::of_text(&[valid], 64, |text| {
        for row in inc_file::parse(text).rows {
            let reparsed: Value = row.value.as_str().parse().unwrap();
            assert_eq!(reparsed, row.value);
        }
    })
}

/// Short texts: values, the addresses of servers, proxies and tokens.
pub(crate) fn values_and_targets() -> Parser {
    let valid = [
        "10.20.300000000000000000000000000.4",
        "[fd00::1]:8585",
        "ws://h:1/?a=b",
    ];
    Parser::of_text(&valid, 16, |text| {
        if let Ok(target) = Target::parse(text, &Proxies::none()) {
            let again = Target::parse(&target.to_string(), &Proxies::none());
            assert_eq!(again.unwrap(), target);
        }
        if let Ok(value) = text.parse::<Value>() {
            assert!(value < value.incremented());
        }
        let _ = Proxies::fixed(text);
        let _ = Access::open().token(text);
        let _ = (Token::parse_file(text), bearer(text));
    })
}

/// Whole connections: the protocol is detected, and HTTP has bodies.
pub(crate) fn connections() -> Parser {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let database = directory
        .path()
        .join("prserv.sqlite3")
        .display()
        .to_string();
    let service = Service::open(&OpenOptions::new(database.as_str())).unwrap();
    let tuple = Tuple::new("v", "all", "c");
    runtime
        .block_on(service.get_pr(&tuple, History::Ignore))
        .unwrap();
    let server = Server::new(service);
    // A reader, because the disk would take most of the time.
    let mut reader = Peer::new("peer");
    reader.rights = Rights::Read;
    let head = "Host: localhost\r\nContent-Type";
    let json = "{\"version\": \"v\", \"pkgarch\": \"all\", \"checksum\": \"c\"}";
    let requests = [
        format!("POST / HTTP/1.1\r\n{head}: text/xml\r\nContent-Length: {}\r\n\r\n{CALL}", CALL.len()),
        format!("POST /api/v1/pr HTTP/1.1\r\n{head}: application/json\r\nContent-Length: {}\r\n\r\n{json}", json.len()),
        format!("PUT /api/v1/pr HTTP/1.1\r\n{head}: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{json}\r\n0\r\n\r\n", json.len()),
        format!("GET /api/v1/pr?version=v&pkgarch=a&checksum=c HTTP/1.1\r\n{head}: x\r\n\r\nGET /api/v1/rows HTTP/1.1\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\u{1}\u{5}hello".to_owned(),
    ];
    let valid: Vec<_> = requests.iter().map(String::as_str).chain(JSON).collect();
    let mut parser = Parser::of_text(&valid, 64, |_| {});
    // Buffers of HTTP, and those of replies to pipelined requests.
    parser.memory_constant = 1 << 20;
    parser.parse = Box::new(move |bytes| {
        let _ = &directory;
        runtime.block_on(async {
            let (mut peer, stream) = tokio::io::duplex(128 * 1024);
            peer.write_all(bytes).await.unwrap();
            peer.shutdown().await.unwrap();
            let serving = server.serve_connection(stream, reader.clone());
            let read = async {
                let mut buffer = vec![0; 16 * 1024];
                while peer.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
            };
            tokio::join!(serving, read);
        });
    });
    parser
}
