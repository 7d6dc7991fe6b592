//! `/api/chat/conversations/{id}/messages`: turns of a conversation, and asking for replies.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use shared::domain::{Attachment, ContentType, Generation, Message, Parked};
use shared::store::UserTx;
use shared::store::conversations;
use shared::store::generations::{self, Concurrency, NewGeneration, NewMessage};
use shared::store::messages::{self, Cursor};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::conversation::not_found;
use super::creation::{Begun, Creation, begin};
use super::view::{self, Accepted, Answer, CursorPage, Links, Messages};
use super::{model, reply};
use crate::app::AppState;
use crate::error::{Checks, Code, FieldError, Problem, Result};
use crate::extract::{Correlation, Idempotent, Limit, Path, Prefer, Query, User};
use crate::{budgets, cancelled, limits};

/// A message to answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PostMessage {
    /// Not blank, and at most `MAX_MESSAGE_LENGTH` characters (4000 unless set otherwise).
    #[schema(min_length = 1)]
    content: String,
    /// `text` without one.
    #[serde(default)]
    #[schema(required = false)]
    content_type: ContentType,
    /// What the text is about.
    #[serde(default, deserialize_with = "crate::extract::objects")]
    #[schema(required = false, max_items = 10)]
    attachments: Vec<Attachment>,
    /// The message of the same conversation that this one continues.
    #[schema(nullable = false)]
    parent_message_id: Option<Uuid>,
    /// A model to try first; `model_unknown` when it may not be chosen.
    #[schema(nullable = false, max_length = 200)]
    model: Option<String>,
    /// What to do while a generation of the conversation is unfinished.
    #[serde(default)]
    #[schema(required = false)]
    concurrency: ConcurrencyChoice,
    /// Whether the text is wanted as it comes; without it, only the end is pushed.
    #[serde(default = "yes")]
    #[schema(required = false, default = true)]
    stream: bool,
}

/// What a new message does while a generation of its conversation is unfinished.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ConcurrencyChoice {
    /// Waits its turn.
    #[default]
    Enqueue,
    /// Is refused with `conversation_busy`.
    Reject,
    /// Cancels the unfinished ones first.
    Interrupt,
}

/// Which messages to read.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Messages per page.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 200, default = 50, required = false)]
    limit: Limit<50, 200>,
    /// Only those before this message; the newest of them.
    before_id: Option<Uuid>,
    /// Only those after this message; the oldest of them.
    after_id: Option<Uuid>,
}

const MAX_ATTACHMENTS: usize = 10;

fn yes() -> bool {
    true
}

/// Stores a message and queues the generation of its reply.
#[utoipa::path(
    post, path = "/api/chat/conversations/{conversation_id}/messages", operation_id = "post_message", tag = "messages",
    params(("conversation_id" = Uuid, Path), super::IdempotencyHeader, super::PreferHeader),
    request_body = PostMessage,
    responses(
        (status = 202, body = view::Accepted, headers(("Location" = String, description = "The generation."))),
        (status = 200, body = view::Replied, description = "With `Prefer: wait`: the generation has ended."),
        (status = 404, description = "conversation_not_found"),
        (status = 409, description = "conversation_busy conversation_archived idempotency_in_progress"),
        (status = 429, description = "budget_exhausted"),
        (status = 503, description = "overloaded"),
        (status = 422, description = "message_too_long model_unknown idempotency_conflict"),
    )
)]
pub(super) async fn post(
    State(app): State<AppState>,
    User(user): User,
    Path(conversation_id): Path<Uuid>,
    prefer: Prefer,
    correlation: Correlation,
    request: Idempotent<PostMessage>,
) -> Result<Response> {
    let message = check(
        &request.body,
        conversation_id,
        app.gate.config.limits.max_message_length,
    )?;
    let chain = model::chain(&app, &user, request.body.model.as_deref())?;
    let work = model::work(&app, &user, &chain, request.body.stream, &correlation);
    let mut creation = match begin(
        &app,
        user.id,
        &request,
        limits::messages(&app.gate.config.limits),
        Some(work.priority),
    )
    .await?
    {
        Begun::Answered(response) => return Ok(response),
        Begun::New(creation) => creation,
    };
    let budget = creation.budget();
    let concurrency = Concurrency::from(request.body.concurrency);
    let credits = budgets::estimate(&app, &chain);
    let in_transaction = credits.is_some() || !creation.is_alone();
    let stored = store(
        &app,
        &mut creation,
        &message,
        &work,
        concurrency,
        in_transaction,
    )
    .await;
    let Stored {
        user_message,
        mut generation,
        parked,
        interrupted,
    } = stored.map_err(|problem| budget.on(problem))?;
    if let Some(credits) = credits {
        let reserved = budgets::reserve(
            &app,
            creation.tx(&app).await?,
            &mut generation,
            &chain,
            credits,
        );
        reserved.await.map_err(|problem| budget.on(problem))?;
    }
    let links = Links::of(generation.id);
    let location = Some(links.this.clone());
    let body = Accepted {
        user_message: Some(*user_message),
        generation: *generation,
        links,
    };
    let answer = Answer::new(StatusCode::ACCEPTED, location, &body)?;
    let kept = creation.commit(answer, prefer.wait).await?;
    cancelled::tell(&app, user.id, interrupted.rows).await;
    cancelled::push(&app, interrupted.next).await;
    Ok(reply::answer(&app, &user, kept, body, parked, prefer).await)
}

