//! Mutated input for every parser: thousands by default, millions with `BUILDHOST_LONG=1`.

use std::time::{Duration, Instant};

use prserv::Value;
use prserv::access::Access;
use prserv::client::{Proxies, Target};
use prserv::inc_file;
use prserv::wire::decoder::{Event, MessageDecoder};
use prserv::wire::request::Request;
#[cfg(feature = "xmlrpc")]
use prserv::wire::xmlrpc::Call;

use super::harness::{GREETING, Server, is_long_run};

/// Valid inputs of all parsers.
const SEEDS: [&str; 10] = [
    "PRSERVICE 1.0\nneeds-headers: false\n\n{\"ping\": {}}\n{\"is-readonly\": {}}\n",
    "PRSERVICE 1.0\n\n{\"get-pr\": {\"version\": \"v\", \"pkgarch\": \"a\", \"checksum\": \"c\", \"history\": false}}\n",
    "PRSERVICE 1.0\n\n{\"chunk-stream\": null}\n{\"test-pr\": {\"version\": \"v\", \"pkgarch\": \"a\"\n, \"checksum\": \"c\"}}\n\n",
    "PRSERVICE 1.0\n\n{\"import-one\": {\"version\": \"v\", \"pkgarch\": \"a\", \"checksum\": \"c\", \"value\": \"1.10\"}}\n",
    "PRSERVICE 1.0\n\n{\"export\": {\"version\": null, \"pkgarch\": null, \"checksum\": null, \"colinfo\": true, \"history\": true}}\n",
    "<?xml version='1.0'?><methodCall><methodName>getPR</methodName><params><param><value><string>v&amp;</string></value></param><param><value><int>1</int></value></param><param><value><nil/></value></param></params></methodCall>",
    "PRAUTO$v-1.0-r0$all$00 = \"1.2\"\nPRAUTO_v_all = \"2\"\nPRSERV_LOCKDOWN = \"1\"\n",
    "10.20.300000000000000000000000000.4",
    "[fd00::1]:8585",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n<a/>\n",
];

/// A random number generator, reproducible from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    /// Returns one of the seeds after a few mutations.
    fn input(&mut self) -> Vec<u8> {
        let mut bytes = SEEDS[self.below(SEEDS.len())].as_bytes().to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.byte()),
                2 if !bytes.is_empty() => bytes[at] = self.byte(),
                3 if !bytes.is_empty() => drop(bytes.remove(at)),
                4 => {
                    let piece = bytes[at..].to_vec();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, piece);
                }
                _ => {
                    let other = SEEDS[self.below(SEEDS.len())].as_bytes();
                    bytes.extend_from_slice(&other[self.below(other.len())..]);
                }
            }
        }
        bytes
    }
}

/// Passes an input to every parser and checks invariants of the results.
fn parse_everything(bytes: &[u8]) {
    let mut decoder = MessageDecoder::default();
    decoder.buffer().extend_from_slice(bytes);
    while let Ok(Some(event)) = decoder.next_event() {
        if let Event::Message(message) = event {
            let _ = Request::parse(message);
        }
    }
    let text = String::from_utf8_lossy(bytes);
    #[cfg(feature = "xmlrpc")]
    if let Ok(call) = Call::parse(&text) {
        let _ = call.method();
    }
    for row in inc_file::parse(&text).rows {
        let reparsed: Value = row.value.as_str().parse().unwrap();
        assert_eq!(reparsed, row.value);
    }
    if let Ok(target) = Target::parse(&text, &Proxies::none()) {
        assert_eq!(
            Target::parse(&target.to_string(), &Proxies::none()).unwrap(),
            target
        );
    }
    if let Ok(value) = text.parse::<Value>() {
        assert!(value < value.incremented());
    }
    let _ = Proxies::fixed(&text);
    let _ = Access::open().accepts_token(&text);
}

#[test]
fn no_mutated_input_causes_a_panic() {
    let time = if is_long_run() {
        Duration::from_mins(1)
    } else {
        Duration::from_millis(500)
    };
    let start = Instant::now();
    let mut random = Random(0x5eed_5eed);
    let mut inputs = 0_u64;
    while start.elapsed() < time {
        for _ in 0..1000 {
            parse_everything(&random.input());
        }
        inputs += 1000;
    }
    println!("{inputs} inputs");
    assert!(inputs >= 1000);
}

#[test]
fn a_server_survives_mutated_input() {
    let connections = if is_long_run() { 20_000 } else { 500 };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let mut random = Random(0xd1ce);
    for _ in 0..connections {
        server.exchange(&random.input());
    }
    let received = server.exchange(format!("{GREETING}{{\"ping\": {{}}}}\n").as_bytes());
    assert_eq!(received, b"{\"alive\": true}\n");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
