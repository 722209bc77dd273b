//! An HTTP client with little overhead, which reuses its connection.

use std::io::{Read, Write};

/// A connection to a server.
#[derive(Debug)]
pub struct HttpClient<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: Read + Write> HttpClient<S> {
    /// Creates a client on a connected stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: vec![0; 1 << 20],
        }
    }

    /// Sends a GET request, reads the whole response, and returns the length of its body. The status
    /// must be 200, and the response must have a content length of at most 1 MiB.
    pub fn get(&mut self, path: &str) -> usize {
        let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut read = self.stream.read(&mut self.buffer).unwrap();
        let end_of_head = self.buffer[..read]
            .windows(4)
            .position(|it| it == b"\r\n\r\n");
        let head = end_of_head.unwrap() + 4;
        let text = String::from_utf8_lossy(&self.buffer[..head]).to_lowercase();
        assert!(text.starts_with("http/1.1 200"), "{text}");
        let length = text.split("content-length: ").nth(1).unwrap();
        let length: usize = length.split('\r').next().unwrap().parse().unwrap();
        while read < head + length {
            read += self.stream.read(&mut self.buffer).unwrap();
        }
        length
    }
}
