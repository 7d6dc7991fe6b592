//! The one place of this crate that starts tasks.

use tokio::task::JoinHandle;

/// Starts a task; it ends with the runtime, which ends with the run.
#[expect(
    clippy::disallowed_methods,
    reason = "the home of spawning in this crate, which stands outside the product's processes"
)]
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}
