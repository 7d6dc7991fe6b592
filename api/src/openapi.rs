//! The OpenAPI document, made from the handlers.
//!
//! Handlers declare what is particular to them: the success, and each refusal as a status with its
//! codes as the description. What follows from the shape of a request (a body can be malformed, a
//! path parameter can be no id, a token can be missing) is added here for all of them alike.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use http::Method;
use serde_json::{Map, Value, json};
use shared::domain;
use utoipa::OpenApi;

use crate::error::{self, Code};
use crate::limits;

/// The schemas no handler names by itself, and what the document says of itself.
#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "Balas", description = "Chat replies by language models: accept a message, follow its generation, keep the reply."),
    components(schemas(error::ProblemBody<'_>, error::FieldError, Code, domain::Event)),
    tags(
        (name = "conversations", description = "Threads of messages of one user."),
        (name = "assessments", description = "From the results of a career assessment to a conversation about them."),
        (name = "messages", description = "Turns of a conversation, and asking for replies."),
        (name = "generations", description = "The work that makes one reply."),
        (name = "usage", description = "What calls of models took: tokens and credits."),
        (name = "push", description = "Events as they happen."),
        (name = "knowledge", description = "The help desk's knowledge base: uploads, entries, search. For administrators."),
        (name = "support", description = "The help desk's chat."),
        (name = "operations", description = "Health and measurements."),
        (name = "internal", description = "The operator's view: queues, dead letters, dead notifications, workers. With a service key."),
    ),
)]
struct Head;

/// The document before any route is added.
#[must_use]
pub fn head() -> utoipa::openapi::OpenApi {
    Head::openapi()
}

/// The whole document as text, as served and as committed.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let (_, document) = crate::routes::table().split_for_parts();
        let document = complete(serde_json::to_value(document).unwrap_or_default());
        let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
        text.push('\n');
        text
    });
    &TEXT
}

/// Whether an operation of the document has no query parameters; false for what is not in it.
pub fn takes_no_query(method: &Method, path: &str) -> bool {
    static WITHOUT: LazyLock<HashSet<(String, String)>> = LazyLock::new(|| {
        let document: Value = serde_json::from_str(text()).unwrap_or_default();
        let paths = document["paths"].as_object().into_iter().flatten();
        let operations = paths.flat_map(|(path, item)| {
            let operations = item.as_object().into_iter().flatten();
            operations.map(move |(method, operation)| (method, path, operation))
        });
        let takes = |operation: &Value| {
            let parameters = operation["parameters"].as_array();
            parameters.is_some_and(|all| all.iter().any(|one| one["in"] == "query"))
        };
        operations
            .filter(|(_, _, operation)| !takes(operation))
            .map(|(method, path, _)| (method.to_uppercase(), path.clone()))
            .collect()
    });
    // What answers GET answers HEAD too.
    let method = match *method {
        Method::HEAD => Method::GET.as_str(),
        _ => method.as_str(),
    };
    WITHOUT.contains(&(method.to_owned(), path.to_owned()))
}

fn complete(mut document: Value) -> Value {
    document["openapi"] = json!("3.1.0");
    document["components"]["securitySchemes"] = json!({
        "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
        "service_key": { "type": "apiKey", "in": "header", "name": "X-Service-Key" },
    });
    document["components"]["headers"] = headers();
    name_enums(&mut document["components"]["schemas"]);
    let Some(paths) = document["paths"].as_object_mut() else {
        return document;
    };
    for (path, item) in paths {
        let operations = item.as_object_mut().into_iter().flatten();
        for (method, operation) in operations {
            if let Some(operation) = operation.as_object_mut() {
                complete_operation(path, operation);
                let is_limited = limits::of_route(&method.to_uppercase(), path).is_some();
                tell_headers(operation, is_limited);
            }
        }
    }
    document
}

