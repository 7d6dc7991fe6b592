//! A client of the API, as one user.

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use jsonwebtoken::{EncodingKey, Header, encode};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::shown;

pub(crate) const JWT_SECRET: &str = "the-secret-of-the-tests";
pub(crate) const SERVICE_KEY: &str = "the-service-key-of-the-tests";

/// Makes requests with the user's token.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) url: String,
    pub(crate) user: Uuid,
    token: Option<String>,
    service_key: Option<&'static str>,
    http: reqwest::Client,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) raw: String,
}

impl Client {
    pub(super) fn new(url: String, user: Uuid) -> Self {
        Self {
            url,
            user,
            token: Some(token(user)),
            service_key: None,
            http: http_client(),
        }
    }

    /// The same client without a token.
    pub(crate) fn anonymous(&self) -> Self {
        Self {
            token: None,
            ..self.clone()
        }
    }

    /// Another service at the same replica.
    pub(crate) fn service(&self) -> Self {
        Self {
            token: None,
            service_key: Some(SERVICE_KEY),
            ..self.clone()
        }
    }

    /// The same user, who pays.
    pub(crate) fn premium(&self) -> Self {
        self.with_token(token_with(json!({ "sub": self.user, "tier": "premium" })))
    }

    /// The same client with another token.
    pub(crate) fn with_token(&self, token: impl Into<String>) -> Self {
        Self {
            token: Some(token.into()),
            ..self.clone()
        }
    }

    /// The same user at another replica.
    pub(crate) fn at(&self, url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ..self.clone()
        }
    }

    pub(crate) fn bearer(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(key) = self.service_key {
            request = request.header("x-service-key", key);
        }
        match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let raw = response.text().await.unwrap();
        let body = serde_json::from_str(&raw).unwrap_or(Value::Null);
        Answer {
            status,
            headers,
            body,
            raw,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body))
            .await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PATCH, path).json(&body))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// A POST with more headers.
    pub(crate) async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let request = self.request(Method::POST, path).json(&body);
        self.send(headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        }))
        .await
    }

    /// Sends a message; it must be accepted.
    pub(crate) async fn say(&self, conversation: &str, content: &str) -> Answer {
        let path = format!("/api/chat/conversations/{conversation}/messages");
        let answer = self.post(&path, json!({ "content": content })).await;
        assert_eq!(answer.status, 202, "{}", answer.shown());
        answer
    }

    /// Sends a message and waits for its reply.
    pub(crate) async fn ask(&self, conversation: &str, content: &str) -> Answer {
        let path = format!("/api/chat/conversations/{conversation}/messages");
        self.post_with(
            &path,
            &[("prefer", "wait=30")],
            json!({ "content": content }),
        )
        .await
    }

    /// Waits until a generation has ended.
    pub(crate) async fn ended(&self, generation: &str) -> Answer {
        super::until(async || {
            let answer = self
                .get(&format!("/api/chat/generations/{generation}?wait=5"))
                .await;
            assert_eq!(answer.status, 200, "{}", answer.shown());
            let ended = !matches!(answer.text("/status").as_str(), "queued" | "in_progress");
            ended.then_some(answer)
        })
        .await
    }
}

impl Answer {
    /// The text at a JSON pointer.
    pub(crate) fn text(&self, pointer: &str) -> String {
        let value = self
            .body
            .pointer(pointer)
            .unwrap_or_else(|| panic!("no {pointer} in {}", self.shown()));
        value
            .as_str()
            .unwrap_or_else(|| panic!("{pointer} is no text in {}", self.shown()))
            .to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Status and body, with what differs from run to run replaced.
    pub(crate) fn shown(&self) -> String {
        shown::answer(self.status, &self.body, &self.raw)
    }

    /// Status, code and each wrong field, on one line.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{}",
            self.shown()
        );
        assert_eq!(self.body["status"], self.status);
        assert_eq!(self.text("/request_id"), self.header("x-request-id"));
        assert_eq!(
            self.text("/type"),
            format!("urn:balas:problem:{}", self.text("/code"))
        );
        let errors = self.body["errors"].as_array().cloned().unwrap_or_default();
        let fields = errors
            .iter()
            .map(|error| format!(" {}", error["field"].as_str().unwrap()));
        format!(
            "{} {}{}",
            self.status,
            self.text("/code"),
            fields.collect::<String>()
        )
    }
}

fn http_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// A valid token of an ordinary user.
pub(crate) fn token(user: Uuid) -> String {
    token_with(json!({ "sub": user }))
}

/// A token with these claims, valid for an hour unless they say otherwise.
pub(crate) fn token_with(claims: Value) -> String {
    signed(JWT_SECRET, claims)
}

/// A token that somebody else signed.
pub(crate) fn forged_token(user: Uuid) -> String {
    signed("a-secret-of-somebody-else", json!({ "sub": user }))
}

fn signed(secret: &str, claims: Value) -> String {
    let mut all = json!({ "exp": now().unix_timestamp() + 3600 });
    all.as_object_mut()
        .unwrap()
        .extend(claims.as_object().unwrap().clone());
    encode(
        &Header::default(),
        &all,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
    .unwrap()
}

pub(crate) fn now() -> OffsetDateTime {
    shared::clock::Clock::system().now()
}
