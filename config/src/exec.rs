//! Commands in the guest of a build that has no task of its own: a *driven guest*, which another
//! program drives.
//!
//! The task of such a guest names its build as `commands` instead of `build`, so that a worker that
//! does not know commands refuses it. The worker opens a TCP connection to [`TCP_PORT`] at its gateway
//! and waits there for a frame ([`Frame`]). With [`Frame::Start`] the connection becomes that of one
//! command, and the worker opens another one that waits; with [`Frame::Stop`] the worker ends all
//! commands, answers with [`Frame::Stopped`], and reports its result.
//!
//! The client of a command sends [`Frame::Stdin`] and [`Frame::StdinEnd`], the worker
//! [`Frame::Stdout`] and [`Frame::Stderr`], and [`Frame::Ended`] as the last one. The kernel's flow
//! control of a connection slows only its own command. Input has a window: a client never sends more
//! than [`WINDOW`] bytes beyond those of which a [`Frame::Taken`] has said that the command took them,
//! so that the worker and the agent always read on, and notice the end of a client at once. A
//! connection that ends before its command ends the command.
//!
//! The API uses the same frames between client and agent, on a connection that is upgraded to
//! [`PROTOCOL`].

mod command;
mod frame;

pub use command::{
    Command, CommandEnd, CommandError, CommandLimits, CommandRecord, EnvironmentName,
};
pub use frame::{DATA_BYTES_MAX, Decoder, FRAME_BYTES_MAX, Frame, FrameError};

/// The TCP port at the gateway to which the worker of a driven guest connects.
pub const TCP_PORT: u16 = 8588;
/// The protocol to which a connection of the API is upgraded: frames in both directions.
pub const PROTOCOL: &str = "buildhost-exec";
/// The bytes of input that may be on their way to a command.
pub const WINDOW: usize = 256 * 1024;
/// The largest number of commands that run in one guest at the same time.
pub const COMMANDS_MAX: usize = 16;
