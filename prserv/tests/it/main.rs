//! Tests of the program through its sockets and files.

#[cfg(test)]
mod harness;

#[cfg(test)]
mod json_protocol;

#[cfg(test)]
mod access;

#[cfg(test)]
#[cfg(feature = "xmlrpc")]
mod xmlrpc;

#[cfg(test)]
mod upstream;

#[cfg(test)]
mod client;

#[cfg(test)]
mod commands;

#[cfg(test)]
mod startup;

#[cfg(test)]
mod rest;

#[cfg(test)]
mod websocket;

#[cfg(test)]
mod postgres;

#[cfg(test)]
mod database_files;

#[cfg(test)]
mod library;

#[cfg(test)]
mod crash;

#[cfg(test)]
#[cfg(feature = "xmlrpc")]
mod durability;

#[cfg(test)]
mod linearizability;

#[cfg(test)]
mod mutation;
