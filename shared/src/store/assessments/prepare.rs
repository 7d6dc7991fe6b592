//! Making the one conversation of an assessment, with its welcome on the way.

use serde_json::json;
use uuid::Uuid;

use super::context::{context_of, insert_message};
use super::{Assessment, Reached, Registered, advance};
use crate::clock::Clock;
use crate::domain::assessment::{
    AssessmentData, Language, Spoken, Stage, default_title, updated_note,
};
use crate::domain::{
    ContextType, Conversation, ConversationStatus, Generation, Message, Parked, Priority,
    SenderType,
};
use crate::id;
use crate::store::generations::{self, NewGeneration};
use crate::store::{StoreResult, UserTx};

/// How a conversation is to be prepared.
#[derive(Clone, Copy, Debug)]
pub struct Preparing<'a> {
    /// A title of the person's own.
    pub title: Option<&'a str>,
    /// The welcome to queue; none is wanted without.
    pub welcome: Option<&'a NewGeneration<'a>>,
    /// Whether a conversation about no assessment in particular, which the person has begun before,
    /// becomes the one of this assessment.
    pub adopt: bool,
}

/// A welcome that was queued.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// Its generation.
    pub generation: Generation,
    /// Its queue.
    pub priority: Priority,
    /// What it waits for before it can be claimed.
    pub parked: Option<Parked>,
}

/// What was done, once the transaction commits.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The conversation.
    pub conversation: Conversation,
    /// Whether the conversation is new or its own fields changed: its clients are to be told.
    pub changed: bool,
    /// The welcome, where it was queued now.
    pub welcome: Option<Welcome>,
    /// The note, where new results came into a conversation that had its welcome.
    pub note: Option<Message>,
    /// The stages that were reached by it, in order.
    pub reached: Vec<Reached>,
}