/// Writes the names of the domain's enums as they are in JSON: utoipa does not see the ones their
/// macro gives them and would show those of Rust.
fn name_enums(schemas: &mut Value) {
    macro_rules! names {
        ($($name:ident),+ $(,)?) => {$(
            let names: Vec<_> = domain::$name::ALL.iter().map(|variant| variant.as_str()).collect();
            schemas[stringify!($name)] = json!({
                "type": "string",
                "enum": names,
                "description": schemas[stringify!($name)]["description"],
            });
        )+};
    }
    names!(
        ContentType,
        ContextType,
        ConversationStatus,
        DeadReason,
        Destination,
        EventType,
        FailureCode,
        GenerationKind,
        GenerationStatus,
        IngestionKind,
        IngestionStatus,
        NotificationType,
        Priority,
        ProfileState,
        ProposalState,
        SenderType,
        SupportState,
        WorkerStatus,
    );
}

fn headers() -> Value {
    let header = |schema: &str, description: &str| json!({ "schema": { "type": schema }, "description": description });
    json!({
        "X-Request-Id": header("string", "The id of this request, the caller's own if it sent one."),
        "RateLimit-Policy": header("string", "Requests per period: `<count>;w=<seconds>`."),
        "RateLimit-Limit": header("integer", "Requests per period."),
        "RateLimit-Remaining": header("integer", "Requests that may follow at once."),
        "RateLimit-Reset": header("integer", "Seconds until all of them may."),
        "Retry-After": header("integer", "Seconds until the next request may come."),
        "WWW-Authenticate": header("string", "`Bearer`, and what was wrong with a token that came."),
        "Preference-Applied": header("string", "`wait=N`, where the wait was honoured."),
        "Idempotency-Replayed": header("string", "`true`: the answer to an earlier request with this key."),
    })
}

const OF_LIMITS: [&str; 4] = [
    "RateLimit-Policy",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
];

/// The headers of answers that follow from what the operation takes.
fn tell_headers(operation: &mut Map<String, Value>, is_limited: bool) {
    let parameters = operation.get("parameters").and_then(Value::as_array);
    let takes = |name: &str| {
        let mut all = parameters.into_iter().flatten();
        all.any(|parameter| parameter["name"] == name)
    };
    let (waits, repeats) = (takes("Prefer"), takes("Idempotency-Key"));
    let responses = operation
        .get_mut("responses")
        .and_then(Value::as_object_mut);
    for (status, response) in responses.into_iter().flatten() {
        let mut add = |name: &str| {
            response["headers"][name] = json!({ "$ref": format!("#/components/headers/{name}") });
        };
        // Who shows no valid credentials is counted by address.
        if is_limited || status == "401" {
            OF_LIMITS.into_iter().for_each(&mut add);
        }
        if status == "401" {
            add("WWW-Authenticate");
        }
        if status == "409" && repeats {
            add("Retry-After");
        }
        if status.starts_with('2') && waits {
            add("Preference-Applied");
        }
        if status.starts_with('2') && repeats {
            add("Idempotency-Replayed");
        }
    }
}

fn complete_operation(path: &str, operation: &mut Map<String, Value>) {
    if operation.get("security").is_none() {
        let scheme = match path {
            path if path.starts_with("/api/") => json!([{ "bearer": [] }]),
            path if path.starts_with("/internal/") => json!([{ "service_key": [] }]),
            _ => json!([]),
        };
        operation.insert("security".into(), scheme);
    }
    if let Some(parameters) = operation
        .get_mut("parameters")
        .and_then(Value::as_array_mut)
    {
        parameters
            .iter_mut()
            .for_each(|parameter| without_null(&mut parameter["schema"]));
    }
    let mut codes = implied(operation);
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    let Some(responses) = responses.as_object_mut() else {
        return;
    };
    let refusals = responses
        .iter()
        .filter(|(status, _)| status.as_str() >= "400");
    // One that declares a body of its own means it.
    let (refusals, own): (Vec<_>, Vec<_>) =
        refusals.partition(|(_, response)| response.get("content").is_none());
    own.into_iter()
        .for_each(|(status, _)| drop(codes.remove(status)));
    let refusals: Vec<String> = refusals
        .into_iter()
        .map(|(status, _)| status.clone())
        .collect();
    for status in refusals {
        let text = responses.remove(&status).unwrap_or_default();
        let names = text["description"]
            .as_str()
            .unwrap_or_default()
            .split_whitespace();
        for name in names {
            // An unknown name stays visible, so that the test of the document finds it.
            codes
                .entry(status.clone())
                .or_default()
                .push(name.to_owned());
        }
    }
    for (status, mut names) in codes {
        names.sort_unstable();
        names.dedup();
        responses.insert(status, problem_response(&names));
    }
    for (status, response) in responses {
        // OpenAPI 3.1 wants a description even where there is nothing to add.
        if response.get("description").is_none() {
            let status = status
                .parse()
                .map(|status: http::StatusCode| status.canonical_reason());
            response["description"] = json!(status.ok().flatten().unwrap_or_default());
        }
        response["headers"]["X-Request-Id"] =
            json!({ "$ref": "#/components/headers/X-Request-Id" });
    }
}

