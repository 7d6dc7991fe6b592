//! The OpenAPI document and a page to read it with.

use axum::Router;
use axum::response::IntoResponse;
use http::header;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::app::AppState;
use crate::openapi;

/// The document.
pub(crate) async fn document() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        openapi::text(),
    )
}

/// Swagger UI at `/docs`, its files embedded.
pub(crate) fn pages() -> Router<AppState> {
    SwaggerUi::new("/docs")
        .config(Config::from("/openapi.json"))
        .into()
}
