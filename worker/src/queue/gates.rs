//! Which queues this worker may take from.
//!
//! The truth is `chat.queues`; every worker looks at it each second, and at once when it hears a
//! broadcast. Until it has seen it once it takes nothing, so that a pause survives a restart. The same
//! look shows whether somebody of its name has called the roll.

use std::sync::Arc;
use std::time::Duration;

use shared::domain::Priority;
use shared::store::{StoreResult, fleet, queues};
use shared::vitals;
use tokio::sync::{Notify, watch};

use crate::context::Context;

/// How often the table is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The queues that are open, as far as this worker knows.
#[derive(Debug)]
pub struct Gates {
    open: watch::Sender<Option<Vec<Priority>>>,
    look: Notify,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            open: watch::Sender::new(None),
            look: Notify::new(),
        }
    }
}

impl Gates {
    /// The open queues, once any is.
    pub async fn open(&self) -> Vec<Priority> {
        let mut known = self.open.subscribe();
        let some_open =
            |open: &Option<Vec<Priority>>| open.as_ref().is_some_and(|open| !open.is_empty());
        let found = known.wait_for(some_open).await;
        // The sender is this very struct, so it outlives the wait.
        found.ok().and_then(|open| open.clone()).unwrap_or_default()
    }

    /// Whether a queue is open now.
    #[must_use]
    pub fn is_open(&self, queue: Priority) -> bool {
        self.open
            .borrow()
            .as_ref()
            .is_some_and(|open| open.contains(&queue))
    }

    /// Something may have changed.
    pub fn look(&self) {
        self.look.notify_one();
    }

    fn paused(&self, paused: &[Priority]) {
        let open: Vec<Priority> = Priority::ALL
            .iter()
            .copied()
            .filter(|queue| !paused.contains(queue))
            .collect();
        self.open.send_if_modified(|known| {
            let changed = known.as_ref() != Some(&open);
            if changed {
                tracing::info!(?open, "queues open");
                *known = Some(open);
            }
            changed
        });
    }
}

/// Looks for ever. While the database is away, what was seen last holds.
pub async fn watch_gates(context: Arc<Context>) {
    loop {
        match look(&context).await {
            Ok(paused) => context.gates.paused(&paused),
            Err(error) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                "not known which queues are paused"
            ),
        }
        let _ = tokio::time::timeout(LOOK_EVERY, context.gates.look.notified()).await;
    }
}

async fn look(context: &Context) -> StoreResult<Vec<Priority>> {
    let mut tx = context.db.sweep().await?;
    let seen = queues::seen(&mut tx).await?;
    if fleet::is_called(&mut tx, context.boot).await? {
        context.called.notify_one();
    }
    vitals::show_queues(&seen);
    let paused = seen.iter().filter(|load| load.paused);
    Ok(paused.map(|load| load.queue).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_open_until_it_is_known_what_is() {
        let gates = Gates::default();
        let closed = |gates: &Gates| Priority::ALL.iter().all(|queue| !gates.is_open(*queue));
        assert!(closed(&gates));
        let waiting = tokio::select! {
            biased;
            _ = gates.open() => false,
            () = std::future::ready(()) => true,
        };
        assert!(waiting);
        gates.paused(Priority::ALL);
        assert!(closed(&gates));
        gates.paused(&[Priority::Standard]);
        assert_eq!(
            gates.open().await,
            [Priority::Premium, Priority::Background]
        );
        assert!(!gates.is_open(Priority::Standard));
    }
}
