//! A person's places: at most so many generations of one person are active, which is to say that
//! they run or can be claimed. The others are parked.
//!
//! **Invariant:** what is parked is woken. Each statement that ends generations is followed, in its
//! transaction, by a wake for their people and conversations, and what two transactions could not see
//! of each other is found by [`wake_lost`]. Only the head of a conversation may take a place, so that
//! nothing that holds one waits for somebody who needs one. A title takes none.
//!
//! Two statements of one person that run in the same moment do not see each other, so two messages
//! that are accepted in different conversations may both get the last place. The limit is then
//! exceeded by about as many as the person had requests on the way, until so many have ended: nothing
//! is woken before. To make it exact would be a lock for each message.

use uuid::Uuid;

use super::{Expired, Next};
use crate::domain::{Before, Generation, Parked, Priority, WaitsFor};
use crate::store::conn::Conn;
use crate::store::{StoreResult, SweepTx, UserTx};

/// Wakes for these people what waits for a place, as far as they have free ones; what is head of one
/// of these conversations by now waits with them.
pub(super) async fn wake(
    conn: Conn<'_>,
    people: &[Uuid],
    conversations: &[Uuid],
    places: i64,
) -> StoreResult<Vec<Next>> {
    if people.is_empty() {
        return Ok(Vec::new());
    }
    let woken = sqlx::query!(
        r#"SELECT generation_id AS "id!", queue AS "priority!: Priority" FROM chat.wake($1, $2, $3)"#,
        people,
        conversations,
        places,
    )
    .fetch_all(conn)
    .await?;
    Ok(woken
        .into_iter()
        .map(|row| Next {
            id: row.id,
            priority: row.priority,
        })
        .collect())
}

/// Wakes what the end of these makes room for; those that went back to the queue keep their places.
///
/// # Errors
/// When the database fails.
pub async fn wake_after(tx: &mut SweepTx, expired: &[Expired]) -> StoreResult<Vec<Next>> {
    let ended = expired.iter().filter(|expired| expired.failed.is_some());
    let (people, conversations): (Vec<Uuid>, Vec<Uuid>) = ended
        .map(|expired| (expired.user_id, expired.conversation_id))
        .unzip();
    let places = tx.places();
    wake(tx.conn(), &people, &conversations, places).await
}

/// How far a look at everything that is parked has got; it begins again when it has seen all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    conversation: Uuid,
    person: Uuid,
}

/// Wakes what nobody else will: its end was not seen because both happened at once, an older version
/// ended what was before it, or the limit was raised. Looks at so many conversations in which
/// something waits for its turn, and at so many people of whom something waits for a place, from
/// where the last `look` ended; each costs the same, however much is parked there.
///
/// # Errors
/// When the database fails.
pub async fn wake_lost(tx: &mut SweepTx, look: &mut Look, limit: i64) -> StoreResult<Vec<Next>> {
    let turns = sqlx::query!(
        r#"WITH RECURSIVE waiting AS (
               (SELECT g.conversation_id, g.user_id FROM chat.generations g
                WHERE g.parked = 'turn' AND g.conversation_id > $1
                ORDER BY g.conversation_id, g.id LIMIT 1)
               UNION ALL
               SELECT n.conversation_id, n.user_id FROM waiting w CROSS JOIN LATERAL (
                   SELECT g.conversation_id, g.user_id FROM chat.generations g
                   WHERE g.parked = 'turn' AND g.conversation_id > w.conversation_id
                   ORDER BY g.conversation_id, g.id LIMIT 1
               ) n
           )
           SELECT conversation_id AS "conversation_id!", user_id AS "user_id!" FROM waiting LIMIT $2"#,
        look.conversation,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    let people = sqlx::query_scalar!(
        r#"WITH RECURSIVE waiting AS (
               (SELECT g.user_id FROM chat.generations g
                WHERE g.parked IS NOT NULL AND g.user_id > $1
                ORDER BY g.user_id, g.parked, g.id LIMIT 1)
               UNION ALL
               SELECT n.user_id FROM waiting w CROSS JOIN LATERAL (
                   SELECT g.user_id FROM chat.generations g
                   WHERE g.parked IS NOT NULL AND g.user_id > w.user_id
                   ORDER BY g.user_id, g.parked, g.id LIMIT 1
               ) n
           )
           SELECT user_id AS "user_id!" FROM waiting LIMIT $2"#,
        look.person,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    let is_full = |seen: usize| i64::try_from(seen).is_ok_and(|seen| seen >= limit);
    *look = Look {
        conversation: turns
            .last()
            .filter(|_| is_full(turns.len()))
            .map_or(Uuid::nil(), |row| row.conversation_id),
        person: people
            .last()
            .filter(|_| is_full(people.len()))
            .map_or(Uuid::nil(), |person| *person),
    };
    let conversations: Vec<Uuid> = turns.iter().map(|row| row.conversation_id).collect();
    let people: Vec<Uuid> = turns.iter().map(|row| row.user_id).chain(people).collect();
    let places = tx.places();
    wake(tx.conn(), &people, &conversations, places).await
}

/// Whether the head of a conversation that is about to be queued must wait for a place, and what is
/// before it. What is no head waits for its turn.
pub(in crate::store) async fn park(
    tx: &mut UserTx,
    conversation_id: Uuid,
    generation_id: Uuid,
    is_head: bool,
) -> StoreResult<Option<Parked>> {
    let (user_id, places) = (tx.user_id(), tx.places());
    let waits_for = if is_head {
        let active = sqlx::query_scalar!(
            r#"SELECT count(*) AS "active!" FROM (
                   SELECT FROM chat.generations a
                   WHERE a.user_id = $1 AND a.finished_at IS NULL AND a.parked IS NULL
                     AND a.kind <> 'title' LIMIT $2) active"#,
            user_id,
            places,
        )
        .fetch_one(tx.conn())
        .await?;
        (active >= places).then_some(WaitsFor::Place)
    } else {
        Some(WaitsFor::Turn)
    };
    match waits_for {
        Some(waits_for) => {
            let before = before(tx, conversation_id, generation_id, waits_for).await?;
            Ok(Some(Parked::behind(waits_for, before, places)))
        }
        None => Ok(None),
    }
}

/// What is before a generation that is parked; none where it can be claimed.
///
/// # Errors
/// When the database fails.
pub async fn parked(
    tx: &mut UserTx,
    generation: &Generation,
    waits_for: Option<WaitsFor>,
) -> StoreResult<Option<Parked>> {
    let Some(waits_for) = waits_for else {
        return Ok(None);
    };
    let before = before(tx, generation.conversation_id, generation.id, waits_for).await?;
    Ok(Some(Parked::behind(waits_for, before, tx.places())))
}

async fn before(
    tx: &mut UserTx,
    conversation_id: Uuid,
    generation_id: Uuid,
    waits_for: WaitsFor,
) -> StoreResult<Before> {
    let user_id = tx.user_id();
    let before = sqlx::query_as!(
        Before,
        r#"SELECT parked AS "parked!", running AS "running!", turns AS "turns!" FROM chat.ahead($1, $2, $3, $4)"#,
        generation_id,
        user_id,
        conversation_id,
        waits_for as _,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(before)
}
