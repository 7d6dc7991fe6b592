//! The one place of this crate that starts tasks.
//!
//! `shared::lifecycle` waits for the tasks of the product's processes. This crate stands outside
//! the product: the simulator's tasks live as long as its connections and end with its
//! cancellation token, the driver's are joined by the run that started them.

use tokio::task::JoinHandle;

/// Starts a task.
#[expect(
    clippy::disallowed_methods,
    reason = "the home of spawning in this crate, which does not depend on the product"
)]
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}
