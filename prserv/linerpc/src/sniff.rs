//! The detection of a connection's protocol by its first bytes, because all share one port.

/// The protocols on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The line-based stream. Also chosen for invalid input.
    Lines,
    /// HTTP: XML-RPC, websockets, REST, metrics.
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

/// Returns the protocol, or `None` if more bytes are needed.
pub(crate) fn sniff(bytes: &[u8]) -> Option<Protocol> {
    if METHODS.iter().any(|method| bytes.starts_with(method)) {
        return Some(Protocol::Http);
    }
    let is_undecided = METHODS.iter().any(|method| method.starts_with(bytes));
    if is_undecided {
        None
    } else {
        Some(Protocol::Lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_determine_the_protocol() {
        for (bytes, protocol) in [
            ("", None),
            ("P", None),
            ("POST", None),
            ("POST /", Some(Protocol::Http)),
            ("PR", Some(Protocol::Lines)),
            ("GET /", Some(Protocol::Http)),
            ("\n", Some(Protocol::Lines)),
        ] {
            assert_eq!(sniff(bytes.as_bytes()), protocol, "{bytes:?}");
        }
    }
}
