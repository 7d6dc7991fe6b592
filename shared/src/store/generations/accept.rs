//! Accepting a message: the user message and its generation become durable together.

use std::time::Duration;

use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::chain_json;
use crate::domain::{
    Attachment, Before, ContentType, ConversationStatus, Generation, GenerationKind,
    GenerationStatus, Message, Parked, Priority, SenderType, Timings, WaitsFor,
};
use crate::models::Model;
use crate::store::conn::Conn;
use crate::store::{Db, StoreError, StoreResult, UserTx};
use crate::{clock::Clock, id};

/// What a new message does while a generation of its conversation is unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// Waits its turn.
    #[default]
    Enqueue,
    /// Is refused.
    Reject,
    /// Cancels the unfinished ones first; the caller does so in the same transaction.
    Interrupt,
}

/// The user message to store.
#[derive(Clone, Debug)]
pub struct NewMessage<'a> {
    /// Where it belongs.
    pub conversation_id: Uuid,
    /// The text.
    pub content: &'a str,
    /// What it carries.
    pub content_type: ContentType,
    /// What is attached.
    pub attachments: &'a [Attachment],
    /// The message it continues; must be of the same conversation.
    pub parent_message_id: Option<Uuid>,
}

/// The work to queue.
#[derive(Clone, Debug)]
pub struct NewGeneration<'a> {
    /// The queue it waits in.
    pub priority: Priority,
    /// The models it may use, never empty.
    pub chain: &'a [Model],
    /// Whether clients want the text as it comes.
    pub stream: bool,
    /// How long it may take in all.
    pub deadline: Duration,
    /// Claims before it is given up.
    pub max_attempts: i32,
    /// Correlation, carried to the upstream and the notification.
    pub request_id: Option<&'a str>,
    /// W3C trace context.
    pub traceparent: Option<&'a str>,
}

/// What became of a new message.
#[derive(Debug)]
pub enum Accepted {
    /// Stored, once the transaction commits.
    Stored {
        /// The message of the person.
        user_message: Box<Message>,
        /// Its generation, queued.
        generation: Box<Generation>,
        /// Whether nothing older of the conversation is unfinished.
        is_head: bool,
        /// What it waits for before it can be claimed, and what is before it.
        parked: Option<Parked>,
    },
    /// There is no such conversation of this person.
    ConversationNotFound,
    /// The conversation is archived.
    NotActive,
    /// The parent is not a message of this conversation.
    ParentNotFound,
    /// `Concurrency::Reject`, and something is unfinished.
    Busy,
}

/// Locks a conversation until the transaction ends, so that what follows sees all that was
/// accepted before. Returns whether there is one.
///
/// # Errors
/// When the database fails.
pub async fn lock_conversation(tx: &mut UserTx, id: Uuid) -> StoreResult<bool> {
    let user_id = tx.user_id();
    let found = sqlx::query_scalar!(
        "SELECT id FROM chat.conversations WHERE id = $1 AND user_id = $2 AND status <> 'deleted' FOR UPDATE",
        id,
        user_id
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.is_some())
}

/// Stores a message and queues its generation, in one statement.
///
/// Ids are made here: the message sorts after everything in the conversation and the generation
/// after the message. When the conversation has moved past the id that the clock gave, the
/// statement stores nothing and is run once more with a later one. So it is when it had to wait for
/// the conversation: what it then sees of the unfinished generations is older than the lock.
///
/// # Errors
/// When the database fails.
pub async fn accept(
    tx: &mut UserTx,
    clock: &Clock,
    message: &NewMessage<'_>,
    generation: &NewGeneration<'_>,
    concurrency: Concurrency,
) -> StoreResult<Accepted> {
    let user_id = tx.user_id();
    let mut ids = Ids::new(clock, None);
    loop {
        let new = Insert {
            user_id,
            ids,
            message,
            generation,
            concurrency,
            places: tx.places(),
        };
        match insert(tx.conn(), &new).await?.or_again(clock) {
            Ok(accepted) => return Ok(accepted),
            Err(later) => ids = later,
        }
    }
}

