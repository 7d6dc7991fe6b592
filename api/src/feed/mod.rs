//! The live feed of one user: every event once and in order, also across a lost connection to
//! Redis, and the logs a client asks to resume.

mod seen;
mod since;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use shared::id::EventId;
use shared::push::{Feed, Logged, PushedEvent, Subscription, read_entries, terminal_event};
use shared::redis::RedisFailure;
use shared::store::generations::{self, Filter};
use shared::store::{StoreError, StoreResult};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use self::seen::Seen;
use crate::app::AppState;
use crate::error::chain;
use crate::routes::load_generation;

/// Wishes to resume that may wait at once.
const MAX_WORK: usize = 64;
/// Generations that are looked at after a gap: the newest ones, besides those that the client has seen begin.
const LOOKED_AT: i64 = 100;

/// How often those are looked at that have not ended and of which nothing has come since: a worker may
/// have died before it told of the end, or Redis was full and had no room for it.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// A user's feed, perhaps of one conversation only.
#[derive(Debug)]
pub(crate) struct LiveFeed {
    app: AppState,
    user_id: Uuid,
    conversation_id: Option<Uuid>,
    /// Generations made after this id belong to the feed from their first event on.
    since: Uuid,
    subscription: Subscription,
    seen: Seen,
    work: VecDeque<Work>,
    ready: VecDeque<Arc<PushedEvent>>,
    look_at: Instant,
}

/// What must be read before the feed goes on. It is kept in the feed and not in a local variable,
/// because [`LiveFeed::next`] may be dropped at any await.
#[derive(Debug)]
enum Work {
    /// Events before this one were missed.
    Missed(Arc<PushedEvent>),
    /// Anything may have been missed.
    Gap,
    /// A client wants the log after a point.
    Resume(Uuid, Option<EventId>),
    /// A client wants what came after this event in the conversation.
    Since(EventId),
    /// The logs of these generations, oldest first.
    Logs(VecDeque<Uuid>),
}

impl LiveFeed {
    /// Begins to listen. What is published after this returns is delivered.
    pub(crate) async fn new(app: AppState, user_id: Uuid, conversation_id: Option<Uuid>) -> Self {
        let subscription = app.hub.subscribe(user_id).await;
        let since = shared::id::floor(app.gate.clock.now());
        Self {
            app,
            user_id,
            conversation_id,
            since,
            subscription,
            seen: Seen::default(),
            work: VecDeque::new(),
            ready: VecDeque::new(),
            look_at: Instant::now() + LOOK_EVERY,
        }
    }

    /// Delivers the log of a generation after `after` before anything live. The caller has checked
    /// that it is the user's. Returns whether there was room for the wish.
    pub(crate) fn resume(&mut self, generation_id: Uuid, after: Option<EventId>) -> bool {
        let room = self.work.len() < MAX_WORK;
        if room {
            self.work.push_back(Work::Resume(generation_id, after));
        }
        room
    }

    /// Delivers what came after this event in the feed's conversation before anything live.
    pub(crate) fn resume_after(&mut self, event: EventId) {
        self.work.push_back(Work::Since(event));
    }

