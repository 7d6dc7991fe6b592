//! Notifications that were given up and wait for an operator.

use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::clock::Clock;
use crate::domain::{
    DeadDelivery, DeadNotification, DeadNotificationCount, DeadReason, Destination,
    NotificationType,
};
use crate::id;
use crate::store::audit::{self, Actor, Entry};
use crate::store::{OperatorTx, StoreResult, UserTx};

/// Which dead notifications to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter {
    /// Only those that this destination did not get.
    pub destination: Option<Destination>,
    /// Only those that were given up for this reason.
    pub reason: Option<DeadReason>,
    /// Only this person's.
    pub user_id: Option<Uuid>,
    /// Only those older than this one.
    pub before: Option<Uuid>,
    /// At most so many notifications, each with all its dead deliveries that match.
    pub limit: i64,
}

struct Row {
    id: Uuid,
    user_id: Uuid,
    conversation_id: Uuid,
    generation_id: Option<Uuid>,
    kind: NotificationType,
    occurred_at: OffsetDateTime,
    request_id: Option<String>,
    destination: Destination,
    reason: DeadReason,
    attempts: i32,
    last_error: Option<String>,
    first_try_at: Option<OffsetDateTime>,
    dead_at: OffsetDateTime,
    age_seconds: i64,
}

/// The dead notifications, newest first, and whether there are more. A page is made of notifications
/// and not of rows, so it never parts the destinations of one.
///
/// # Errors
/// When the database fails.
pub async fn list(
    tx: &mut OperatorTx,
    filter: &Filter,
) -> StoreResult<(Vec<DeadNotification>, bool)> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT n.id, n.user_id, n.conversation_id, n.generation_id, n.type AS "kind: NotificationType",
                  n.occurred_at, n.request_id, n.destination AS "destination: Destination",
                  n.dead_reason AS "reason!: DeadReason", n.attempts, n.last_error, n.first_try_at,
                  n.dead_at AS "dead_at!", floor(extract(epoch FROM now() - n.dead_at))::bigint AS "age_seconds!"
           FROM (SELECT DISTINCT p.id FROM chat.notifications p
                 WHERE p.dead_at IS NOT NULL AND ($1::text IS NULL OR p.destination = $1)
                   AND ($2::text IS NULL OR p.dead_reason = $2) AND ($3::uuid IS NULL OR p.user_id = $3)
                   AND ($4::uuid IS NULL OR p.id < $4)
                 ORDER BY p.id DESC LIMIT $5) page
           JOIN chat.notifications n ON n.id = page.id
           WHERE n.dead_at IS NOT NULL AND ($1::text IS NULL OR n.destination = $1)
             AND ($2::text IS NULL OR n.dead_reason = $2)
           ORDER BY n.id DESC, n.destination"#,
        filter.destination.map(Destination::as_str),
        filter.reason.map(DeadReason::as_str),
        filter.user_id,
        filter.before,
        filter.limit + 1,
    )
    .fetch_all(tx.conn())
    .await?;
    let mut dead: Vec<DeadNotification> = Vec::new();
    for row in rows {
        let delivery = DeadDelivery {
            destination: row.destination,
            reason: row.reason,
            attempts: row.attempts,
            last_error: row.last_error,
            first_try_at: row.first_try_at,
            dead_at: row.dead_at,
            age_seconds: row.age_seconds,
        };
        match dead.last_mut().filter(|last| last.id == row.id) {
            Some(last) => last.deliveries.push(delivery),
            None => dead.push(DeadNotification {
                id: row.id,
                user_id: row.user_id,
                conversation_id: row.conversation_id,
                generation_id: row.generation_id,
                kind: row.kind,
                occurred_at: row.occurred_at,
                request_id: row.request_id,
                deliveries: vec![delivery],
            }),
        }
    }
    let limit = usize::try_from(filter.limit).unwrap_or(0);
    let has_more = dead.len() > limit;
    dead.truncate(limit);
    Ok((dead, has_more))
}

