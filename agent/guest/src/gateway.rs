//! The services that a guest finds at its gateway: DHCP and DNS.

pub mod dhcp;
pub mod dns;
