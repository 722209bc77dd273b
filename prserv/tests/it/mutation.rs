//! A server with mutated input: hundreds of connections by default, thousands with
//! `BUILDHOST_LONG=1`. The tests of the workspace have the parsers.

use super::harness::{GREETING, Server, is_long_run};

/// Valid inputs of all protocols.
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
