//! `/api/chat/ws`: letting WebSockets in.

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{FromRequestParts, State};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use shared::tickets::{self, Ticket};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use crate::app::AppState;
use crate::error::{Code, Problem, Result};
use crate::extract::{Query, User};
use crate::socket;

/// A ticket that opens one WebSocket.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IssuedTicket {
    /// For `?ticket=`.
    ticket: String,
    /// When it is no longer good.
    #[serde(with = "shared::domain::timestamp")]
    expires_at: OffsetDateTime,
}

/// How a browser shows who it is.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OpenQuery {
    /// From `POST /api/chat/ws-ticket`, for clients that cannot send `Authorization`.
    ticket: Option<String>,
}

/// Who opens a socket, by ticket or by token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visitor(Ticket);

impl FromRequestParts<AppState> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self> {
        let Query(query) = Query::<OpenQuery>::from_request_parts(parts, app).await?;
        let Some(secret) = query.ticket else {
            let User(user) = User::from_request_parts(parts, app).await?;
            return Ok(Self(Ticket {
                user_id: user.id,
                expires_at: user.expires_at,
            }));
        };
        let ticket = tickets::redeem(&app.redis, &secret).await?;
        let ticket = ticket.ok_or_else(|| Problem::of(Code::TicketInvalid))?;
        tracing::Span::current().record("user.id", tracing::field::display(ticket.user_id));
        Ok(Self(ticket))
    }
}

/// Issues a ticket, good for one WebSocket within 30 seconds.
#[utoipa::path(
    post, path = "/api/chat/ws-ticket", operation_id = "issue_socket_ticket", tag = "push",
    responses((status = 200, body = IssuedTicket))
)]
pub(super) async fn ticket(
    State(app): State<AppState>,
    User(user): User,
) -> Result<axum::Json<IssuedTicket>> {
    let ticket = Ticket {
        user_id: user.id,
        expires_at: user.expires_at,
    };
    let secret = tickets::issue(&app.redis, &ticket).await?;
    let expires_at = app.gate.clock.now() + tickets::LIFETIME;
    Ok(axum::Json(IssuedTicket {
        ticket: secret,
        expires_at,
    }))
}

/// Opens a WebSocket that carries the events of all the user's conversations.
///
/// The server sends events as JSON text frames. The client may send
/// `{"type":"resume","generation_id":…,"after":"<event id>"}`, `{"type":"subscribe","conversation_id":…}` and
/// `{"type":"unsubscribe","conversation_id":…}` (while any is subscribed only those are sent), and `{"type":"ping"}`.
/// A frame that cannot be understood is answered with `{"type":"error","code":…,"detail":…}`.
/// Close codes: 1009 frame too large or no WebSocket frame, 1012 reconnect (the server restarts), 1013 too slow, 4401 the token has expired.
#[utoipa::path(
    get, path = "/api/chat/ws", operation_id = "open_socket", tag = "push", params(OpenQuery),
    security(("bearer" = []), ()),
    responses(
        (status = 101, description = "The connection is a WebSocket now."),
        (status = 401, description = "ticket_invalid"),
        (status = 426, description = "upgrade_required"),
        (status = 429, description = "too_many_streams"),
    )
)]
pub(super) async fn open(
    State(app): State<AppState>,
    Visitor(ticket): Visitor,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let upgrade = upgrade.map_err(|error| {
        Problem::of(Code::UpgradeRequired)
            .with_header(header::UPGRADE, HeaderValue::from_static("websocket"))
            .with_header(
                header::SEC_WEBSOCKET_VERSION,
                HeaderValue::from_static("13"),
            )
            .because(error)
    })?;
    let place = app.streams.open(ticket.user_id, "websocket")?;
    let lifecycle = app.lifecycle.clone();
    let response = socket::limits(upgrade).on_upgrade(async move |websocket| {
        // A task of the process's own, so that the end waits for it.
        lifecycle.spawn(async move {
            socket::run(&app, &ticket, websocket).await;
            drop(place);
        });
    });
    debug_assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    Ok(response)
}
