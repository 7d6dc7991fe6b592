//! The console: static files, embedded in the binary.

use axum::extract::{Path, Request};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::error::{Code, Problem, Result};

#[derive(RustEmbed)]
#[folder = "web/"]
struct Files;

/// The page itself.
pub(crate) async fn index(request: Request) -> Result<Response> {
    serve("index.html", request.headers())
}

/// The page of those who keep the knowledge base.
pub(crate) async fn knowledge(request: Request) -> Result<Response> {
    serve("knowledge.html", request.headers())
}

/// What the page loads.
pub(crate) async fn asset(Path(path): Path<String>, request: Request) -> Result<Response> {
    serve(&format!("assets/{path}"), request.headers())
}

fn serve(path: &str, headers: &HeaderMap) -> Result<Response> {
    let file = Files::get(path).ok_or_else(|| Problem::of(Code::RouteNotFound))?;
    let tag = tag(&file);
    let current = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let listed = value.to_str().unwrap_or_default().split(',');
        listed
            .map(|one| one.trim().trim_start_matches("W/"))
            .any(|one| one == tag || one == "*")
    });
    let kind = match file.metadata.mimetype() {
        text @ ("text/html" | "text/css" | "text/javascript") => format!("{text}; charset=utf-8"),
        other => other.to_owned(),
    };
    let caching = [
        // Asked for again each time, answered with 304 until the binary changes: names carry no version.
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, no-cache"),
        ),
        (
            header::ETAG,
            HeaderValue::from_str(&tag).map_err(Problem::internal)?,
        ),
    ];
    if current {
        return Ok((StatusCode::NOT_MODIFIED, caching).into_response());
    }
    Ok((caching, [(header::CONTENT_TYPE, kind)], file.data).into_response())
}

fn tag(file: &EmbeddedFile) -> String {
    let digest = file.metadata.sha256_hash();
    let hex: String = digest
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("\"{hex}\"")
}
