//! Coverage by construction: every documented route is tried without credentials, with somebody
//! else's ids and with input that makes no sense. A new route that these tests cannot try fails
//! them, so that nobody forgets it.

use http::Method;
use serde_json::{Value, json};

use crate::assessments::prepared;
use crate::common::{Answer, Client, SERVICE_KEY, TestApp, forged_token, fresh_id, token_with};

/// One documented operation.
struct Operation {
    method: Method,
    path: String,
    described: Value,
}

fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(api::openapi::text()).unwrap();
    let paths = document["paths"].as_object().unwrap().clone();
    let flat = paths.into_iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().clone();
        methods
            .into_iter()
            .map(move |(method, described)| Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                described,
            })
    });
    flat.collect()
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn needs(&self, scheme: &str) -> bool {
        self.described["security"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one.get(scheme).is_some())
    }

    fn parameters(&self, place: &str) -> Vec<&str> {
        let all = self.described["parameters"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        all.iter()
            .filter(|one| one["in"] == place)
            .map(|one| one["name"].as_str().unwrap())
            .collect()
    }

    fn has_body(&self) -> bool {
        self.described.get("requestBody").is_some()
    }

    /// A body this operation accepts. A new one with a body must be added here.
    fn body(&self) -> Option<Value> {
        let body = match self.name().as_str() {
            "POST /api/chat/conversations" => json!({}),
            "PUT /api/chat/conversations/{conversation_id}"
            | "PATCH /api/chat/conversations/{conversation_id}" => {
                json!({ "title": "taken over" })
            }
            "POST /api/chat/conversations/{conversation_id}/messages" => json!({ "content": "x" }),
            "POST /api/chat/conversations/{conversation_id}/messages/{message_id}/regenerate" => {
                json!({})
            }
            "POST /api/chat/conversations/{conversation_id}/messages/{message_id}/feedback" => {
                json!({ "rating": "up" })
            }
            "POST /api/chat/conversations/from-assessment"
            | "POST /api/chat/assessment/{assessment_id}/initialize" => json!({}),
            "POST /api/chat/conversations/auto-initialize" => json!({
                "user_id": fresh_id(), "assessment_id": fresh_id(), "trigger_source": "assessment_complete",
            }),
            "POST /api/chat/conversations/{conversation_id}/context/assessment" => {
                json!({ "assessment_id": fresh_id() })
            }
            "POST /api/chat/support/chat" => json!({ "message": "x" }),
            "POST /api/chat/knowledge/proposals/{proposal_id}/approve"
            | "POST /api/chat/knowledge/documents"
            | "PUT /api/chat/knowledge/documents/{document_id}" => json!({ "issue": "x" }),
            "POST /api/chat/knowledge/reindex" => {
                json!({ "embedding_model": "x", "dimension": 8 })
            }
            "PUT /api/chat/knowledge/synonyms/{word}" => json!({ "means": ["x"] }),
            "POST /api/chat/knowledge/ingestions/{ingestion_id}/retry" => json!({}),
            // A form with a file; `knowledge.rs` has its cases.
            "POST /api/chat/knowledge/ingestions" => return None,
            "POST /internal/support/{conversation_id}/take" => {
                json!({ "user_id": uuid::Uuid::nil(), "agent": "x" })
            }
            "POST /internal/support/{conversation_id}/reply" => {
                json!({ "user_id": uuid::Uuid::nil(), "agent": "x", "content": "x" })
            }
            "POST /internal/support/{conversation_id}/give-back" => {
                json!({ "user_id": uuid::Uuid::nil() })
            }
            "POST /internal/support/{conversation_id}/resolve" => {
                json!({ "user_id": uuid::Uuid::nil(), "reason": "x" })
            }
            "POST /internal/queues/{name}/pause" => json!({ "reason": "a test" }),
            "POST /internal/dead-letters/{dead_letter_id}/replay" => json!({}),
            "POST /internal/dead-notifications/{dead_notification_id}/replay"
            | "POST /internal/dead-notifications/{dead_notification_id}/discard" => json!({}),
            "POST /internal/dead-letters/replay" | "POST /internal/dead-letters/discard" => {
                json!({ "error_code": "internal" })
            }
            other if self.has_body() => panic!("{other} takes a body and has no case: add one"),
            _ => return None,
        };
        Some(body)
    }

    /// Routes that take nothing a caller could get wrong.
    fn takes_nothing(&self) -> bool {
        let name = self.name();
        ["GET /health/live", "GET /health/ready", "GET /metrics"].contains(&name.as_str())
    }

    /// For administrators only.
    fn is_for_admins(&self) -> bool {
        self.path.starts_with("/api/chat/knowledge/")
    }

    async fn ask(&self, client: &Client, path: &str, body: Option<Value>) -> Answer {
        let request = client.request(self.method.clone(), path);
        match body {
            Some(body) => client.send(request.json(&body)).await,
            None => client.send(request).await,
        }
    }
}

