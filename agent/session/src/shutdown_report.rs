//! The reason for which QEMU has ended a guest, from the events that it reports.

use std::sync::Arc;
use std::time::Duration;

use guest::Shutdown;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The size of the longest line; no event is nearly as long.
const LINE_MAX: usize = 64 * 1024;
/// The time in which the events of a QEMU that has ended arrive.
const END_LIMIT: Duration = Duration::from_secs(1);

/// The reason for which QEMU has ended a guest. Clones are of the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct ShutdownReport {
    reason: Arc<Mutex<Option<Shutdown>>>,
    /// Cancelled at the end of the events; `None` without a monitor.
    end: Arc<Mutex<Option<CancellationToken>>>,
}

impl ShutdownReport {
    /// Reads the events of a monitor until QEMU closes it.
    pub(super) fn follow(self, mut monitor: UnixStream) -> impl Future<Output = ()> + Send {
        let end = CancellationToken::new();
        *self.end.lock() = Some(end.clone());
        async move {
            let _ended = end.drop_guard();
            // QEMU reports events once its capabilities are negotiated.
            let negotiate = b"{\"execute\": \"qmp_capabilities\"}\n";
            if monitor.write_all(negotiate).await.is_err() {
                return;
            }
            let (mut buffer, mut line) = ([0; 4096], Vec::new());
            while let Ok(count @ 1..) = monitor.read(&mut buffer).await {
                for byte in &buffer[..count] {
                    if *byte == b'\n' {
                        self.handle(&line);
                        line.clear();
                    } else if line.len() < LINE_MAX {
                        line.push(*byte);
                    }
                }
            }
        }
    }

    fn handle(&self, line: &[u8]) {
        if let Some(reason) = Shutdown::from_event(line) {
            // After a panic, the guest may reset or power off.
            self.reason.lock().get_or_insert(reason);
        }
    }

    /// Returns the reason for which QEMU has ended, after all events have arrived.
    pub(super) async fn of_ended(&self) -> Option<Shutdown> {
        let end = self.end.lock().clone();
        if let Some(end) = end {
            let _ = timeout(END_LIMIT, end.cancelled()).await;
        }
        *self.reason.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_counts_and_long_lines_are_skipped() {
        let (monitor, mut qemu) = UnixStream::pair().unwrap();
        let report = ShutdownReport::default();
        assert_eq!(report.of_ended().await, None);
        let following = tokio::spawn(report.clone().follow(monitor));
        qemu.write_all(b"{\"QMP\": {}}\n{\"return\": {}}\n")
            .await
            .unwrap();
        qemu.write_all(&vec![b'x'; 2 * LINE_MAX]).await.unwrap();
        let panic = b"\n{\"event\": \"GUEST_PANICKED\"}\n";
        qemu.write_all(panic).await.unwrap();
        let reset = b"{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}}\n";
        qemu.write_all(reset).await.unwrap();
        let mut negotiation = [0; 32];
        let count = qemu.read(&mut negotiation).await.unwrap();
        assert!(negotiation[..count].starts_with(b"{\"execute\""));
        drop(qemu);
        assert_eq!(report.of_ended().await, Some(Shutdown::Panicked));
        following.await.unwrap();
    }
}
