//! The end of a guest in words; pure.

use std::fmt;

use config::machine::Kind;
use serde_json::Value;

use crate::process::Exit;

/// The status with which systemd-nspawn ends when its container reboots.
const NSPAWN_REBOOT: i32 = 133;
/// The signal of the kernel's OOM killer, and of nobody else that gives notice.
const KILL: i32 = 9;
/// The signal of `machinectl poweroff`: SIGRTMIN+4 of the C library.
const POWER_OFF: i32 = 38;

/// A reason for which QEMU has ended a virtual machine, as it reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// The guest's kernel panicked.
    Panicked,
    /// The guest reset itself.
    Reset,
    /// The guest powered itself off.
    PoweredOff,
    /// QEMU received a signal.
    Signal,
}

impl Shutdown {
    /// Returns the reason that a line of QEMU's monitor reports; `None` for all other lines.
    pub fn from_event(line: &[u8]) -> Option<Self> {
        let message: Value = serde_json::from_slice(line).ok()?;
        match message.get("event")?.as_str()? {
            "GUEST_PANICKED" => Some(Self::Panicked),
            "SHUTDOWN" => match message.get("data")?.get("reason")?.as_str()? {
                "guest-panic" => Some(Self::Panicked),
                "guest-reset" => Some(Self::Reset),
                "guest-shutdown" => Some(Self::PoweredOff),
                "host-signal" => Some(Self::Signal),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The end of a guest's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestEnd {
    /// The kind of the guest.
    pub kind: Kind,
    /// The status of its process.
    pub exit: Exit,
    /// The reason that QEMU has reported. `None` for a container, and if the agent was not
    /// there.
    pub shutdown: Option<Shutdown>,
    /// Set if the kernel killed a process in the guest's cgroup for want of memory.
    pub out_of_memory: bool,
}

impl GuestEnd {
    /// Returns true if the guest ended by itself and successfully.
    pub fn is_clean(&self) -> bool {
        self.exit.is_clean() && self.shutdown != Some(Shutdown::Panicked)
    }

    /// Returns true if a person has ended the guest with `machinectl poweroff`. Unknown for the guest of
    /// an earlier agent.
    pub fn was_powered_off_by_host(&self) -> bool {
        self.exit == Exit::Signal(POWER_OFF)
    }

    /// Returns true if a container needed more memory than its machine has.
    pub fn exceeded_its_memory(&self) -> bool {
        self.kind == Kind::Nspawn && self.out_of_memory
    }
}

impl fmt::Display for GuestEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exceeded_its_memory() {
            return f.write_str(
                "it needed more memory than it has; build it with `--memory`, or raise `ram-minimum` \
                 in the machine's manifest",
            );
        }
        if self.out_of_memory {
            return f.write_str("QEMU was killed for want of memory");
        }
        match (self.shutdown, self.exit, self.kind) {
            (Some(Shutdown::Panicked), ..) => f.write_str("its kernel panicked"),
            (Some(Shutdown::Reset), ..) | (None, Exit::Code(NSPAWN_REBOOT), Kind::Nspawn) => {
                f.write_str("it reset")
            }
            (Some(Shutdown::PoweredOff), ..) | (None, Exit::Code(0), Kind::Nspawn) => {
                f.write_str("it powered off")
            }
            (Some(Shutdown::Signal), ..) => f.write_str("QEMU received a signal on the host"),
            (None, Exit::Code(0), Kind::Kvm) => f.write_str("it reset or powered off"),
            (None, Exit::Code(code), Kind::Kvm) => write!(f, "QEMU failed with status {code}"),
            (None, Exit::Code(code), Kind::Nspawn) => {
                write!(f, "its init or systemd-nspawn failed with status {code}")
            }
            (None, Exit::Signal(POWER_OFF), _) => {
                f.write_str("`machinectl poweroff` ended it on the host")
            }
            (None, Exit::Signal(KILL), _) => {
                f.write_str("it was killed by signal 9, as the kernel does for want of memory")
            }
            (None, Exit::Signal(signal), _) => write!(f, "it was killed by signal {signal}"),
            (None, Exit::Unknown, _) => f.write_str("it was started by an earlier agent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shutdown_events_have_reasons() {
        let table = [
            (
                r#"{"event": "GUEST_PANICKED", "data": {"action": "poweroff"}}"#,
                Some(Shutdown::Panicked),
            ),
            (
                r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-panic"}}"#,
                Some(Shutdown::Panicked),
            ),
            (
                r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#,
                Some(Shutdown::Reset),
            ),
            (
                r#"{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}"#,
                Some(Shutdown::PoweredOff),
            ),
            (
                r#"{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-signal"}}"#,
                Some(Shutdown::Signal),
            ),
            (
                r#"{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}}"#,
                None,
            ),
            (r#"{"event": "STOP"}"#, None),
            (r#"{"QMP": {}}"#, None),
            (r#"{"event": 7}"#, None),
            ("nonsense", None),
        ];
        for (line, expected) in table {
            assert_eq!(Shutdown::from_event(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn each_end_has_its_own_words() {
        let end = |kind, exit, shutdown, out_of_memory| {
            let end = GuestEnd {
                kind,
                exit,
                shutdown,
                out_of_memory,
            };
            end.to_string()
        };
        let clean = Exit::Code(0);
        let mut words = Vec::new();
        for shutdown in [
            Shutdown::Panicked,
            Shutdown::Reset,
            Shutdown::PoweredOff,
            Shutdown::Signal,
        ] {
            words.push(end(Kind::Kvm, clean, Some(shutdown), false));
        }
        for exit in [
            clean,
            Exit::Code(1),
            Exit::Signal(9),
            Exit::Signal(11),
            Exit::Unknown,
        ] {
            words.push(end(Kind::Kvm, exit, None, false));
        }
        words.push(end(Kind::Kvm, Exit::Signal(9), None, true));
        for exit in [clean, Exit::Code(133), Exit::Code(255)] {
            words.push(end(Kind::Nspawn, exit, None, false));
        }
        words.push(end(Kind::Nspawn, Exit::Code(255), None, true));
        insta::assert_snapshot!(words.join("\n"));
    }
}
