//! An ingestion as it goes on, as Server-Sent Events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt as _};
use http::{HeaderValue, header};
use serde_json::json;
use shared::domain::{EventType, Ingestion};
use shared::store::knowledge::ingestions as store;
use uuid::Uuid;

use super::begin;
use super::ingestions::not_found;
use crate::app::AppState;
use crate::error::{Result, chain};
use crate::extract::{Admin, Path};

/// How often is looked: a few editors at a time watch, and an ingestion changes with every batch.
const LOOK: Duration = Duration::from_millis(500);

/// What is to be told next.
struct Watch {
    app: AppState,
    admin: Uuid,
    id: Uuid,
    told: Option<Ingestion>,
    number: u64,
}

/// Follows an ingestion: its state now, then each change, to its end.
#[utoipa::path(
    get, path = "/api/chat/knowledge/ingestions/{ingestion_id}/events", operation_id = "follow_ingestion", tag = "knowledge",
    params(("ingestion_id" = Uuid, Path)),
    responses(
        (status = 200, body = String, content_type = "text/event-stream", description = "`knowledge.progress` with `{id, type, at, data: {ingestion}}`."),
        (status = 403, description = "admin_required"),
        (status = 404, description = "ingestion_not_found"),
        (status = 429, description = "too_many_streams"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn follow(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Path(id): Path<Uuid>,
) -> Result<Response> {
    let mut tx = begin(&app, &admin).await?;
    store::find(&mut tx, id).await?.ok_or_else(not_found)?;
    drop(tx);
    let place = app.streams.open(admin.id, "sse")?;
    let watch = Watch {
        app: app.clone(),
        admin: admin.id,
        id,
        told: None,
        number: 0,
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
        loop {
            let before = self.told.as_ref();
            if before.is_some_and(|told| told.status.is_terminal()) {
                return None;
            }
            if before.is_some() {
                tokio::time::sleep(LOOK).await;
            }
            let found = match self.look().await {
                Ok(found) => found?,
                // The database is away for a moment.
                Err(problem) => {
                    tracing::debug!(error = chain(&problem), "an ingestion was not read");
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
            };
            // Time alone changes the estimate, which is no news.
            let told = self.told.as_ref().map(|told| Ingestion {
                eta: found.eta,
                ..told.clone()
            });
            if told.as_ref() != Some(&found) {
                self.number += 1;
                let event = self.event(&found);
                self.told = Some(found);
                return Some(event);
            }
        }
    }

    async fn look(&self) -> Result<Option<Ingestion>> {
        let mut tx = self.app.db.user(self.admin).await?;
        Ok(store::find(&mut tx, self.id).await?)
    }

    fn event(&self, ingestion: &Ingestion) -> SseEvent {
        let kind = EventType::KnowledgeProgress.as_str();
        let id = format!("{}.{}", self.id, self.number);
        let at = shared::domain::timestamp::format(self.app.gate.clock.now());
        let event = json!({ "id": id, "type": kind, "at": at, "data": { "ingestion": ingestion } });
        SseEvent::default()
            .id(id)
            .event(kind)
            .data(event.to_string())
    }
}
