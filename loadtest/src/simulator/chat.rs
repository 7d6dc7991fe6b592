//! `POST /chat/completions`.

use std::io;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, StatusCode, header};
use tokio::time::Duration;

use super::Shared;
use super::answer::{self, Caller};
use super::behaviour::{Failure, Place};
use super::books::Facts;
use super::catalogue;
use super::connection::{Break, Handle};
use super::marker::{markers, without_markers};
use super::open_call::OpenCall;
use super::records::Outcome;
use super::reply::{hash, reply_of_bytes, reply_text, title_text, token_ends};
use super::rules::{Decision, Subject};
use super::script::{Directives, Endpoint, Incident};
use super::settings::Settings;
use super::stream::{Plan, ReplyBody};
use super::wire::{ChatRequest, completion_json, usage_json};
use crate::clock;

/// A chat completion of at most so many tokens asks for a title.
const TITLE_TOKENS: u32 = 32;

/// Answers a chat completion.
pub(crate) async fn complete(
    State(shared): State<Arc<Shared>>,
    Extension(connection): Extension<Handle>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let caller = Caller::of(&headers);
    let request: Result<ChatRequest, _> = serde_json::from_slice(&body);
    drop(body);
    let (request, unreadable) = match request {
        Ok(request) => (request, None),
        Err(error) => (ChatRequest::empty(), Some(error.to_string())),
    };
    let settings = shared.settings();
    let prompt_tokens = request.prompt_tokens();
    let messages = request.messages.len();
    let ChatRequest {
        model,
        messages: all,
        stream,
        max_tokens,
        session_id,
        user,
    } = request;
    let model = model.unwrap_or_default();
    let mut said: Vec<String> = all
        .into_iter()
        .filter(|message| message.role == "user")
        .map(|message| message.content.into_text())
        .collect();
    let is_title = max_tokens.is_some_and(|tokens| tokens <= TITLE_TOKENS);
    let endpoint = if is_title {
        Endpoint::Title
    } else {
        Endpoint::Chat
    };

    let decision = shared.decide(Subject {
        endpoint: Some(endpoint),
        model: &model,
        key: &caller.key,
        key_label: &caller.label,
        messages: &said,
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
    let question = said.pop().unwrap_or_default();
    let facts = Facts {
        endpoint,
        session_id,
        user,
        key: caller.label.clone(),
        marker: markers,
        last_user_message: question.clone(),
        messages,
        max_tokens,
        stream,
        request_id: caller.request_id.clone(),
        traceparent: caller.traceparent.clone(),
        prompt_tokens,
        cached_tokens: directives.cached.unwrap_or(0),
        reasoning_tokens: directives.reasoning.unwrap_or(0),
        fixed_cost: if catalogue::is_free(&model) {
            None
        } else {
            directives.cost
        },
        model,
    };
    let call = OpenCall::begin(&shared, facts);

    if let Some(text) = unreadable {
        return answer::fail(
            &call,
            &answer::invalid(format!("the body is not a chat request: {text}")),
        );
    }
    if let Some(text) = mistake {
        return answer::fail(&call, &answer::invalid(format!("simulator: {text}")));
    }
    if let Some(failure) = refusal(&shared, &settings, &caller, &call) {
        return answer::fail(&call, &failure);
    }
    if let Some(how) = directives.before_headers {
        return answer::break_before_headers(how, &call, &connection).await;
    }
    answer::pause(directives.ttfb_ms.unwrap_or(settings.ttfb_ms)).await;
    let failure = directives.resolved_failure();
    if let Some(failure) = failure
        .as_ref()
        .filter(|_| directives.place.unwrap_or_default() == Place::Http)
    {
        return answer::fail(&call, failure);
    }
    let plan = plan(
        &settings, directives, failure, &question, is_title, max_tokens,
    );
    if stream {
        streamed(call, connection, plan)
    } else {
        whole(call, connection, plan).await
    }
}

/// What the gateway itself refuses, before any script.
fn refusal(
    shared: &Shared,
    settings: &Settings,
    caller: &Caller,
    call: &OpenCall,
) -> Option<Failure> {
    let facts = &call.facts;
    if settings.require_key && caller.key.is_empty() {
        return Some(answer::no_key());
    }
    if facts.model.is_empty() {
        return Some(answer::invalid("No models provided".to_owned()));
    }
    if facts.messages == 0 {
        return Some(answer::invalid(
            "Input required: specify \"prompt\" or \"messages\"".to_owned(),
        ));
    }
    let window = catalogue::find(&facts.model).context_length;
    if facts
        .prompt_tokens
        .saturating_add(facts.max_tokens.unwrap_or(0))
        > window
    {
        let mut failure = Failure::named("context_length")?;
        failure.message = format!(
            "This endpoint's maximum context length is {window} tokens. However, you requested about {} tokens.",
            facts.prompt_tokens + facts.max_tokens.unwrap_or(0),
        );
        return Some(failure);
    }
    if catalogue::is_free(&facts.model) {
        shared.take_free_call(settings)
    } else {
        None
    }
}

/// Turns directives into what the stream will do.
fn plan(
    settings: &Settings,
    directives: Directives,
    failure: Option<Failure>,
    question: &str,
    is_title: bool,
    max_tokens: Option<u32>,
) -> Plan {
    let wanted = directives
        .tokens
        .unwrap_or_else(|| settings.tokens(hash(without_markers(question).as_bytes())));
    let mut text = match (&directives.reply, directives.bytes) {
        _ if directives.empty => String::new(),
        (Some(reply), _) => reply.clone(),
        (None, Some(bytes)) => reply_of_bytes(question, bytes),
        (None, None) if is_title => title_text(question),
        (None, None) => reply_text(question, wanted),
    };
    let mut ends = token_ends(&text);
    let mut finish = directives.finish.unwrap_or_else(|| "stop".to_owned());
    // A length in bytes is a test of size, not of the model's manners: it breaks the bound too.
    let most = max_tokens
        .filter(|_| directives.bytes.is_none())
        .map_or(usize::MAX, |most| most as usize);
    if ends.len() > most {
        ends.truncate(most);
        text.truncate(ends.last().copied().unwrap_or(0));
        finish = "length".to_owned();
    }
    let mut incidents: Vec<(usize, Incident)> = directives
        .incidents
        .into_iter()
        .map(|(at, incident)| (at as usize, incident))
        .collect();
    let error = failure.map(|failure| {
        incidents.push((directives.at.unwrap_or(0) as usize, Incident::Fail));
        (failure.error(), directives.place == Some(Place::Finish))
    });
    // An incident beyond the reply's end happens at its end, before the finish reason.
    for (at, _) in &mut incidents {
        *at = (*at).min(ends.len());
    }
    incidents.sort_by_key(|(at, _)| *at);
    Plan {
        text,
        ends,
        ttft: Duration::from_millis(directives.ttft_ms.unwrap_or(settings.ttft_ms)),
        rate: directives.rate.unwrap_or(settings.rate),
        chunk: directives.chunk.unwrap_or(settings.chunk).max(1) as usize,
        processing: Some(directives.processing_ms.unwrap_or(settings.processing_ms))
            .filter(|millis| *millis > 0)
            .map(Duration::from_millis),
        incidents,
        error,
        finish: if directives.no_finish {
            None
        } else {
            Some(finish)
        },
        done: !directives.no_done,
        usages: if directives.no_usage || directives.no_finish {
            0
        } else {
            1 + u8::from(directives.duplicate_usage)
        },
        usage_with_finish: directives.usage_with_finish,
        with_cost: !directives.no_cost,
        crlf: directives.crlf,
        split: directives.split,
        id_header: !directives.no_id_header,
    }
}

fn streamed(call: OpenCall, connection: Handle, plan: Plan) -> Response {
    call.set_status(200);
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-cache"),
    );
    answer::put_id(headers, &call, plan.id_header);
    *response.body_mut() = Body::new(ReplyBody::new(call, connection, plan));
    response
}

async fn whole(call: OpenCall, connection: Handle, plan: Plan) -> Response {
    let tokens = plan.ends.len();
    let writing = if plan.rate > 0.0 {
        Duration::from_secs_f64(tokens as f64 / plan.rate)
    } else {
        Duration::ZERO
    };
    let mut releases = call.releases();
    tokio::time::sleep(plan.ttft + writing).await;
    let created = clock::unix_micros() / 1_000_000;
    let sent = u32::try_from(tokens).unwrap_or(u32::MAX);
    let usage = usage_json(&call, sent, plan.with_cost);
    let usage = (plan.usages > 0).then_some(usage.as_str());
    let mut body = completion_json(
        &call,
        created,
        &plan.text,
        plan.finish.as_deref(),
        None,
        usage,
    );
    let mut outcome = if plan.finish.is_some() {
        Outcome::Completed
    } else {
        Outcome::Cut
    };
    let mut broken = None;
    for (_, incident) in &plan.incidents {
        match incident {
            Incident::Hang => std::future::pending().await,
            Incident::Hold => drop(releases.changed().await),
            Incident::Cut => broken = Some(Break::Reset),
            Incident::Drop => broken = Some(Break::Close),
            Incident::Malformed => body.truncate(body.len() - 10),
            Incident::Fail => {
                outcome = Outcome::Failed;
                body = match &plan.error {
                    Some((error, true)) => {
                        completion_json(&call, created, "", Some("error"), Some(error), None)
                    }
                    Some((error, false)) => {
                        serde_json::json!({"error": error, "user_id": "user_simulator"}).to_string()
                    }
                    None => body,
                };
            }
        }
    }
    call.set_status(200);
    if outcome == Outcome::Completed {
        call.set_tokens(sent);
    }
    let finish = if outcome == Outcome::Failed {
        Some("error".to_owned())
    } else {
        plan.finish
    };
    call.end(
        if broken.is_some() {
            Outcome::Cut
        } else {
            outcome
        },
        finish,
    );
    let mut response = match broken {
        None => Response::new(Body::from(body)),
        Some(how) => half_sent(body, how, &connection),
    };
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json"),
    );
    answer::put_id(headers, &call, plan.id_header);
    response
}

/// A body that promises its whole length and breaks off in the middle.
fn half_sent(body: String, how: Break, connection: &Handle) -> Response {
    connection.end_with(how);
    let length = body.len();
    let half = Bytes::from(body).slice(..length / 2);
    let stream = futures::stream::iter([Ok(half)]).chain(futures::stream::once(async {
        tokio::time::sleep(super::stream::FLUSH).await;
        Err(io::Error::other("the script breaks this body"))
    }));
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, length.into());
    response
}

/// The text a chat call for `question` gets, by its markers and these settings alone.
pub(crate) fn expected_reply(settings: &Settings, question: &str) -> String {
    let mut directives = Directives::default();
    for marker in markers(question) {
        if let Ok(marker) = Directives::parse(marker.list)
            && !marker.is_timed()
            && !marker.title
        {
            directives.overlay(marker);
        }
    }
    plan(settings, directives, None, question, false, None).text
}