/// How many dead notifications there are by destination and reason, most first.
///
/// # Errors
/// When the database fails.
pub async fn counts(tx: &mut OperatorTx) -> StoreResult<Vec<DeadNotificationCount>> {
    let counts = sqlx::query_as!(
        DeadNotificationCount,
        r#"SELECT destination AS "destination: Destination", dead_reason AS "reason!: DeadReason", count(*) AS "count!"
           FROM chat.notifications WHERE dead_at IS NOT NULL
           GROUP BY destination, dead_reason ORDER BY 3 DESC, 1, 2"#
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(counts)
}

/// Which dead deliveries are meant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Which {
    /// Those of this destination; of both, where none is named.
    pub destination: Option<Destination>,
    /// Those that were given up for this reason.
    pub reason: Option<DeadReason>,
}

/// Whose dead notifications these are, oldest first; ids of others are left out.
///
/// # Errors
/// When the database fails.
pub async fn owners(tx: &mut OperatorTx, ids: &[Uuid]) -> StoreResult<Vec<(Uuid, Uuid)>> {
    let rows = sqlx::query!(
        "SELECT DISTINCT id, user_id FROM chat.notifications WHERE id = ANY($1) AND dead_at IS NOT NULL ORDER BY id",
        ids
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.user_id)).collect())
}

/// The dead notifications that are meant with their owners, oldest first, at most `limit` after `after`.
///
/// # Errors
/// When the database fails.
pub async fn like(
    tx: &mut OperatorTx,
    which: Which,
    after: Option<Uuid>,
    limit: i64,
) -> StoreResult<Vec<(Uuid, Uuid)>> {
    let rows = sqlx::query!(
        "SELECT DISTINCT id, user_id FROM chat.notifications
         WHERE dead_at IS NOT NULL AND ($1::text IS NULL OR destination = $1)
           AND ($2::text IS NULL OR dead_reason = $2) AND ($3::uuid IS NULL OR id > $3)
         ORDER BY id LIMIT $4",
        which.destination.map(Destination::as_str),
        which.reason.map(DeadReason::as_str),
        after,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.user_id)).collect())
}

/// Lets a dead notification be tried again, for another day. Returns at which destinations; none where
/// it is not dead there, or not this person's.
///
/// # Errors
/// When the database fails.
pub async fn replay(
    tx: &mut UserTx,
    clock: &Clock,
    notification: Uuid,
    which: Which,
    actor: &Actor,
) -> StoreResult<Vec<Destination>> {
    let user_id = tx.user_id();
    let again = sqlx::query_scalar!(
        r#"UPDATE chat.notifications
           SET dead_at = NULL, dead_reason = NULL, first_try_at = NULL, next_try_at = now()
           WHERE id = $1 AND user_id = $2 AND dead_at IS NOT NULL AND ($3::text IS NULL OR destination = $3)
             AND ($4::text IS NULL OR dead_reason = $4)
           RETURNING destination AS "destination: Destination""#,
        notification,
        user_id,
        which.destination.map(Destination::as_str),
        which.reason.map(DeadReason::as_str),
    )
    .fetch_all(tx.conn())
    .await?;
    let action = "dead_notification.replay";
    note(tx, clock, notification, action, actor, again).await
}

/// Removes a dead notification. Returns of which destinations, as [`replay`] does.
///
/// # Errors
/// When the database fails.
pub async fn discard(
    tx: &mut UserTx,
    clock: &Clock,
    notification: Uuid,
    which: Which,
    actor: &Actor,
) -> StoreResult<Vec<Destination>> {
    let user_id = tx.user_id();
    let gone = sqlx::query_scalar!(
        r#"DELETE FROM chat.notifications
           WHERE id = $1 AND user_id = $2 AND dead_at IS NOT NULL AND ($3::text IS NULL OR destination = $3)
             AND ($4::text IS NULL OR dead_reason = $4)
           RETURNING destination AS "destination: Destination""#,
        notification,
        user_id,
        which.destination.map(Destination::as_str),
        which.reason.map(DeadReason::as_str),
    )
    .fetch_all(tx.conn())
    .await?;
    let action = "dead_notification.discard";
    note(tx, clock, notification, action, actor, gone).await
}

async fn note(
    tx: &mut UserTx,
    clock: &Clock,
    notification: Uuid,
    action: &str,
    actor: &Actor,
    mut destinations: Vec<Destination>,
) -> StoreResult<Vec<Destination>> {
    destinations.sort_unstable();
    if !destinations.is_empty() {
        let entry = Entry {
            id: id::new(clock.now()),
            actor,
            action,
            subject: &notification.to_string(),
            details: &json!({ "destinations": destinations }),
        };
        audit::note(tx, &entry).await?;
    }
    Ok(destinations)
}