/// A parameter that may be absent is never null.
fn without_null(schema: &mut Value) {
    let is_null = |value: &Value| value == "null" || value["type"] == "null";
    for list in ["type", "oneOf"] {
        if let Some(kinds) = schema[list].as_array_mut() {
            kinds.retain(|kind| !is_null(kind));
        }
    }
    if let [only] = schema["type"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
    {
        schema["type"] = only.clone();
    }
    if let [only] = schema["oneOf"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
    {
        *schema = only.clone();
    }
    if let Some(fields) = schema.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
}

/// The refusals that follow from what the operation takes.
fn implied(operation: &Map<String, Value>) -> BTreeMap<String, Vec<String>> {
    let mut codes = vec![
        Code::RateLimited,
        Code::Internal,
        Code::Unavailable,
        Code::Timeout,
        Code::HeadersTooLarge,
    ];
    let secured = |scheme: &str| {
        operation["security"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one.get(scheme).is_some()))
    };
    if secured("bearer") {
        codes.extend([
            Code::Unauthenticated,
            Code::TokenInvalid,
            Code::TokenExpired,
            // A query parameter that nobody knows.
            Code::ValidationFailed,
        ]);
    }
    if secured("service_key") {
        codes.extend([Code::ServiceKeyInvalid, Code::ValidationFailed]);
    }
    let parameters = operation.get("parameters").and_then(Value::as_array);
    if parameters.is_some_and(|all| !all.is_empty()) {
        codes.push(Code::ValidationFailed);
    }
    if parameters
        .into_iter()
        .flatten()
        .any(|parameter| parameter["in"] == "path")
    {
        codes.extend([Code::MalformedRequest, Code::RouteNotFound]);
    }
    if operation.contains_key("requestBody") {
        codes.extend([
            Code::MalformedJson,
            Code::MalformedRequest,
            Code::BodyTimeout,
            Code::BodyTooLarge,
            Code::UnsupportedMediaType,
            Code::ValidationFailed,
        ]);
    }
    let mut by_status = BTreeMap::<String, Vec<String>>::new();
    for code in codes {
        by_status
            .entry(code.status().as_str().to_owned())
            .or_default()
            .push(code.as_str().to_owned());
    }
    by_status
}

fn problem_response(names: &[String]) -> Value {
    let lines = names.iter().map(|name| match Code::from_name(name) {
        Some(code) => format!("`{name}`: {}", code.doc()),
        None => format!("`{name}`"),
    });
    let mut headers = json!({});
    if names.iter().any(|name| name == Code::RateLimited.as_str()) {
        for name in OF_LIMITS.into_iter().chain(["Retry-After"]) {
            headers[name] = json!({ "$ref": format!("#/components/headers/{name}") });
        }
    }
    if names.iter().any(|name| name == Code::Overloaded.as_str()) {
        headers["Retry-After"] = json!({ "$ref": "#/components/headers/Retry-After" });
    }
    json!({
        "description": lines.collect::<Vec<_>>().join("\n\n"),
        "headers": headers,
        "content": { error::CONTENT_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } },
    })
}
