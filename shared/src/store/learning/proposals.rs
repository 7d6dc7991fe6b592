//! Entries that editors may add, made of what people answered who took a conversation over.

use uuid::Uuid;

use crate::clock::Clock;
use crate::desk::mask;
use crate::domain::{Proposal, ProposalState};
use crate::id;
use crate::store::{EditorTx, StoreResult, UserTx};

/// Characters of what was asked, answered and resolved that are kept.
const ISSUE: usize = 2_000;
const SOLUTION: usize = 20_000;
const RESOLUTION: usize = 2_000;
/// Messages of a conversation that are looked at, the newest.
const MESSAGES: i64 = 200;

/// Makes a proposal of a conversation that a person has just resolved: what was asked last before the first
/// of their answers, and all of these. Returns whether there was anything to propose.
///
/// # Errors
/// When the database fails.
pub async fn propose(
    tx: &mut UserTx,
    clock: &Clock,
    conversation_id: Uuid,
    resolution: &str,
) -> StoreResult<bool> {
    let user_id = tx.user_id();
    // Answers that an earlier proposal is made of are not proposed again.
    let mut messages = sqlx::query!(
        r#"SELECT m.id, m.content, m.sender_type = 'user' AS "asks!", COALESCE((m.metadata ->> 'human')::boolean, false) AS "human!"
           FROM chat.messages m
           WHERE m.conversation_id = $1 AND m.user_id = $2 AND m.superseded_by IS NULL
             AND m.id > COALESCE((SELECT p.id FROM chat.knowledge_proposals p WHERE p.conversation_id = $1
                                  ORDER BY p.id DESC LIMIT 1), $1)
           ORDER BY m.id DESC LIMIT $3"#,
        conversation_id,
        user_id,
        MESSAGES,
    )
    .fetch_all(tx.conn())
    .await?;
    messages.reverse();
    let Some(first) = messages.iter().position(|message| message.human) else {
        return Ok(false);
    };
    let asked = messages[..first].iter().rev().find(|message| message.asks);
    let answers: Vec<&str> = messages
        .iter()
        .filter(|message| message.human)
        .map(|message| message.content.as_str())
        .collect();
    // After all of them, whatever clock gave them their ids.
    let id = id::new_after(clock.now(), messages.last().map(|message| message.id));
    sqlx::query!(
        "INSERT INTO chat.knowledge_proposals (id, user_id, conversation_id, issue, solution, resolution)
         VALUES ($1, $2, $3, $4, $5, $6)",
        id,
        user_id,
        conversation_id,
        asked.map_or_else(String::new, |message| mask(&message.content, ISSUE)),
        mask(&answers.join("\n"), SOLUTION),
        mask(resolution, RESOLUTION),
    )
    .execute(tx.conn())
    .await?;
    Ok(true)
}

/// The proposals in a state, newest first, and whether there are more.
///
/// # Errors
/// When the database fails.
pub async fn list(
    tx: &mut EditorTx,
    state: ProposalState,
    limit: i64,
    offset: i64,
) -> StoreResult<(Vec<Proposal>, bool)> {
    let mut proposals = sqlx::query_as!(
        Proposal,
        r#"SELECT p.id, p.state AS "state: ProposalState", p.issue, p.solution, p.resolution, p.created_at, p.decided_at,
                  p.decided_by, p.ingestion_id
           FROM chat.knowledge_proposals p WHERE p.state = $1 ORDER BY p.id DESC LIMIT $2 OFFSET $3"#,
        state as _,
        limit + 1,
        offset,
    )
    .fetch_all(tx.conn())
    .await?;
    let has_more = i64::try_from(proposals.len()).unwrap_or(i64::MAX) > limit;
    proposals.truncate(usize::try_from(limit).unwrap_or(0));
    Ok((proposals, has_more))
}

/// What became of a decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Decided {
    /// It stands.
    Done(Proposal),
    /// Somebody has decided before.
    Before,
    /// There is no such proposal.
    NotFound,
}

/// Decides about a proposal, for good. Its words go: the entry has them, or nobody wants them.
///
/// # Errors
/// When the database fails.
pub async fn decide(
    tx: &mut EditorTx,
    id: Uuid,
    state: ProposalState,
    ingestion_id: Option<Uuid>,
) -> StoreResult<Decided> {
    let admin = tx.admin();
    let decided = sqlx::query_as!(
        Proposal,
        r#"UPDATE chat.knowledge_proposals p
           SET state = $2, decided_at = now(), decided_by = $3, ingestion_id = $4, issue = '', solution = '', resolution = ''
           WHERE p.id = $1 AND p.state = 'open'
           RETURNING p.id, p.state AS "state: ProposalState", p.issue, p.solution, p.resolution, p.created_at, p.decided_at,
                     p.decided_by, p.ingestion_id"#,
        id,
        state as _,
        admin,
        ingestion_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    if let Some(proposal) = decided {
        return Ok(Decided::Done(proposal));
    }
    let known = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM chat.knowledge_proposals p WHERE p.id = $1) AS "known!""#,
        id
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(if known {
        Decided::Before
    } else {
        Decided::NotFound
    })
}
