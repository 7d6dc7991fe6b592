//! Following one generation: the log from a point on, then live, without gap or repeat, to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Feed, Hub, PushedEvent, Subscription, read_log, terminal_event};
use crate::id::EventId;
use crate::redis::Redis;
use crate::store::{Db, StoreResult, generations};

/// How often the row is looked at while nothing of the generation comes, whatever comes of others: the
/// only source while Redis is away or full.
const LOOK_AT_ROW: Duration = Duration::from_secs(1);

/// A reader of one generation's events.
#[derive(Debug)]
pub struct Follow {
    db: Db,
    redis: Redis,
    subscription: Subscription,
    generation_id: Uuid,
    last: Option<EventId>,
    ready: VecDeque<Arc<PushedEvent>>,
    caught_up: bool,
    ended: bool,
    look_at: Instant,
}

impl Follow {
    /// Begins after `after`, or at the beginning of the log. The caller has checked that the
    /// generation is the user's.
    pub async fn new(
        db: Db,
        redis: Redis,
        hub: &Hub,
        user_id: Uuid,
        generation_id: Uuid,
        after: Option<EventId>,
    ) -> Self {
        // Listening begins before reading, so that nothing falls between the two.
        let subscription = hub.subscribe(user_id).await;
        Self {
            db,
            redis,
            subscription,
            generation_id,
            last: after,
            ready: VecDeque::new(),
            caught_up: false,
            look_at: Instant::now() + LOOK_AT_ROW,
            ended: after.is_some_and(|id| id.seq == EventId::TERMINAL_SEQ),
        }
    }

    /// The next event, or none after the terminal one.
    ///
    /// # Errors
    /// When neither Redis nor the database can be read.
    pub async fn next(&mut self) -> StoreResult<Option<Arc<PushedEvent>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                if let Some(event) = self.take(event) {
                    return Ok(Some(event));
                }
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            if !self.caught_up {
                self.caught_up = self.read_log().await;
                if self.ready.is_empty() {
                    self.read_row().await?;
                }
                if !self.caught_up && self.ready.is_empty() {
                    tokio::time::sleep(LOOK_AT_ROW).await;
                }
                continue;
            }
            match tokio::time::timeout_at(self.look_at, self.subscription.next()).await {
                Ok(Feed::Event(event)) if event.generation_id == Some(self.generation_id) => {
                    self.look_at = Instant::now() + LOOK_AT_ROW;
                    // A jump within an attempt means that an event was missed; the log has it. While it
                    // cannot be read, passing this event on would leave a hole: the log has it as well.
                    if self.follows(event.id) || self.read_log().await {
                        self.ready.push_back(event);
                    } else {
                        self.caught_up = false;
                    }
                }
                Ok(Feed::Event(_)) => {}
                Ok(Feed::Gap) => self.caught_up = false,
                Err(_) => {
                    self.look_at = Instant::now() + LOOK_AT_ROW;
                    self.read_row().await?;
                }
            }
        }
    }

    /// Whether `id` is what comes right after the last event.
    fn follows(&self, id: EventId) -> bool {
        match self.last {
            Some(last) => {
                id <= last || (id.attempt == last.attempt && id.seq == last.seq.saturating_add(1))
            }
            None => id.seq == 1 && id.attempt == 0,
        }
    }

    /// Passes an event on unless it was seen.
    fn take(&mut self, event: Arc<PushedEvent>) -> Option<Arc<PushedEvent>> {
        if self.ended || self.last.is_some_and(|last| event.id <= last) {
            return None;
        }
        self.last = Some(event.id);
        self.ended = event.kind.is_terminal();
        Some(event)
    }

    /// Reads what the log has after the last event. False when it cannot be read now.
    async fn read_log(&mut self) -> bool {
        match read_log(&self.redis, self.generation_id, self.last).await {
            Ok(events) => {
                self.ready.extend(events.into_iter().map(Arc::new));
                true
            }
            Err(failure) => {
                tracing::debug!(generation.id = %self.generation_id, %failure, "log not read");
                false
            }
        }
    }

    /// Synthesises the terminal event where the row has ended and the log does not say so.
    async fn read_row(&mut self) -> StoreResult<()> {
        let user_id = self.subscription.user_id();
        let mut tx = self.db.user(user_id).await?;
        let Some(generation) = generations::find_with_reply(&mut tx, self.generation_id).await?
        else {
            self.ended = true;
            return Ok(());
        };
        drop(tx);
        if let Some(event) = terminal_event(&generation) {
            // The row ends before the log does: what the log still has comes first.
            self.read_log().await;
            self.ready.push_back(Arc::new(PushedEvent::from(&event)));
        }
        Ok(())
    }
}