/// What belongs to the one who is to be left alone.
struct Victim {
    client: Client,
    conversation: String,
    message: String,
    generation: String,
    dead_letter: String,
    dead_notification: String,
    assessment: String,
}

impl Victim {
    async fn new(app: &TestApp) -> Self {
        let client = app.user();
        // With a title of its own, so that nothing is generated for it while the tests compare.
        let titled = client
            .post("/api/chat/conversations", json!({ "title": "mine" }))
            .await;
        let conversation = titled.text("/id");
        let answer = client.ask(&conversation, "secret of the victim").await;
        assert_eq!(answer.status, 200, "{}", answer.shown());
        let (message, generation) = (
            answer.text("/assistant_message/id"),
            answer.text("/generation/id"),
        );
        let failed = client
            .ask(&conversation, "[[sim:moderation]] secret of the victim")
            .await;
        assert_eq!(failed.text("/generation/status"), "failed");
        let dead_letter = failed.text("/generation/id");
        let dead_notification =
            crate::operator::dead_notification(app, client.user, &dead_letter).await;
        let assessment = prepared(&client).await;
        Self {
            client,
            conversation,
            message,
            generation,
            dead_letter,
            dead_notification,
            assessment,
        }
    }

    /// The path with the victim's ids. A new kind of id must be added here.
    fn path(&self, operation: &Operation) -> String {
        let filled = operation
            .path
            .replace("{conversation_id}", &self.conversation)
            .replace("{message_id}", &self.message)
            .replace("{generation_id}", &self.generation)
            .replace("{dead_letter_id}", &self.dead_letter)
            .replace("{dead_notification_id}", &self.dead_notification)
            .replace("{assessment_id}", &self.assessment)
            .replace("{user_id}", &self.client.user.to_string())
            .replace("{ingestion_id}", &self.conversation)
            .replace("{document_id}", &self.conversation)
            .replace("{proposal_id}", &self.conversation)
            .replace("{word}", "kekunci")
            .replace("{name}", "standard");
        assert!(
            !filled.contains('{'),
            "{}: whose id is that? add it",
            operation.name()
        );
        filled
    }
}

/// Everything the victim has, to compare before and after.
async fn belongings(app: &TestApp) -> Vec<Option<String>> {
    let mut all = Vec::new();
    for table in [
        "conversations",
        "messages",
        "generations",
        "feedback",
        "usage_tracking",
        "audit_log",
        "notifications",
        "assessments",
        "support_questions",
        "knowledge_proposals",
    ] {
        let sql =
            format!("SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM chat.{table} t");
        all.push(app.env.value(&sql).await);
    }
    all
}