/// Does what [`accept`] does as a transaction of its own, in one round trip.
///
/// When the connection breaks on the way, the statement is run again with the same ids, so that it
/// stores nothing if the first one was stored after all, however late.
///
/// # Errors
/// When the database fails.
pub async fn accept_alone(
    db: &Db,
    user_id: Uuid,
    clock: &Clock,
    message: &NewMessage<'_>,
    generation: &NewGeneration<'_>,
    concurrency: Concurrency,
) -> StoreResult<Accepted> {
    let mut ids = Ids::new(clock, None);
    loop {
        let new = Insert {
            user_id,
            ids,
            message,
            generation,
            concurrency,
            places: db.places(),
        };
        let inserted = if db.has_sessions() {
            insert(db.connection().await?.conn(), &new).await
        } else {
            insert_in_transaction(db, &new).await
        };
        let inserted = match inserted {
            Err(error) if error.is_unavailable() => insert_again(db, &new).await?,
            // Should a plan ever look before the statement has set its scope, nothing was stored.
            Ok(Inserted::Unseen) => insert_again(db, &new).await?,
            other => other?,
        };
        match inserted.or_again(clock) {
            Ok(accepted) => return Ok(accepted),
            Err(later) => ids = later,
        }
    }
}

/// After an attempt whose outcome is unknown, or that saw no conversation; in a transaction, whose
/// scope is set before.
async fn insert_again(db: &Db, new: &Insert<'_>) -> StoreResult<Inserted> {
    let inserted = insert_in_transaction(db, new).await;
    let stored_before = match &inserted {
        Ok(Inserted::Behind(_)) => true,
        // The first attempt is being committed beside this one.
        Err(error) => error.constraint().is_some(),
        Ok(_) => false,
    };
    if !stored_before {
        return inserted;
    }
    let mut tx = db.user(new.user_id).await?;
    match super::find_with_reply(&mut tx, new.ids.generation).await? {
        // To push what is not the head or is parked does no harm.
        Some(row) => Ok(Inserted::Done(new.stored(
            row.timings.queued_at,
            true,
            None,
        )?)),
        None => inserted,
    }
}

async fn insert_in_transaction(db: &Db, new: &Insert<'_>) -> StoreResult<Inserted> {
    let mut tx = db.user(new.user_id).await?;
    let inserted = insert(tx.conn(), new).await?;
    tx.commit().await?;
    Ok(inserted)
}

/// What one attempt to store a message is about.
struct Insert<'a> {
    user_id: Uuid,
    ids: Ids,
    message: &'a NewMessage<'a>,
    generation: &'a NewGeneration<'a>,
    concurrency: Concurrency,
    places: i64,
}

#[derive(Clone, Copy)]
struct Ids {
    message: Uuid,
    generation: Uuid,
}

impl Ids {
    fn new(clock: &Clock, last: Option<Uuid>) -> Self {
        let message = id::new_after(clock.now(), last);
        Self {
            message,
            generation: id::new_after(clock.now(), Some(message)),
        }
    }
}

enum Inserted {
    Done(Accepted),
    Behind(Uuid),
    Stale,
    /// Nothing was stored, and in this scope there is no such conversation.
    Unseen,
}

impl Inserted {
    /// What was accepted, or the ids to try again with.
    fn or_again(self, clock: &Clock) -> Result<Accepted, Ids> {
        match self {
            Self::Done(accepted) => Ok(accepted),
            Self::Behind(last_id) => Err(Ids::new(clock, Some(last_id))),
            Self::Stale => Err(Ids::new(clock, None)),
            Self::Unseen => Ok(Accepted::ConversationNotFound),
        }
    }
}

