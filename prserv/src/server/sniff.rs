//! Which protocol a peer speaks, told from its first bytes: all share one port.

/// The protocols on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// BitBake's JSON stream; also everything that is wrong.
    Stream,
    /// HTTP: XML-RPC, REST, metrics.
    Http,
}

const METHODS: [&[u8]; 7] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
];

/// The protocol, or `None` until more bytes come.
pub(super) fn sniff(bytes: &[u8]) -> Option<Protocol> {
    if METHODS.iter().any(|method| bytes.starts_with(method)) {
        return Some(Protocol::Http);
    }
    let is_open = METHODS.iter().any(|method| method.starts_with(bytes));
    if is_open {
        None
    } else {
        Some(Protocol::Stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_bytes_tell_the_protocols_apart() {
        for (bytes, protocol) in [
            ("", None),
            ("P", None),
            ("POST", None),
            ("POST /", Some(Protocol::Http)),
            ("PR", Some(Protocol::Stream)),
            ("GET /", Some(Protocol::Http)),
            ("\n", Some(Protocol::Stream)),
        ] {
            assert_eq!(sniff(bytes.as_bytes()), protocol, "{bytes:?}");
        }
    }
}