#[tokio::test]
async fn every_route_asks_for_the_credentials_it_documents() {
    let app = TestApp::new().await;
    let victim = Victim::new(&app).await;
    let before = belongings(&app).await;
    for operation in operations() {
        let path = victim.path(&operation);
        let name = operation.name();
        let anonymous = victim.client.anonymous();
        if operation.needs("bearer") && operation.needs("service_key") {
            // For the person or for a service.
            let forged = victim.client.with_token(forged_token(victim.client.user));
            for (client, code) in [
                (&anonymous, "401 unauthenticated"),
                (&forged, "401 token_invalid"),
            ] {
                let answer = operation.ask(client, &path, operation.body()).await;
                assert_eq!(answer.problem(), code, "{name}");
            }
            let request = victim
                .client
                .request(operation.method.clone(), &path)
                .header("x-service-key", "some-other-service-key");
            let wrong = victim.client.send(request).await;
            assert_eq!(wrong.problem(), "401 service_key_invalid", "{name}");
        } else if operation.needs("bearer") {
            let expired = token_with(json!({ "sub": victim.client.user, "exp": 1_000_000 }));
            for (client, code) in [
                (anonymous.clone(), "401 unauthenticated"),
                (
                    victim.client.with_token(forged_token(victim.client.user)),
                    "401 token_invalid",
                ),
                (victim.client.with_token(expired), "401 token_expired"),
            ] {
                assert_eq!(
                    operation
                        .ask(&client, &path, operation.body())
                        .await
                        .problem(),
                    code,
                    "{name}"
                );
            }
            // A service key is no person.
            let request = anonymous
                .request(operation.method.clone(), &path)
                .header("x-service-key", SERVICE_KEY);
            assert_eq!(
                anonymous.send(request).await.problem(),
                "401 unauthenticated",
                "{name}"
            );
        } else if operation.needs("service_key") {
            // A person is no service, not even an administrator.
            let admin = token_with(json!({ "sub": victim.client.user, "role": "admin" }));
            for client in [&anonymous, &victim.client, &victim.client.with_token(admin)] {
                let plain = operation.ask(client, &path, operation.body()).await;
                assert_eq!(plain.problem(), "401 service_key_invalid", "{name}");
                let request = client
                    .request(operation.method.clone(), &path)
                    .header("x-service-key", "some-other-service-key");
                let wrong = client.send(request).await;
                assert_eq!(wrong.problem(), "401 service_key_invalid", "{name}");
            }
        } else {
            let public = ["/health", "/metrics"]
                .iter()
                .any(|start| path.starts_with(start));
            assert!(
                public,
                "{name} asks for nothing: is it meant for everybody?"
            );
        }
    }
    assert_eq!(belongings(&app).await, before);
}

#[tokio::test]
async fn every_route_keeps_people_apart() {
    let app = TestApp::new().await;
    let victim = Victim::new(&app).await;
    let before = belongings(&app).await;
    let stranger = app.user();
    for operation in operations()
        .iter()
        .filter(|operation| operation.path.starts_with("/api/"))
    {
        let (path, name) = (victim.path(operation), operation.name());
        if operation.is_for_admins() {
            let answer = operation.ask(&stranger, &path, operation.body()).await;
            assert_eq!(answer.problem(), "403 admin_required", "{name}");
        } else if operation.path.contains('{') {
            let answer = operation.ask(&stranger, &path, operation.body()).await;
            assert_eq!(answer.status, 404, "{name}: {}", answer.shown());
            assert!(answer.problem().ends_with("_not_found"), "{name}");
        } else if operation.method == Method::GET && operation.path != "/api/chat/ws" {
            let answer = operation.ask(&stranger, &path, None).await;
            assert_eq!(answer.status, 200, "{name}");
            for secret in [&victim.conversation, &victim.message, &victim.generation] {
                assert!(
                    !answer.raw.contains(secret.as_str()),
                    "{name} shows {secret}"
                );
            }
        }
    }
    // Services see the work and not the words.
    let service = victim.client.service();
    for operation in operations()
        .iter()
        .filter(|operation| operation.path.starts_with("/internal/"))
    {
        let (path, name) = (victim.path(operation), operation.name());
        if operation.method == Method::GET {
            let answer = operation.ask(&service, &path, None).await;
            assert_eq!(answer.status, 200, "{name}: {}", answer.shown());
            assert!(!answer.raw.contains("secret of the victim"), "{name}");
        }
    }
    let theirs = format!("WHERE user_id = '{}'", stranger.user);
    for table in ["messages", "generations", "feedback"] {
        let sql = format!("SELECT count(*) FROM chat.{table} {theirs}");
        assert_eq!(app.env.value(&sql).await.as_deref(), Some("0"), "{table}");
    }
    assert_eq!(belongings(&app).await, before);
}

