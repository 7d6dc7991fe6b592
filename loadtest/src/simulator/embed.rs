//! `POST /embeddings`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};

use super::Shared;
use super::answer::{self, Caller};
use super::books::Facts;
use super::catalogue;
use super::connection::Handle;
use super::embeddings::embed;
use super::open_call::OpenCall;
use super::records::Outcome;
use super::reply::count_tokens;
use super::rules::{Decision, Subject};
use super::script::Endpoint;
use super::wire::{EmbeddingsRequest, Input};

/// The most dimensions anybody may ask for: it bounds what one request can allocate.
const MOST_DIMENSIONS: usize = 16_384;

/// Answers an embeddings request.
pub(crate) async fn embeddings(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Handle>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let caller = Caller::of(&headers);
    let (request, unreadable) = match serde_json::from_slice::<EmbeddingsRequest>(&body) {
        Ok(request) => (request, None),
        Err(error) => {
            let empty = EmbeddingsRequest {
                model: None,
                input: Input::Many(Vec::new()),
                dimensions: None,
                encoding_format: None,
                user: None,
            };
            (empty, Some(error.to_string()))
        }
    };
    let settings = shared.settings();
    let EmbeddingsRequest {
        model,
        input,
        dimensions,
        encoding_format,
        user,
    } = request;
    let model = model.unwrap_or_default();
    let texts = input.into_texts();
    let decision = shared.decide(Subject {
        endpoint: Some(Endpoint::Embeddings),
        model: &model,
        key: &caller.key,
        key_label: &caller.label,
        messages: &texts,
    });
    let (
        Decision {
            directives,
            markers,
        },
        mistake,
    ) = match decision {
        Ok(decision) => (decision, None),
        Err(error) => (Decision::default(), Some(error.to_string())),
    };
    let facts = Facts {
        endpoint: Endpoint::Embeddings,
        session_id: None,
        user,
        key: caller.label.clone(),
        marker: markers,
        last_user_message: texts.join("\n"),
        messages: texts.len(),
        max_tokens: None,
        stream: false,
        request_id: caller.request_id.clone(),
        traceparent: caller.traceparent.clone(),
        prompt_tokens: texts.iter().map(|text| count_tokens(text)).sum(),
        cached_tokens: 0,
        reasoning_tokens: 0,
        fixed_cost: directives.cost,
        model,
    };
    let call = OpenCall::begin(&shared, facts);

    if let Some(text) = unreadable {
        return answer::fail(
            &call,
            &answer::invalid(format!("the body is not an embeddings request: {text}")),
        );
    }
    if let Some(text) = mistake {
        return answer::fail(&call, &answer::invalid(format!("simulator: {text}")));
    }
    if settings.require_key && caller.key.is_empty() {
        return answer::fail(&call, &answer::no_key());
    }
    if let Some(how) = directives.before_headers {
        return answer::break_before_headers(how, &call, &connection).await;
    }
    let waits = directives.ttfb_ms.unwrap_or(settings.ttfb_ms)
        + directives.ttft_ms.unwrap_or(settings.ttft_ms);
    answer::pause(waits).await;
    if let Some(failure) = directives.resolved_failure() {
        return answer::fail(&call, &failure);
    }
    let facts = &call.facts;
    let native = catalogue::find(&facts.model)
        .dimension
        .unwrap_or(catalogue::DEFAULT_DIMENSION);
    let dimension = directives.dimension.or(dimensions).unwrap_or(native);
    if facts.model.is_empty() || texts.is_empty() || dimension == 0 || dimension > MOST_DIMENSIONS {
        let text =
            format!("a model, at least one input and 1 to {MOST_DIMENSIONS} dimensions are needed");
        return answer::fail(&call, &answer::invalid(text));
    }

    let as_base64 = encoding_format.as_deref() == Some("base64");
    let mut data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = embed(text, dimension);
            let embedding = if as_base64 {
                base64_of(&vector)
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let missing = usize::try_from(directives.short.unwrap_or(0)).unwrap_or(usize::MAX);
    data.truncate(data.len().saturating_sub(missing));
    if directives.reverse {
        data.reverse();
    }
    let mut usage =
        json!({"prompt_tokens": facts.prompt_tokens, "total_tokens": facts.prompt_tokens});
    if !directives.no_cost {
        let cost = facts.price(0).total.to_string();
        usage["cost"] = serde_json::from_str(&cost).unwrap_or(Value::Null);
    }
    let mut answer = json!({"object": "list", "id": call.id, "model": facts.model, "data": data});
    if !directives.no_usage {
        answer["usage"] = usage;
    }
    call.set_status(200);
    call.mark_first_token();
    call.end(Outcome::Completed, None);
    let mut response = Json(answer).into_response();
    answer::put_id(response.headers_mut(), &call, !directives.no_id_header);
    response
}

/// The vector as little-endian 32-bit numbers in base64, as OpenAI's `encoding_format` has it.
fn base64_of(vector: &[f32]) -> Value {
    let bytes: Vec<u8> = vector
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    Value::from(base64::engine::general_purpose::STANDARD.encode(bytes))
}
