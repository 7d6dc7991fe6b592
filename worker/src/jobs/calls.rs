//! Noting upstream calls in the ledger while they run, for the case that the worker does not live to
//! book their end: with the upstream's id their cost can still be asked for.
//!
//! The notes of all jobs are written together and a moment late. A call that ends within that
//! moment is booked with its reply alone, and no stream ever waits for a note.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::store::StoreResult;
use shared::store::ledger::{self, RunningCall};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::context::Context;

/// How late a note may be; first tokens come later than this.
const DELAY: Duration = Duration::from_millis(20);

/// Running calls that are not noted yet.
#[derive(Debug, Default)]
pub struct Calls {
    waiting: Mutex<HashMap<Uuid, RunningCall>>,
    some: Notify,
}

impl Calls {
    /// The upstream has named a call.
    pub fn began(&self, call: RunningCall) {
        self.lock().insert(call.id, call);
        self.some.notify_one();
    }

    /// A call has ended, and whoever says so books it.
    pub fn ended(&self, id: Uuid) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, RunningCall>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes notes for ever. One that cannot be written is dropped: the end of the call will be booked.
pub async fn note_calls(context: Arc<Context>) {
    loop {
        context.calls.some.notified().await;
        tokio::time::sleep(DELAY).await;
        let calls: Vec<RunningCall> = context.calls.lock().drain().map(|(_, call)| call).collect();
        if calls.is_empty() {
            continue;
        }
        if let Err(error) = write(&context, &calls).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                error,
                calls = calls.len(),
                "running upstream calls are not in the ledger"
            );
        }
    }
}

async fn write(context: &Context, calls: &[RunningCall]) -> StoreResult<()> {
    let mut tx = context.db.sweep_async().await?;
    ledger::started(&mut tx, calls).await?;
    tx.commit().await
}