/// The statement sets the scope itself, so that it can run as a transaction of its own. What it reads
/// depends on the first part's result and is therefore read after it; that it stored something it
/// says itself, and is not inferred.
async fn insert(conn: Conn<'_>, new: &Insert<'_>) -> StoreResult<Inserted> {
    let Insert {
        user_id,
        ids,
        message,
        generation,
        concurrency,
        places,
    } = new;
    let model = generation.model()?;
    let row = sqlx::query!(
        r#"WITH scope AS MATERIALIZED (
               SELECT set_config('app.current_user_id', $2::uuid::text, true)::uuid AS user_id
           ), conversation AS (
               SELECT c.* FROM scope CROSS JOIN LATERAL (
                   SELECT c.id, c.status, c.last_id, c.context_type, c.xmin AS written_by FROM chat.conversations c
                   WHERE c.id = $1 AND c.user_id = scope.user_id AND c.status <> 'deleted' FOR NO KEY UPDATE
               ) c
           ), checked AS (
               SELECT c.*, c.last_id < $3 AS id_fits,
                      c.written_by = (SELECT s.xmin FROM chat.conversations s WHERE s.id = c.id) AS is_current,
                      ($5::uuid IS NULL OR EXISTS (
                          SELECT FROM chat.messages p WHERE p.id = $5 AND p.conversation_id = c.id)) AS parent_fits,
                      NOT EXISTS (
                          SELECT FROM chat.generations g
                          WHERE g.conversation_id = c.id AND g.status IN ('queued', 'in_progress')
                            AND g.kind <> 'title') AS is_head
               FROM conversation c
           ), touched AS (
               UPDATE chat.conversations c
               SET message_count = c.message_count + 1, last_id = $4, last_message_at = now(),
                   last_activity_at = now(), updated_at = now()
               FROM checked k
               WHERE c.id = k.id AND k.status = 'active' AND k.is_current AND k.id_fits AND k.parent_fits
                 AND (k.is_head OR NOT $6)
               RETURNING c.id, c.user_id, c.context_type
           ), placed AS (
               SELECT t.*, CASE WHEN NOT k.is_head THEN 'turn' WHEN $20 <= (
                   SELECT count(*) FROM (
                       SELECT FROM chat.generations a
                       WHERE a.user_id = t.user_id AND a.finished_at IS NULL AND a.parked IS NULL
                         AND a.kind <> 'title' LIMIT $20) active) THEN 'place' END AS parked
               FROM touched t CROSS JOIN checked k
           ), message AS (
               INSERT INTO chat.messages (id, user_id, conversation_id, sender_type, content, content_type,
                                          attachments, parent_message_id, token_count)
               SELECT $3, $2, t.id, 'user', $7, $8, $9, $5, $10 FROM touched t
           ), generation AS (
               INSERT INTO chat.generations (id, user_id, conversation_id, kind, context_type, priority, model_chain,
                                             model, is_free_model, stream, user_message_id, max_attempts, deadline_at,
                                             request_id, traceparent, parked, run_at)
               SELECT $4, $2, p.id, 'reply', p.context_type, $11, $12, $13, $14, $15, $3, $16,
                      now() + $17 * interval '1 second', $18, $19, p.parked,
                      CASE WHEN p.parked IS NULL THEN now() ELSE 'infinity' END
               FROM placed p
           )
           SELECT EXISTS (SELECT FROM touched) AS "is_stored!", k.status AS "status!: ConversationStatus",
                  k.last_id AS "last_id!", k.id_fits AS "id_fits!",
                  k.is_current AS "is_current!", k.parent_fits AS "parent_fits!", k.is_head AS "is_head!", now() AS "now!: OffsetDateTime",
                  p.parked AS "parked?: WaitsFor", a.parked AS "older?", a.running AS "running?", a.turns AS "turns?"
           FROM checked k LEFT JOIN placed p ON true
           LEFT JOIN LATERAL (
               -- Without OFFSET 0 the condition would be looked at after the function was called.
               SELECT * FROM chat.ahead($4, $2, k.id, p.parked) WHERE p.parked IS NOT NULL OFFSET 0
           ) a ON true"#,
        message.conversation_id,
        user_id,
        ids.message,
        ids.generation,
        message.parent_message_id,
        *concurrency == Concurrency::Reject,
        message.content,
        message.content_type as _,
        Json(message.attachments) as _,
        i32::try_from(crate::domain::safe_tokens(message.content)).unwrap_or(i32::MAX),
        generation.priority as _,
        chain_json(generation.chain),
        model.name,
        model.free,
        generation.stream,
        generation.max_attempts,
        generation.deadline.as_secs_f64(),
        generation.request_id,
        generation.traceparent,
        places,
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else {
        return Ok(Inserted::Unseen);
    };
    if row.status != ConversationStatus::Active {
        return Ok(Inserted::Done(Accepted::NotActive));
    }
    if !row.is_current {
        return Ok(Inserted::Stale);
    }
    if !row.parent_fits {
        return Ok(Inserted::Done(Accepted::ParentNotFound));
    }
    if *concurrency == Concurrency::Reject && !row.is_head {
        return Ok(Inserted::Done(Accepted::Busy));
    }
    if !row.id_fits {
        return Ok(Inserted::Behind(row.last_id));
    }
    if !row.is_stored {
        return Ok(Inserted::Unseen);
    }
    let parked = row.parked.map(|waits_for| {
        let before = Before {
            parked: row.older.unwrap_or(0),
            running: row.running.unwrap_or(0),
            turns: row.turns.unwrap_or(0),
        };
        Parked::behind(waits_for, before, *places)
    });
    Ok(Inserted::Done(new.stored(row.now, row.is_head, parked)?))
}

