//! Whether Redis is there. While it is not, one task asks for it, and nobody else waits to find out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a Redis that is away is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What the commands of one connection know of their server.
#[derive(Clone, Debug, Default)]
pub(super) struct Presence {
    is_away: Arc<AtomicBool>,
}

impl Presence {
    pub(super) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// Notes that a command failed, and has `is_back` asked until it says so or nobody cares.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task ends with the last connection that it serves"
    )]
    pub(super) fn lost<F>(&self, is_back: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = bool> + Send,
    {
        if self.is_away.swap(true, Ordering::Relaxed) {
            return;
        }
        let is_away = Arc::downgrade(&self.is_away);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                if is_away.strong_count() == 0 {
                    return;
                }
                if is_back().await {
                    break;
                }
            }
            if let Some(is_away) = is_away.upgrade() {
                is_away.store(false, Ordering::Relaxed);
            }
        });
    }
}