#[tokio::test]
async fn every_route_refuses_input_that_makes_no_sense() {
    let app = TestApp::new().await;
    let victim = Victim::new(&app).await;
    let before = belongings(&app).await;
    let (person, service) = (&victim.client, &victim.client.service());
    let admin = token_with(json!({ "sub": victim.client.user, "role": "admin" }));
    let admin = &victim.client.with_token(admin);
    for operation in operations() {
        let (path, name) = (victim.path(&operation), operation.name());
        let owner = match operation.needs("service_key") {
            true => service,
            false if operation.is_for_admins() => admin,
            false => person,
        };
        let mut tried = operation.takes_nothing();
        for parameter in operation.parameters("path") {
            tried = true;
            let odd = operation
                .path
                .replace(&format!("{{{parameter}}}"), "not-an-id");
            let odd = victim.path(&Operation {
                path: odd,
                described: Value::Null,
                method: operation.method.clone(),
            });
            let answer = operation.ask(owner, &odd, operation.body()).await;
            assert_eq!(
                answer.problem(),
                format!("422 validation_failed {parameter}"),
                "{name}"
            );
        }
        // Also where there are no parameters at all.
        let checks = operation.needs("bearer") || operation.needs("service_key");
        if checks || !operation.parameters("query").is_empty() {
            tried = true;
            let answer = operation
                .ask(owner, &format!("{path}?surprise=1"), operation.body())
                .await;
            assert_eq!(answer.problem(), "422 validation_failed surprise", "{name}");
        }
        if let Some(mut body) = operation.body() {
            tried = true;
            body["surprise"] = json!(1);
            let answer = operation.ask(owner, &path, Some(body)).await;
            assert_eq!(answer.problem(), "422 validation_failed surprise", "{name}");
            for (kind, text, expected) in [
                ("application/json", "{", "400 malformed_json"),
                ("application/json", "5", "422 validation_failed body"),
                ("text/plain", "{}", "415 unsupported_media_type"),
            ] {
                let request = owner
                    .request(operation.method.clone(), &path)
                    .header("content-type", kind);
                assert_eq!(
                    owner.send(request.body(text)).await.problem(),
                    expected,
                    "{name}"
                );
            }
        }
        assert!(tried, "{name} was not tried: give it a case");
    }
    assert_eq!(belongings(&app).await, before);
}

#[tokio::test]
async fn every_refusal_is_documented() {
    // What the three tests above see must be in the document; that they see all is their promise.
    for operation in operations() {
        let responses = operation.described["responses"].as_object().unwrap();
        let name = operation.name();
        if operation.needs("bearer") {
            assert!(responses.contains_key("401"), "{name}");
        }
        if operation.path.contains('{') {
            assert!(
                responses.contains_key("404") && responses.contains_key("422"),
                "{name}"
            );
        }
        if operation.has_body() {
            for status in ["400", "413", "415", "422"] {
                assert!(responses.contains_key(status), "{name} {status}");
            }
        }
        if operation.needs("bearer") || operation.needs("service_key") {
            assert!(responses.contains_key("422"), "{name}");
        }
        for status in ["429", "431", "500", "503"] {
            assert!(responses.contains_key(status), "{name} {status}");
        }
    }
}
