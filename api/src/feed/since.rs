//! What came in a conversation after an event that its reader knows.
//!
//! One generation runs at a time, but the next ones are queued, and cancelled, meanwhile: the event that the reader saw
//! last may belong to a younger generation than the one whose text is still coming. So the logs are read side by side,
//! and told in the order in which Redis took the events.

use std::sync::Arc;
use std::time::Duration;

use shared::id::{self, EventId};
use shared::push::{Logged, PushedEvent, Taken, taken};
use shared::store::generations;
use uuid::Uuid;

use super::{Behind, whole_entries};
use crate::app::AppState;

/// How long before the event a generation may have been accepted that was still going on then.
const LONGEST: Duration = Duration::from_hours(24);
/// How far the database's clock and that of Redis may be apart.
const SKEW: Duration = Duration::from_mins(1);

/// What a resumed reader is to be told.
#[derive(Debug, Default)]
pub(super) struct Since {
    /// Up to where it knows the generations that go on.
    pub(super) seen: Vec<(Uuid, Option<EventId>)>,
    /// What it does not know, in order.
    pub(super) events: Vec<Arc<PushedEvent>>,
}

/// Reads what came after this event. Where Redis has forgotten it, what came after it of its own generation and
/// everything of younger ones.
pub(super) async fn read(
    app: &AppState,
    user_id: Uuid,
    conversation_id: Uuid,
    after: EventId,
) -> Result<Since, Behind> {
    // While Redis is away there are no logs either, and what has ended is told from the rows.
    let taken = taken(&app.redis, after).await.unwrap_or_default();
    let mark = taken.map(|taken| taken.at_us);
    let (oldest, younger, ended_within) = match taken {
        Some(Taken { age, .. }) => {
            let moment = app.gate.clock.now() - age;
            (
                id::floor(moment - LONGEST),
                id::floor(moment),
                (age + SKEW).as_secs_f64(),
            )
        }
        None => (after.generation_id, after.generation_id, 0.0),
    };
    let mut tx = app.db.user(user_id).await?;
    if mark.is_none() {
        // An event of the conversation itself that was forgotten says nothing of its generations.
        let row = generations::find(&mut tx, after.generation_id).await?;
        if row.is_none_or(|row| row.generation.conversation_id != conversation_id) {
            return Ok(Since::default());
        }
    }
    let ids = generations::going_on_since(&mut tx, conversation_id, oldest, younger, ended_within)
        .await?;
    drop(tx);
    let mut since = Since::default();
    let mut news: Vec<(u64, Arc<PushedEvent>)> = Vec::new();
    for id in ids {
        let known = |entry: &Logged| match mark {
            Some(mark) => entry.event.id == after || entry.at_us.is_some_and(|at| at <= mark),
            None => entry.event.id <= after,
        };
        let entries = whole_entries(app, user_id, id, None).await?;
        let first_new = entries
            .iter()
            .rposition(known)
            .map_or(0, |last_known| last_known + 1);
        let (old, new) = entries.split_at(first_new);
        since
            .seen
            .push((id, old.last().map(|entry| entry.event.id)));
        let mut at = old.last().and_then(|entry| entry.at_us).unwrap_or(0);
        for entry in new {
            at = at.max(entry.at_us.unwrap_or(0));
            news.push((at, Arc::new(entry.event.clone())));
        }
    }
    // Stable: what has the same moment, or none, stays in the order of its log.
    news.sort_by_key(|(at, _)| *at);
    since.events = news.into_iter().map(|(_, event)| event).collect();
    Ok(since)
}
