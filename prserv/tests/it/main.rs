//! The server as its clients see it: the real program, real sockets, real files.

#[cfg(test)]
mod harness;

#[cfg(test)]
mod dialogues;

#[cfg(test)]
mod access;

#[cfg(test)]
mod xmlrpc;

#[cfg(test)]
mod upstream;

#[cfg(test)]
mod client;

#[cfg(test)]
mod tools;

#[cfg(test)]
mod starting;

#[cfg(test)]
mod rest;

#[cfg(test)]
mod websocket;

#[cfg(test)]
mod postgres;

#[cfg(test)]
mod files;

#[cfg(test)]
mod library;

#[cfg(test)]
mod crash;

#[cfg(test)]
mod durable;

#[cfg(test)]
mod linear;

#[cfg(test)]
mod mutation;