/// What a message became.
struct Stored {
    user_message: Box<Message>,
    generation: Box<Generation>,
    parked: Option<Parked>,
    /// What was cancelled for it.
    interrupted: generations::Stopped,
}

/// Stores the message and its generation, in the transaction of `creation` or in a single statement.
async fn store(
    app: &AppState,
    creation: &mut Creation,
    message: &NewMessage<'_>,
    work: &NewGeneration<'_>,
    concurrency: Concurrency,
    in_transaction: bool,
) -> Result<Stored> {
    let id = message.conversation_id;
    let mut interrupted = generations::Stopped::default();
    if concurrency == Concurrency::Interrupt {
        let tx = creation.tx(app).await?;
        if !generations::lock_conversation(tx, id).await? {
            return Err(not_found());
        }
        interrupted = generations::cancel_unfinished(tx, id, false).await?;
    }
    let (clock, user_id) = (&app.gate.clock, creation.user_id());
    // Cancelling may have begun one.
    let in_transaction = in_transaction || !creation.is_alone();
    let accepted = if !in_transaction {
        generations::accept_alone(&app.db, user_id, clock, message, work, concurrency).await?
    } else {
        let tx = creation.tx(app).await?;
        generations::accept(tx, clock, message, work, concurrency).await?
    };
    match accepted {
        generations::Accepted::Stored {
            user_message,
            generation,
            parked,
            ..
        } => Ok(Stored {
            user_message,
            generation,
            parked,
            interrupted,
        }),
        generations::Accepted::ConversationNotFound => Err(not_found()),
        generations::Accepted::NotActive => Err(Problem::of(Code::ConversationArchived)),
        generations::Accepted::ParentNotFound => Err(Problem::field(
            "parent_message_id",
            "is no message of this conversation",
        )),
        generations::Accepted::Busy => Err(Problem::of(Code::ConversationBusy)),
    }
}

/// The messages of a conversation, oldest first in the page.
#[utoipa::path(
    get, path = "/api/chat/conversations/{conversation_id}/messages", operation_id = "list_messages", tag = "messages",
    params(("conversation_id" = Uuid, Path), ListQuery),
    responses((status = 200, body = Messages), (status = 404, description = "conversation_not_found"))
)]
pub(super) async fn list(
    State(app): State<AppState>,
    User(user): User,
    Path(conversation_id): Path<Uuid>,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Messages>> {
    let cursor = match (query.before_id, query.after_id) {
        (None, None) => Cursor::Newest,
        (Some(id), None) => Cursor::Before(id),
        (None, Some(id)) => Cursor::After(id),
        (Some(_), Some(_)) => {
            return Err(Problem::field(
                "after_id",
                "must not stand beside before_id",
            ));
        }
    };
    let limit = query.limit.get();
    let found = app.history.read(user.id, |mut tx: UserTx| async move {
        let known = conversations::find(&mut tx, conversation_id).await?;
        if known.is_none() {
            return Ok(None);
        }
        let page = messages::list(&mut tx, conversation_id, cursor, limit).await?;
        Ok(Some(page))
    });
    let (messages, has_more) = found.await?.ok_or_else(not_found)?;
    let edge = if query.after_id.is_some() {
        messages.last()
    } else {
        messages.first()
    };
    let pagination = CursorPage::up_to(edge.map(|message| message.id), limit, has_more);
    Ok(axum::Json(Messages {
        messages,
        pagination,
    }))
}

fn check(body: &PostMessage, conversation_id: Uuid, max_length: usize) -> Result<NewMessage<'_>> {
    let mut checks = Checks::default();
    let length = body.content.chars().count();
    if length > max_length {
        let message = format!("has {length} characters, at most {max_length} are allowed");
        let error = FieldError {
            field: "content".to_owned(),
            message,
        };
        return Err(Problem::coded_fields(Code::MessageTooLong, vec![error]));
    }
    checks.require(
        !body.content.trim().is_empty(),
        "content",
        "must not be blank",
    );
    let count = body.attachments.len();
    checks.require(
        count <= MAX_ATTACHMENTS,
        "attachments",
        "must be at most 10",
    );
    for (index, attachment) in body.attachments.iter().enumerate().take(MAX_ATTACHMENTS) {
        let url = is_web_address(&attachment.url);
        checks.require(
            url,
            format!("attachments[{index}].url"),
            "must be an http or https address of at most 2048 bytes",
        );
        let kind = is_media_type(&attachment.media_type);
        checks.require(
            kind,
            format!("attachments[{index}].media_type"),
            "must be a media type such as image/png",
        );
    }
    checks.finish()?;
    Ok(NewMessage {
        conversation_id,
        content: &body.content,
        content_type: body.content_type,
        attachments: &body.attachments,
        parent_message_id: body.parent_message_id,
    })
}

fn is_web_address(url: &str) -> bool {
    let uri = url.parse::<http::Uri>().ok().filter(|_| url.len() <= 2048);
    uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    })
}

/// `type/subtype` of RFC 6838, 4.2.
fn is_media_type(text: &str) -> bool {
    let name = |part: &str| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        (1..=127).contains(&part.len()) && part.bytes().all(legal)
    };
    text.split_once('/')
        .is_some_and(|(kind, subtype)| name(kind) && name(subtype))
}

impl From<ConcurrencyChoice> for Concurrency {
    fn from(choice: ConcurrencyChoice) -> Self {
        match choice {
            ConcurrencyChoice::Enqueue => Self::Enqueue,
            ConcurrencyChoice::Reject => Self::Reject,
            ConcurrencyChoice::Interrupt => Self::Interrupt,
        }
    }
}
