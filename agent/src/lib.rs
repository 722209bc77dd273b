//! The host agent: bootstraps machines and runs builds in throw-away guests.

pub mod network;

pub mod tftp;

pub mod guest;
