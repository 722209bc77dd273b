//! Mutated and random input on every parser: thousands in the usual run, millions in the long one.

use std::env;
use std::time::{Duration, Instant};

use prserv::Value;
use prserv::access::Access;
use prserv::client::{Proxies, Target};
use prserv::inc;
use prserv::wire::inbox::{Event, Inbox};
use prserv::wire::request::Request;
use prserv::wire::xmlrpc::Call;

use super::harness::{HELLO, Server};

/// Inputs as they should be, of all parsers.
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

/// A small generator: reproducible from its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.roll(256)).unwrap()
    }

    /// One of the seeds, changed a few times.
    fn input(&mut self) -> Vec<u8> {
        let mut bytes = SEEDS[self.roll(SEEDS.len())].as_bytes().to_vec();
        for _ in 0..=self.roll(4) {
            let at = self.roll(bytes.len());
            match self.roll(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.byte()),
                2 if !bytes.is_empty() => bytes[at] = self.byte(),
                3 if !bytes.is_empty() => drop(bytes.remove(at)),
                4 => {
                    let piece = bytes[at..].to_vec();
                    let to = self.roll(bytes.len() + 1);
                    bytes.splice(to..to, piece);
                }
                _ => {
                    let other = SEEDS[self.roll(SEEDS.len())].as_bytes();
                    bytes.extend_from_slice(&other[self.roll(other.len())..]);
                }
            }
        }
        bytes
    }
}

/// Gives an input to every parser; what they make of it must hold together.
fn parse_everything(bytes: &[u8]) {
    let mut inbox = Inbox::default();
    inbox.buffer().extend_from_slice(bytes);
    while let Ok(Some(event)) = inbox.next_event() {
        if let Event::Message(message) = event {
            let _ = Request::parse(message);
        }
    }
    let text = String::from_utf8_lossy(bytes);
    if let Ok(call) = Call::parse(&text) {
        let _ = call.method();
    }
    for row in inc::parse(&text).rows {
        let again: Value = row.value.as_str().parse().unwrap();
        assert_eq!(again, row.value);
    }
    if let Ok(target) = Target::parse(&text, &Proxies::none()) {
        assert_eq!(
            Target::parse(&target.to_string(), &Proxies::none()).unwrap(),
            target
        );
    }
    if let Ok(value) = text.parse::<Value>() {
        assert!(value < value.increased());
    }
    let _ = Proxies::fixed(&text);
    let _ = Access::everybody().knows(&text);
}

#[test]
fn no_mutated_input_makes_any_parser_panic() {
    let time = match env::var_os("BUILDHOST_LONG") {
        Some(_) => Duration::from_mins(1),
        None => Duration::from_millis(500),
    };
    let start = Instant::now();
    let mut dice = Dice(0x5eed_5eed);
    let mut inputs = 0_u64;
    while start.elapsed() < time {
        for _ in 0..1000 {
            parse_everything(&dice.input());
        }
        inputs += 1000;
    }
    println!("{inputs} inputs");
    assert!(inputs >= 1000);
}

#[test]
fn a_server_outlives_mutated_dialogues() {
    let dialogues = if env::var_os("BUILDHOST_LONG").is_some() {
        20_000
    } else {
        500
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().join("prserv.sqlite3"));
    let mut dice = Dice(0xd1ce);
    for _ in 0..dialogues {
        server.say(&dice.input());
    }
    let heard = server.say(format!("{HELLO}{{\"ping\": {{}}}}\n").as_bytes());
    assert_eq!(heard, b"{\"alive\": true}\n");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