/// The conversation of an assessment, unless it was deleted or never made.
///
/// # Errors
/// When the database fails.
pub async fn conversation_of(
    tx: &mut UserTx,
    assessment_id: Uuid,
) -> StoreResult<Option<Conversation>> {
    let user_id = tx.user_id();
    let conversation = sqlx::query_as!(
        Conversation,
        r#"SELECT c.id, c.user_id, c.title, c.context_type AS "context_type: ContextType",
                  c.status AS "status: ConversationStatus", c.metadata, c.assessment_id, c.message_count,
                  c.last_message_at, c.created_at, c.updated_at, c.version
           FROM chat.conversations c
           WHERE c.assessment_id = $1 AND c.user_id = $2 AND c.status <> 'deleted'"#,
        assessment_id,
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(conversation)
}

/// Finds or makes the conversation of an assessment that was registered in this transaction, gives it
/// the results, and queues its welcome where there is none. Done again, it changes nothing.
///
/// # Errors
/// When the database fails.
pub async fn prepare(
    tx: &mut UserTx,
    clock: &Clock,
    registered: &Registered,
    wish: &Preparing<'_>,
) -> StoreResult<Prepared> {
    let assessment = &registered.assessment;
    let mut found = conversation_of(tx, assessment.id).await?;
    let existed = found.is_some();
    let mut adopted = false;
    if found.is_none() && wish.adopt {
        found = adopt(tx, registered).await?;
        adopted = found.is_some();
    } else if let Some(known) = found.take_if(|_| registered.is_news) {
        found = give_context(tx, registered, known.id).await?;
    }
    let created = found.is_none();
    let conversation = match found {
        Some(conversation) => conversation,
        None => create(tx, clock, registered, wish.title).await?,
    };
    let mut registered = registered.clone();
    if conversation.id != assessment.conversation_id {
        keep_conversation(tx, &registered, conversation.id).await?;
        registered.assessment.conversation_id = conversation.id;
        registered.assessment.welcome_id = None;
    }
    let mut prepared = Prepared {
        changed: created || adopted || (existed && registered.is_news),
        conversation,
        welcome: None,
        note: None,
        reached: Vec::new(),
    };
    welcome_or_note(tx, clock, &registered, wish, &mut prepared).await?;
    Ok(prepared)
}

/// A conversation that has had nobody's word yet gets its welcome; one that people talk in already
/// gets a note, where the results are new to it.
async fn welcome_or_note(
    tx: &mut UserTx,
    clock: &Clock,
    registered: &Registered,
    wish: &Preparing<'_>,
    prepared: &mut Prepared,
) -> StoreResult<()> {
    let assessment = &registered.assessment;
    let conversation = &prepared.conversation;
    let is_fresh = assessment.welcome_id.is_none() && conversation.message_count == 0;
    let work = wish.welcome.filter(|_| is_fresh);
    let (request_id, traceparent) = wish
        .welcome
        .map_or((None, None), |work| (work.request_id, work.traceparent));
    if wish.welcome.is_some() {
        let complete = advance(
            tx,
            clock,
            assessment,
            Stage::Complete,
            request_id,
            traceparent,
        );
        prepared.reached.extend(complete.await?);
    }
    if let Some(work) = work {
        let queued = generations::welcome(tx, clock, conversation.id, work).await?;
        sqlx::query!(
            "UPDATE chat.assessments SET welcome_id = $2 WHERE id = $1",
            assessment.id,
            queued.0.id,
        )
        .execute(tx.conn())
        .await?;
        prepared.welcome = Some(Welcome {
            generation: queued.0,
            priority: work.priority,
            parked: queued.1,
        });
        return Ok(());
    }
    // A welcome that is still being made reads the results when it begins.
    let is_pending = match assessment.welcome_id {
        Some(welcome) => is_unfinished(tx, welcome).await?,
        None => false,
    };
    if prepared.changed
        && !is_pending
        && conversation.message_count > 0
        && conversation.status == ConversationStatus::Active
    {
        let text = updated_note(&assessment.results(), assessment.spoken());
        let metadata = json!({ "type": "assessment_updated", "assessment_id": assessment.id });
        let note = insert_message(
            tx,
            clock,
            conversation.id,
            SenderType::System,
            &text,
            metadata,
        );
        prepared.note = note.await?;
    }
    // Where a welcome has failed and nobody has spoken, the sweep puts one in its place first.
    let is_stranded = assessment.welcome_id.is_some() && conversation.message_count == 0;
    if wish.welcome.is_some() && !is_pending && !is_stranded {
        let ready = advance(tx, clock, assessment, Stage::Ready, request_id, traceparent);
        prepared.reached.extend(ready.await?);
    }
    Ok(())
}

async fn is_unfinished(tx: &mut UserTx, generation: Uuid) -> StoreResult<bool> {
    let row = generations::find(tx, generation).await?;
    Ok(row.is_some_and(|row| !row.generation.status.is_terminal()))
}

/// Notes what was found out about an assessment and gives it to its conversation.
///
/// # Errors
/// When the database fails.
pub async fn learn(
    tx: &mut UserTx,
    clock: &Clock,
    assessment_id: Uuid,
    data: Option<&AssessmentData>,
    language: Option<Language>,
    spoken: Spoken,
) -> StoreResult<Option<Assessment>> {
    let registered = super::register(tx, clock, assessment_id, data, language).await?;
    let Some(mut registered) = registered else {
        return Ok(None);
    };
    super::listen(tx, &mut registered, spoken).await?;
    if let Some(conversation) = conversation_of(tx, assessment_id).await? {
        give_context(tx, &registered, conversation.id).await?;
    }
    Ok(Some(registered.assessment))
}

/// The newest active conversation about an assessment that no assessment belongs to yet.
async fn adopt(tx: &mut UserTx, registered: &Registered) -> StoreResult<Option<Conversation>> {
    let user_id = tx.user_id();
    let id = sqlx::query_scalar!(
        "SELECT id FROM chat.conversations
         WHERE user_id = $1 AND status = 'active' AND context_type = 'assessment' AND assessment_id IS NULL
         ORDER BY last_activity_at DESC, id DESC LIMIT 1 FOR UPDATE",
        user_id,
    )
    .fetch_optional(tx.conn())
    .await?;
    let Some(id) = id else { return Ok(None) };
    give_context(tx, registered, id).await
}

async fn keep_conversation(
    tx: &mut UserTx,
    registered: &Registered,
    conversation_id: Uuid,
) -> StoreResult<()> {
    sqlx::query!(
        "UPDATE chat.assessments SET conversation_id = $2, welcome_id = NULL WHERE id = $1",
        registered.assessment.id,
        conversation_id,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Gives a conversation the results as they are now, and the assessment as its own.
async fn give_context(
    tx: &mut UserTx,
    registered: &Registered,
    conversation_id: Uuid,
) -> StoreResult<Option<Conversation>> {
    let user_id = tx.user_id();
    let conversation = sqlx::query_as!(
        Conversation,
        r#"UPDATE chat.conversations c
           SET context_data = jsonb_set(c.context_data, '{assessment}', $3), assessment_id = $4,
               version = c.version + 1, updated_at = now()
           WHERE c.id = $1 AND c.user_id = $2 AND c.status <> 'deleted'
           RETURNING c.id, c.user_id, c.title, c.context_type AS "context_type: ContextType",
                     c.status AS "status: ConversationStatus", c.metadata, c.assessment_id, c.message_count,
                     c.last_message_at, c.created_at, c.updated_at, c.version"#,
        conversation_id,
        user_id,
        context_of(&registered.assessment),
        registered.assessment.id,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(conversation)
}

/// Makes the conversation under the id that the stages have named, or under another one where the
/// person has deleted that.
async fn create(
    tx: &mut UserTx,
    clock: &Clock,
    registered: &Registered,
    title: Option<&str>,
) -> StoreResult<Conversation> {
    let user_id = tx.user_id();
    let assessment = &registered.assessment;
    let is_taken = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM chat.conversations WHERE id = $1 AND user_id = $2) AS "is_taken!""#,
        assessment.conversation_id,
        user_id,
    )
    .fetch_one(tx.conn())
    .await?;
    let id = if is_taken {
        id::new(clock.now())
    } else {
        assessment.conversation_id
    };
    let conversation = sqlx::query_as!(
        Conversation,
        r#"INSERT INTO chat.conversations AS c
               (id, user_id, title, title_is_default, context_type, context_data, assessment_id, last_id)
           VALUES ($1, $2, $3, false, 'assessment', $4, $5, $1)
           RETURNING c.id, c.user_id, c.title, c.context_type AS "context_type: ContextType",
                     c.status AS "status: ConversationStatus", c.metadata, c.assessment_id, c.message_count,
                     c.last_message_at, c.created_at, c.updated_at, c.version"#,
        id,
        user_id,
        title.unwrap_or(default_title(assessment.spoken())),
        json!({ "assessment": context_of(assessment) }),
        assessment.id,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(conversation)
}
