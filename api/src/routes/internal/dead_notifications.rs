//! `/internal/dead-notifications`: what the notification service did not get, and what an operator
//! makes of it.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use shared::domain::{DeadNotification, DeadNotificationCount, DeadReason, Destination};
use shared::store::notifications::{Filter, Which};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::actor;
use crate::app::AppState;
use crate::error::{Code, Problem, Result};
use crate::extract::{Correlation, Internal, Json, Limit, Path, Query};
use crate::routes::view::CursorPage;

/// Which dead notifications to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct DeadNotificationsQuery {
    /// Only those that this destination did not get.
    destination: Option<Destination>,
    /// Only those that were given up for this reason.
    reason: Option<DeadReason>,
    /// Only this person's.
    user_id: Option<Uuid>,
    /// Only those older than this one: the `next_cursor` of the page before.
    before_id: Option<Uuid>,
    /// Notifications per page; each comes with every destination that did not get it.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 200, default = 50, required = false)]
    limit: Limit<50, 200>,
}

/// A page of dead notifications, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct DeadNotifications {
    dead_notifications: Vec<DeadNotification>,
    /// How many wait in all, by destination and reason.
    counts: Vec<DeadNotificationCount>,
    pagination: CursorPage,
}

/// Which deliveries of a notification are meant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct Deliveries {
    /// Only the one to this destination; otherwise all that are dead.
    #[schema(nullable = false)]
    destination: Option<Destination>,
}

impl From<Deliveries> for Which {
    fn from(meant: Deliveries) -> Self {
        Self {
            destination: meant.destination,
            reason: None,
        }
    }
}

/// What is tried again, or not any more.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct SettledNotification {
    dead_notification_id: Uuid,
    destinations: Vec<Destination>,
}

/// Notifications that were given up at one destination or at both and wait for an operator, newest first.
#[utoipa::path(
    get, path = "/internal/dead-notifications", operation_id = "list_dead_notifications", tag = "internal",
    params(DeadNotificationsQuery), responses((status = 200, body = DeadNotifications))
)]
pub(in crate::routes) async fn list(
    State(app): State<AppState>,
    _: Internal,
    Query(query): Query<DeadNotificationsQuery>,
) -> Result<axum::Json<DeadNotifications>> {
    let filter = Filter {
        destination: query.destination,
        reason: query.reason,
        user_id: query.user_id,
        before: query.before_id,
        limit: query.limit.get(),
    };
    let (dead_notifications, has_more, counts) = app.operator.dead_notifications(&filter).await?;
    let edge = dead_notifications.last().map(|dead| dead.id);
    let pagination = CursorPage::up_to(edge, filter.limit, has_more);
    Ok(axum::Json(DeadNotifications {
        dead_notifications,
        counts,
        pagination,
    }))
}

/// Lets a notification be tried again for another day, under the same id.
#[utoipa::path(
    post, path = "/internal/dead-notifications/{dead_notification_id}/replay", operation_id = "replay_dead_notification",
    tag = "internal", params(("dead_notification_id" = Uuid, Path)), request_body = Deliveries,
    responses(
        (status = 202, body = SettledNotification),
        (status = 404, description = "dead_notification_not_found"),
    )
)]
pub(in crate::routes) async fn replay(
    State(app): State<AppState>,
    _: Internal,
    Path(id): Path<Uuid>,
    correlation: Correlation,
    Json(body): Json<Deliveries>,
) -> Result<(StatusCode, axum::Json<SettledNotification>)> {
    let which = Which::from(body);
    let actor = actor(&correlation);
    let again = app.operator.replay_notification(id, which, &actor).await?;
    Ok((StatusCode::ACCEPTED, settled(id, again)?))
}

/// Forgets a notification that was given up.
#[utoipa::path(
    post, path = "/internal/dead-notifications/{dead_notification_id}/discard", operation_id = "discard_dead_notification",
    tag = "internal", params(("dead_notification_id" = Uuid, Path)), request_body = Deliveries,
    responses(
        (status = 200, body = SettledNotification),
        (status = 404, description = "dead_notification_not_found"),
    )
)]
pub(in crate::routes) async fn discard(
    State(app): State<AppState>,
    _: Internal,
    Path(id): Path<Uuid>,
    correlation: Correlation,
    Json(body): Json<Deliveries>,
) -> Result<axum::Json<SettledNotification>> {
    let which = Which::from(body);
    let actor = actor(&correlation);
    let gone = app.operator.discard_notification(id, which, &actor).await?;
    settled(id, gone)
}

fn settled(
    dead_notification_id: Uuid,
    destinations: Vec<Destination>,
) -> Result<axum::Json<SettledNotification>> {
    if destinations.is_empty() {
        return Err(Problem::of(Code::DeadNotificationNotFound));
    }
    Ok(axum::Json(SettledNotification {
        dead_notification_id,
        destinations,
    }))
}
