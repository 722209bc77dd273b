//! The bridge from async code to blocking work: child processes, file trees, locks.

use tracing::Span;

/// Runs `work` on a thread on which it may block, in the caller's tracing span, and returns
/// its result. A panic of `work` continues in the caller. If the caller is dropped, `work`
/// still runs to its end.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let span = Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and drops the caller, too.
            Err(_) => std::future::pending().await,
        },
    }
}
