//! Events as Server-Sent Events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, Stream, StreamExt as _};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;
use shared::domain::{ConversationStatus, EventType};
use shared::id::EventId;
use shared::push::{Follow, PushedEvent};
use shared::store::{conversations, generations};
use utoipa::IntoParams;
use uuid::Uuid;

use super::conversation::not_found;
use crate::app::AppState;
use crate::auth::Identity;
use crate::error::{Result, chain};
use crate::extract::{LastEventId, Path, Query, User};
use crate::feed::LiveFeed;
use crate::streams::StreamPlace;

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Resumes after this event, for clients that cannot set `Last-Event-ID`.
    pub(super) after: Option<String>,
}

/// Follows one generation: its log, then live, to its end.
///
/// A stream that is resumed after the terminal event is answered with 204, which tells a browser
/// not to connect again.
#[utoipa::path(
    get, path = "/api/chat/generations/{generation_id}/events", operation_id = "follow_generation", tag = "push",
    params(("generation_id" = Uuid, Path), EventsQuery, super::LastEventIdHeader),
    responses(
        (status = 200, body = String, content_type = "text/event-stream", description = "Each `data` is an `Event`."),
        (status = 204, description = "The client has the terminal event already."),
        (status = 404, description = "generation_not_found"),
        (status = 422, description = "invalid_cursor"),
        (status = 429, description = "too_many_streams"),
    )
)]
pub(super) async fn of_generation(
    State(app): State<AppState>,
    User(user): User,
    Path(id): Path<Uuid>,
    Query(query): Query<EventsQuery>,
    last: LastEventId,
) -> Result<Response> {
    let after = last.or_of(query.after.as_deref(), id)?;
    let mut tx = app.db.user(user.id).await?;
    generations::find(&mut tx, id)
        .await?
        .ok_or_else(super::generations::not_found)?;
    drop(tx);
    if after.is_some_and(|id| id.seq == EventId::TERMINAL_SEQ) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let place = app.streams.open(user.id, "sse")?;
    let follow = Follow::new(
        app.db.clone(),
        app.redis.clone(),
        &app.hub,
        user.id,
        id,
        after,
    )
    .await;
    let events = stream::unfold(follow, |mut follow| async move {
        match follow.next().await {
            Ok(event) => event.map(|event| (event, follow)),
            Err(error) => {
                tracing::warn!(error = chain(&error), "an event stream ended early");
                None
            }
        }
    });
    Ok(respond(&app, &user, place, events))
}

/// Follows everything in a conversation. `Last-Event-ID` resumes after that event, with what came of all generations
/// since, in order; an event that tells of the conversation itself can be resumed after for ten minutes. The stream ends when the conversation is deleted, after the event
/// that says so.
#[utoipa::path(
    get, path = "/api/chat/conversations/{conversation_id}/events", operation_id = "follow_conversation", tag = "push",
    params(("conversation_id" = Uuid, Path), EventsQuery, super::LastEventIdHeader),
    responses(
        (status = 200, body = String, content_type = "text/event-stream", description = "Each `data` is an `Event`."),
        (status = 404, description = "conversation_not_found"),
        (status = 422, description = "invalid_cursor"),
        (status = 429, description = "too_many_streams"),
    )
)]
pub(super) async fn of_conversation(
    State(app): State<AppState>,
    User(user): User,
    Path(conversation_id): Path<Uuid>,
    Query(query): Query<EventsQuery>,
    last: LastEventId,
) -> Result<Response> {
    let after = last.or(query.after.as_deref())?;
    let mut tx = app.db.user(user.id).await?;
    conversations::find(&mut tx, conversation_id)
        .await?
        .ok_or_else(not_found)?;
    drop(tx);
    let place = app.streams.open(user.id, "sse")?;
    let mut feed = LiveFeed::new(app.clone(), user.id, Some(conversation_id)).await;
    if let Some(after) = after {
        feed.resume_after(after);
    }
    let events = stream::unfold(Some(feed), |feed| async move {
        let mut feed = feed?;
        let event = feed.next().await;
        let feed = (!tells_of_deletion(&event)).then_some(feed);
        Some((event, feed))
    });
    Ok(respond(&app, &user, place, events))
}

/// Whether it is the last event there can be of its conversation.
fn tells_of_deletion(event: &PushedEvent) -> bool {
    let status = || {
        let event: Value = serde_json::from_str(&event.json).ok()?;
        let status = event.pointer("/data/conversation/status")?;
        Some(status == ConversationStatus::Deleted.as_str())
    };
    event.kind == EventType::ConversationUpdated && status() == Some(true)
}

fn respond(
    app: &AppState,
    user: &Identity,
    place: StreamPlace,
    events: impl Stream<Item = Arc<PushedEvent>> + Send + 'static,
) -> Response {
    // A replica that stops and a token that expires end the stream; the client comes back by id.
    let closing = app.closing.clone();
    let lifetime = (user.expires_at - app.gate.clock.now())
        .try_into()
        .unwrap_or_default();
    let end = async move {
        tokio::select! {
            () = closing.cancelled() => {}
            () = tokio::time::sleep(lifetime) => {}
        }
    };
    let events = events.map(move |event| {
        let _place = &place;
        let sse = SseEvent::default()
            .id(event.id.to_string())
            .event(event.kind.as_str())
            .data(&*event.json);
        Ok::<_, Infallible>(sse)
    });
    let heartbeat = KeepAlive::new()
        .interval(app.gate.config.server.heartbeat)
        .text("heartbeat");
    let mut response = Sse::new(Box::pin(events.take_until(Box::pin(end))))
        .keep_alive(heartbeat)
        .into_response();
    // Proxies that collect an answer before they pass it on would hold the events back.
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
