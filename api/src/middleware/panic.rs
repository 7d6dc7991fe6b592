//! A panic of one handler is an answer, not a closed connection.

use std::any::Any;

use axum::response::{IntoResponse, Response};

use crate::error::Problem;

/// Makes the answer for a panic; its text goes to the log only.
#[must_use]
pub fn on_panic(payload: Box<dyn Any + Send + 'static>) -> Response {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a text");
    Problem::internal(format!("a handler panicked: {text}")).into_response()
}
