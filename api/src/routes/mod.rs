//! Every route of the API.

mod assessments;
mod conversation;
mod conversations;
mod creation;
mod events;
mod feedback;
mod generations;
mod health;
mod internal;
mod knowledge;
mod messages;
mod model;
mod parameters;
mod regenerate;
mod reply;
mod socket;
mod sources;
mod support;
mod usage;
mod view;

use parameters::{
    IdempotencyHeader, IfMatchHeader, LanguageHeader, LastEventIdHeader, PreferHeader,
};

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::AppState;
use crate::error::{Code, Problem};
use crate::{console, docs, middleware, openapi};

pub(crate) use generations::load as load_generation;
pub(crate) use knowledge::UPLOADS;
pub(crate) use support::{PATH as SUPPORT_CHAT, WAIT as SUPPORT_WAIT};

/// The documented routes.
pub(crate) fn table() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(routes!(conversations::create, conversations::list))
        .routes(routes!(
            conversation::read,
            conversation::replace,
            conversation::update,
            conversation::delete
        ))
        .routes(routes!(assessments::start::from_assessment))
        .routes(routes!(assessments::start::auto_initialize))
        .routes(routes!(assessments::start::initialize))
        .routes(routes!(assessments::look::ready))
        .routes(routes!(assessments::look::conversation))
        .routes(routes!(assessments::look::suggestions_for))
        .routes(routes!(assessments::context::add))
        .routes(routes!(messages::post, messages::list))
        .routes(routes!(regenerate::post))
        .routes(routes!(feedback::put))
        .routes(routes!(sources::list))
        .routes(routes!(generations::list))
        .routes(routes!(generations::read))
        .routes(routes!(generations::cancel))
        .routes(routes!(events::of_generation))
        .routes(routes!(events::of_conversation))
        .routes(routes!(socket::ticket))
        .routes(routes!(socket::open))
        .routes(routes!(
            knowledge::ingestions::upload,
            knowledge::ingestions::list
        ))
        .routes(routes!(knowledge::ingestions::read))
        .routes(routes!(knowledge::ingestions::cancel))
        .routes(routes!(knowledge::ingestions::retry))
        .routes(routes!(knowledge::progress::follow))
        .routes(routes!(
            knowledge::documents::create,
            knowledge::documents::list
        ))
        .routes(routes!(
            knowledge::documents::read,
            knowledge::documents::replace,
            knowledge::documents::delete
        ))
        .routes(routes!(knowledge::search::find))
        .routes(routes!(knowledge::gaps::report))
        .routes(routes!(knowledge::proposals::list))
        .routes(routes!(knowledge::proposals::approve))
        .routes(routes!(knowledge::proposals::dismiss))
        .routes(routes!(knowledge::reindex::post, knowledge::reindex::read))
        .routes(routes!(knowledge::synonyms::list))
        .routes(routes!(
            knowledge::synonyms::replace,
            knowledge::synonyms::delete
        ))
        .routes(routes!(support::chat))
        .routes(routes!(internal::support::take))
        .routes(routes!(internal::support::say))
        .routes(routes!(internal::support::give_back))
        .routes(routes!(internal::support::resolve))
        .routes(routes!(usage::summary))
        .routes(routes!(usage::of_conversation))
        .routes(routes!(internal::usage::report))
        .routes(routes!(internal::stats::read))
        .routes(routes!(internal::queues::list))
        .routes(routes!(internal::queues::pause))
        .routes(routes!(internal::queues::resume))
        .routes(routes!(internal::dead_letters::list))
        .routes(routes!(internal::dead_letters::replay_many))
        .routes(routes!(internal::dead_letters::discard_many))
        .routes(routes!(internal::dead_letters::replay))
        .routes(routes!(internal::dead_letters::discard))
        .routes(routes!(internal::dead_notifications::list))
        .routes(routes!(internal::dead_notifications::replay))
        .routes(routes!(internal::dead_notifications::discard))
        .routes(routes!(internal::workers::list))
        .routes(routes!(health::health))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .fallback(async || Problem::of(Code::RouteNotFound))
}

/// Pages and documents, which need no token and are limited by address.
pub(crate) fn files(state: &AppState) -> Router<AppState> {
    Router::new()
        .route("/", get(console::index))
        .route("/knowledge", get(console::knowledge))
        .route("/assets/{*path}", get(console::asset))
        .route("/openapi.json", get(docs::document))
        .merge(docs::pages())
        .route_layer(from_fn_with_state(state.clone(), middleware::public))
}