    /// The next event. Never ends; may be dropped at any time and called again.
    pub(crate) async fn next(&mut self) -> Arc<PushedEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                if self.seen.admit(&event) {
                    return event;
                }
                continue;
            }
            if !self.work.is_empty() {
                // Rare and large, so it takes no room in the ten thousand feeds that are idle.
                if let Err(error) = Box::pin(self.catch_up()).await {
                    // What has to be read is read once it can be; nothing is left out.
                    tracing::warn!(user.id = %self.user_id, error = chain(&error), "failed to catch up with events");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                continue;
            }
            let next = self.subscription.next();
            let next = if self.seen.expects_more() {
                timeout_at(self.look_at, next).await
            } else {
                Ok(next.await)
            };
            match next {
                Ok(Feed::Event(event)) if self.is_elsewhere(&event) => {}
                Ok(Feed::Event(event)) if self.seen.has_missed(&event) => {
                    self.work.push_back(Work::Missed(event))
                }
                Ok(Feed::Event(event)) => self.ready.push_back(event),
                Ok(Feed::Gap) => self.work.push_back(Work::Gap),
                Err(_) => {
                    self.look_at = Instant::now() + LOOK_EVERY;
                    let silent = self.seen.silent();
                    if !silent.is_empty() {
                        self.work.push_back(Work::Logs(silent));
                    }
                }
            }
        }
    }

    fn is_elsewhere(&self, event: &PushedEvent) -> bool {
        self.conversation_id
            .is_some_and(|id| id != event.conversation_id)
    }

    /// Does the first piece of work. It leaves the queue only when it is done.
    async fn catch_up(&mut self) -> Result<(), Behind> {
        let Some(work) = self.work.front_mut() else {
            return Ok(());
        };
        // Never closed, so this only waits for a turn.
        let _turn = self.app.catching_up.acquire().await.ok();
        let mut found = Vec::new();
        let next = match work {
            Work::Missed(event) => {
                if let Some(id) = event.generation_id {
                    let after = self.seen.last(id);
                    found = whole_log(&self.app, self.user_id, id, after).await?;
                }
                found.push(Arc::clone(event));
                None
            }
            Work::Gap => {
                let ids = missed(
                    &self.app,
                    self.user_id,
                    self.conversation_id,
                    self.since,
                    &self.seen,
                )
                .await?;
                Some(Work::Logs(ids))
            }
            Work::Resume(id, after) => {
                found = whole_log(&self.app, self.user_id, *id, *after).await?;
                self.seen.forget(*id, *after);
                None
            }
            Work::Since(after) => {
                if let Some(conversation_id) = self.conversation_id {
                    let since =
                        since::read(&self.app, self.user_id, conversation_id, *after).await?;
                    for (id, event) in since.seen {
                        self.seen.forget(id, event);
                    }
                    found = since.events;
                }
                None
            }
            Work::Logs(ids) => {
                if let Some(id) = ids.front().copied() {
                    found = whole_log(&self.app, self.user_id, id, self.seen.last(id)).await?;
                    ids.pop_front();
                }
                (!ids.is_empty()).then(|| Work::Logs(std::mem::take(ids)))
            }
        };
        match next {
            Some(next) => *work = next,
            None => drop(self.work.pop_front()),
        }
        self.ready.extend(found);
        Ok(())
    }
}

/// The generations that a gap may concern: those the feed was in the midst of, and those that were
/// made since it began.
async fn missed(
    app: &AppState,
    user_id: Uuid,
    conversation_id: Option<Uuid>,
    since: Uuid,
    seen: &Seen,
) -> StoreResult<VecDeque<Uuid>> {
    let mut tx = app.db.user(user_id).await?;
    let filter = Filter {
        status: None,
        conversation_id,
        limit: LOOKED_AT,
        offset: 0,
    };
    let (newest_first, _) = generations::list(&mut tx, &filter).await?;
    let ids = newest_first.iter().map(|generation| generation.id);
    let ids = ids.filter(|id| *id > since || seen.follows(*id));
    // Who has hundreds under way does not lose the ends of the older ones.
    let ids: BTreeSet<Uuid> = ids.chain(seen.unfinished()).collect();
    Ok(ids.into_iter().filter(|id| !seen.has_ended(*id)).collect())
}

/// What cannot be read now. Going on without would leave a hole.
#[derive(Debug, thiserror::Error)]
enum Behind {
    #[error(transparent)]
    Row(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] RedisFailure),
}

fn is_whole(entries: &[Logged]) -> bool {
    let last = entries.last();
    last.is_some_and(|entry| entry.event.kind.is_terminal())
}

async fn whole_log(
    app: &AppState,
    user_id: Uuid,
    id: Uuid,
    after: Option<EventId>,
) -> Result<Vec<Arc<PushedEvent>>, Behind> {
    let entries = whole_entries(app, user_id, id, after).await?;
    let events = entries.into_iter().map(|entry| Arc::new(entry.event));
    Ok(events.collect())
}

/// The log, and the terminal event from the row where the log does not have it (any more).
async fn whole_entries(
    app: &AppState,
    user_id: Uuid,
    id: Uuid,
    after: Option<EventId>,
) -> Result<Vec<Logged>, Behind> {
    if after.is_some_and(|id| id.seq == EventId::TERMINAL_SEQ) {
        return Ok(Vec::new());
    }
    let logged = read_entries(&app.redis, id, after).await;
    if logged.as_deref().is_ok_and(is_whole) {
        return Ok(logged?);
    }
    let row = load_generation(app, user_id, id).await?;
    let Some(event) = row.and_then(|found| terminal_event(&found.generation)) else {
        return Ok(logged?);
    };
    // The row ends before the log does: what came meanwhile stands before the end. Where the log
    // cannot be read, the end brings the whole reply all the same.
    let mut entries = read_entries(&app.redis, id, after)
        .await
        .unwrap_or_default();
    if !is_whole(&entries) {
        let ended_us = u64::try_from(event.at.unix_timestamp_nanos() / 1_000).ok();
        entries.push(Logged {
            event: PushedEvent::from(&event),
            // Behind what the log still has, nobody knows whether it was told.
            at_us: ended_us.filter(|_| entries.is_empty()),
        });
    }
    Ok(entries)
}