impl NewGeneration<'_> {
    /// The model that will most likely answer.
    pub(super) fn model(&self) -> StoreResult<&Model> {
        let none = || StoreError::Corrupt("a generation needs a model".to_owned());
        crate::models::likely_first(self.chain).ok_or_else(none)
    }
}

impl Insert<'_> {
    /// The public shape of what was stored, so that it need not be read back.
    fn stored(
        &self,
        now: OffsetDateTime,
        is_head: bool,
        parked: Option<Parked>,
    ) -> StoreResult<Accepted> {
        let user_message = Message {
            id: self.ids.message,
            conversation_id: self.message.conversation_id,
            sender_type: SenderType::User,
            content: self.message.content.to_owned(),
            content_type: self.message.content_type,
            attachments: self.message.attachments.to_vec(),
            metadata: serde_json::json!({}),
            parent_message_id: self.message.parent_message_id,
            superseded_by: None,
            created_at: now,
        };
        let queued = queued_generation(
            self.ids.generation,
            self.message.conversation_id,
            GenerationKind::Reply,
            self.generation.model()?,
            self.ids.message,
            now,
        );
        Ok(Accepted::Stored {
            user_message: Box::new(user_message),
            generation: Box::new(queued),
            is_head,
            parked,
        })
    }
}

/// The public shape of a generation that was just queued, so that it need not be read back.
pub(super) fn queued_generation(
    id: Uuid,
    conversation_id: Uuid,
    kind: GenerationKind,
    model: &Model,
    user_message_id: Uuid,
    now: OffsetDateTime,
) -> Generation {
    Generation {
        id,
        conversation_id,
        kind,
        status: GenerationStatus::Queued,
        model: model.name.clone(),
        attempts: 0,
        queue_position: None,
        estimated_response_time_ms: None,
        is_free_model: model.free,
        error: None,
        partial_content: None,
        timings: Timings {
            queued_at: now,
            started_at: None,
            first_token_at: None,
            finished_at: None,
        },
        user_message_id: Some(user_message_id),
        assistant_message_id: None,
        assistant_message: None,
        usage: None,
        context: None,
    }
}
