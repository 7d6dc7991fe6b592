//! Adding what this worker has counted to the fleet's figures.

use std::sync::Arc;
use std::time::Duration;

use shared::domain::GenerationKind;
use shared::figures::{EVERY, Figure};
use shared::store::StoreResult;
use shared::store::figures::{self, CacheSize};

use time::OffsetDateTime;
use uuid::Uuid;

use crate::context::Context;

/// Adds for ever, now and then every few seconds.
pub async fn add_for_ever(context: Arc<Context>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = add(&context).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "figures were not added; they are with the next ones"
            );
        }
    }
}

/// Adds what was counted since the last time. What cannot be added is kept for the next time; a commit whose
/// answer is lost may count it twice.
///
/// # Errors
/// When the database fails.
pub async fn add(context: &Context) -> StoreResult<()> {
    let taken = context.figures.take();
    let (entries, bytes) = context.embedder.remembers().await;
    let added = async {
        let mut tx = context.db.sweep_async().await?;
        if !taken.is_empty() {
            figures::add(&mut tx, &taken).await?;
        }
        let size = CacheSize {
            entries: i64::try_from(entries).unwrap_or(i64::MAX),
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        };
        figures::remembers(&mut tx, context.boot, size).await?;
        tx.commit().await
    };
    let added = added.await;
    if added.is_err() {
        context.figures.give_back(&taken);
    }
    added
}

/// Notes the end of a reply, its failure included. Titles and welcomes are nobody's wait.
pub(crate) fn reply_ended(
    context: &Context,
    kind: GenerationKind,
    is_support: bool,
    accepted_at: OffsetDateTime,
    failed: bool,
) {
    let figure = match kind {
        GenerationKind::Title | GenerationKind::Welcome => return,
        _ if is_support => Figure::SupportReply,
        _ => Figure::Reply,
    };
    let took = context.clock.now() - accepted_at;
    let took = Duration::try_from(took).unwrap_or_default();
    context.figures.note(figure, took, failed);
}

/// When a generation was accepted, as its id tells.
pub(crate) fn accepted_at(id: Uuid, now: OffsetDateTime) -> OffsetDateTime {
    let (seconds, nanos) = id.get_timestamp().map_or((0, 0), |time| time.to_unix());
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .filter(|_| seconds > 0)
        .map_or(now, |at| at + Duration::from_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_when_it_was_made() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(1_763_000_000_123);
        assert_eq!(accepted_at(shared::id::new(now), now), now);
        assert_eq!(accepted_at(Uuid::nil(), now), now);
    }
}
