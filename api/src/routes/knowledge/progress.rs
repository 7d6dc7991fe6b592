//! An ingestion as it goes on, as Server-Sent Events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt as _};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use shared::domain::{EventType, Ingestion, timestamp};
use shared::id::EventId;
use shared::store::knowledge::ingestions as store;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::events::EventsQuery;
use super::begin;
use super::ingestions::not_found;
use crate::app::AppState;
use crate::error::{Result, chain};
use crate::extract::{Admin, LastEventId, Path, Query};

/// How often is looked: a few editors at a time watch, and an ingestion changes with every batch.
const LOOK: Duration = Duration::from_millis(500);

/// What is to be told next.
struct Watch {
    app: AppState,
    admin: Uuid,
    id: Uuid,
    /// The version that the client has, and whether nothing comes after it.
    told: Option<(u32, bool)>,
}

/// The object that is told, as events of conversations have it; an ingestion is part of none.
#[derive(Serialize)]
struct Progress<'a> {
    id: EventId,
    #[serde(rename = "type")]
    kind: EventType,
    generation_id: Option<Uuid>,
    conversation_id: Option<Uuid>,
    #[serde(with = "timestamp")]
    at: OffsetDateTime,
    data: Told<'a>,
}

#[derive(Serialize)]
struct Told<'a> {
    ingestion: &'a Ingestion,
}

/// Follows an ingestion: its state now, then each change, to its end. A stream that is resumed begins with the
/// change after the one that the client has; whatever changed meanwhile is told as one.
///
/// A stream that is resumed after the end is answered with 204, which tells a browser not to connect again.
#[utoipa::path(
    get, path = "/api/chat/knowledge/ingestions/{ingestion_id}/events", operation_id = "follow_ingestion", tag = "knowledge",
    params(("ingestion_id" = Uuid, Path), EventsQuery, super::super::LastEventIdHeader),
    responses(
        (status = 200, body = String, content_type = "text/event-stream", description = "Each `data` is an `Event` of type `knowledge.progress` with `{ingestion}`, without generation and conversation."),
        (status = 204, description = "The client has been told the end already."),
        (status = 403, description = "admin_required"),
        (status = 404, description = "ingestion_not_found"),
        (status = 422, description = "invalid_cursor"),
        (status = 429, description = "too_many_streams"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn follow(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Path(id): Path<Uuid>,
    Query(query): Query<EventsQuery>,
    last: LastEventId,
) -> Result<Response> {
    let after = last.or_of(query.after.as_deref(), id)?;
    let mut tx = begin(&app, &admin).await?;
    let found = store::find(&mut tx, id).await?.ok_or_else(not_found)?;
    drop(tx);
    if found.status.is_terminal() && after.is_some_and(|after| after.seq >= found.version) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let place = app.streams.open(admin.id, "sse")?;
    let watch = Watch {
        app: app.clone(),
        admin: admin.id,
        id,
        told: after.map(|after| (after.seq, false)),
    };
    let closing = app.closing.clone();
    let lifetime: Duration = (admin.expires_at - app.gate.clock.now())
        .try_into()
        .unwrap_or_default();
    let end = async move {
        tokio::select! {
            () = closing.cancelled() => {}
            () = tokio::time::sleep(lifetime) => {}
        }
    };
    let events = stream::unfold(watch, |mut watch| async move {
        watch.next().await.map(|event| (event, watch))
    });
    let events = events.map(move |event| {
        let _place = &place;
        Ok::<_, Infallible>(event)
    });
    let heartbeat = KeepAlive::new()
        .interval(app.gate.config.server.heartbeat)
        .text("heartbeat");
    let mut response = Sse::new(Box::pin(events.take_until(Box::pin(end))))
        .keep_alive(heartbeat)
        .into_response();
    let headers = response.headers_mut();
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

impl Watch {
    /// The next change; none once the end was told, or the ingestion is gone.
    async fn next(&mut self) -> Option<SseEvent> {
        let mut is_first = true;
        loop {
            if self.told.is_some_and(|(_, is_end)| is_end) {
                return None;
            }
            if !std::mem::take(&mut is_first) || self.told.is_some() {
                tokio::time::sleep(LOOK).await;
            }
            let found = match self.look().await {
                Ok(found) => found?,
                // The database is away for a moment.
                Err(problem) => {
                    tracing::debug!(error = chain(&problem), "an ingestion was not read");
                    continue;
                }
            };
            if self.told.is_none_or(|(version, _)| version < found.version) {
                self.told = Some((found.version, found.status.is_terminal()));
                return Some(event(&found));
            }
        }
    }

    async fn look(&self) -> Result<Option<Ingestion>> {
        let mut tx = self.app.db.user(self.admin).await?;
        Ok(store::find(&mut tx, self.id).await?)
    }
}

fn event(ingestion: &Ingestion) -> SseEvent {
    let kind = EventType::KnowledgeProgress;
    let progress = Progress {
        id: EventId {
            generation_id: ingestion.id,
            attempt: 0,
            seq: ingestion.version,
        },
        kind,
        generation_id: None,
        conversation_id: None,
        at: ingestion.updated_at,
        data: Told { ingestion },
    };
    SseEvent::default()
        .id(progress.id.to_string())
        .event(kind.as_str())
        .data(serde_json::to_string(&progress).unwrap_or_default())
}
