//! One call of one model: the request, the stream, the record.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use shared::clock::Clock;
use shared::models::Prices;
use shared::traces::Traces;

use super::catalogue::Catalogue;
use super::error::{CallError, Signal};
use super::hints::Hints;
use super::intake::{Intake, Trace, read_body, transport};
use super::keys::{Key, Keys};
use super::providers::{Provider, http};
use super::retries::Retries;
use super::stream::{Ending, Reply, clean};
use super::watch::Watch;
use super::{
    Answer, Call, CallRecord, ChatMessage, ErrorClass, Model, Progress, UpstreamConfig, key_file,
    request,
};

/// The HTTP client could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up the upstream client")]
pub struct BuildError(#[from] reqwest::Error);

/// The upstream as this process uses it; one for all generations.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    others: Vec<Provider>,
    endpoint: Url,
    headers: HeaderMap,
    config: UpstreamConfig,
    pub(super) keys: Keys,
    pub(super) catalogue: Catalogue,
    pub(super) retries: Retries,
    pub(super) traces: Traces,
    clock: Clock,
}

/// What one call is made of.
pub(super) struct Attempt<'a> {
    pub(super) model: &'a Model,
    pub(super) key: &'a Key,
    pub(super) call: &'a Call,
    pub(super) messages: &'a [ChatMessage],
    /// W3C trace context, passed on.
    pub(super) traceparent: Option<String>,
}

/// How one call ended.
pub(super) struct CallEnd {
    pub(super) record: CallRecord,
    pub(super) result: Result<Answer, CallError>,
}

impl Client {
    /// Sets up the connections; none is opened yet.
    ///
    /// # Errors
    /// When the machine's trusted certificates cannot be read for an https upstream.
    pub fn new(config: UpstreamConfig, clock: Clock) -> Result<Self, BuildError> {
        let connect = config.timeouts.connect;
        let others = config.providers.iter();
        let others: Result<_, _> = others.map(|one| Provider::new(one, connect)).collect();
        // It could be read a moment ago; should it be gone, it is waited for.
        let from_file = config.keys_file.as_deref().map(key_file::read);
        let from_file = from_file.and_then(Result::ok).unwrap_or_default();
        Ok(Self {
            http: http(&config.base_url, connect)?,
            others: others?,
            endpoint: endpoint(&config.base_url, "chat/completions"),
            headers: fixed_headers(&config),
            keys: Keys::new(config.keys.iter().cloned().chain(from_file)),
            catalogue: Catalogue::default(),
            retries: Retries::new(tokio::time::Instant::now()),
            traces: Traces::off(),
            config,
            clock,
        })
    }

    /// Records a span of each call.
    #[must_use]
    pub fn traced(mut self, traces: Traces) -> Self {
        self.traces = traces;
        self
    }

    /// What this client was set up with.
    #[must_use]
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// What the upstream lists as prices of the configured models.
    #[must_use]
    pub fn prices(&self) -> &Prices {
        &self.catalogue.prices
    }

    /// What stands for each of its keys, with how long it is not used at all, and not for models that cost
    /// something.
    #[must_use]
    pub fn key_rests(&self, now: std::time::Instant) -> Vec<(String, Duration, Duration)> {
        self.keys.rests(now)
    }

    /// Who is asked for a model instead of the upstream.
    fn other(&self, model: &Model) -> Option<&Provider> {
        self.others.iter().find(|other| other.serves(&model.name))
    }

    /// The keys of whoever is asked for a model.
    pub(super) fn keys_of(&self, model: &Model) -> &Keys {
        self.other(model).map_or(&self.keys, |other| &other.keys)
    }

    /// Calls one model once. Dropping the future closes the connection.
    pub(super) async fn call<P: Progress>(
        &self,
        attempt: &Attempt<'_>,
        progress: &mut P,
    ) -> CallEnd {
        let mut trace = Trace {
            started_at: self.clock.now(),
            http_status: None,
            first_token_at: None,
        };
        let mut reply = Reply::default();
        let ending = self
            .exchange(attempt, &mut trace, &mut reply, progress)
            .await;
        let ending = ending.and_then(|()| reply.ending());
        let usage = reply.usage(attempt.model.free);
        let record = CallRecord {
            model: attempt.model.clone(),
            model_served: reply.model_served.clone(),
            key_label: attempt.key.label().to_owned(),
            // A cost that is not known is asked of the upstream by this id, which knows its own only.
            upstream_id: reply
                .upstream_id
                .clone()
                .filter(|_| self.other(attempt.model).is_none()),
            http_status: trace.http_status,
            error: ending.as_ref().err().map(|error| error.class),
            detail: ending.as_ref().err().map(|error| error.detail.clone()),
            finish_reason: reply.finish_reason.clone(),
            wasted: ending.is_err() && trace.http_status == Some(200),
            usage: usage.clone(),
            started_at: trace.started_at,
            first_token_at: trace.first_token_at,
            finished_at: self.clock.now(),
        };
        let result = ending.map(|ending| Answer {
            incomplete: ending == Ending::Cut,
            finish_reason: reply.finish_reason.unwrap_or_else(|| "length".to_owned()),
            model: attempt.model.clone(),
            model_served: reply
                .model_served
                .unwrap_or_else(|| attempt.model.name.clone()),
            upstream_id: reply.upstream_id,
            usage,
            first_token_at: trace.first_token_at,
            text: reply.text,
        });
        CallEnd { record, result }
    }

    /// Reads what the upstream tells about itself at `path`, of at most `max_bytes`.
    ///
    /// # Errors
    /// What went wrong, for the log.
    pub(super) async fn read(&self, path: &str, max_bytes: usize) -> Result<Vec<u8>, String> {
        match self
            .get(endpoint(&self.config.base_url, path), None, max_bytes)
            .await?
        {
            (status, body) if status.is_success() => Ok(body),
            (status, _) => Err(format!("upstream answered {}", status.as_u16())),
        }
    }

    /// Reads what the upstream answers there to the key of this label, or to one that works where there is none;
    /// of at most `max_bytes`, and nothing of what is no success.
    ///
    /// # Errors
    /// What went wrong, for the log.
    pub(super) async fn get(
        &self,
        url: Url,
        key: Option<&str>,
        max_bytes: usize,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let mut request = self.http.get(url);
        let key = key.and_then(|label| self.keys.labelled(label));
        let key = key.or_else(|| self.keys.any());
        if let Some(value) = key.as_deref().and_then(bearer) {
            request = request.header(AUTHORIZATION, value);
        }
        let failed = |error: reqwest::Error| transport(&error).detail;
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let mut body = Vec::new();
        if !status.is_success() {
            return Ok((status, body));
        }
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > max_bytes {
                return Err("the answer is too long".to_owned());
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }

    async fn exchange<P: Progress>(
        &self,
        attempt: &Attempt<'_>,
        trace: &mut Trace,
        reply: &mut Reply,
        progress: &mut P,
    ) -> Result<(), CallError> {
        let (models, common) = (&self.config.models, self.config.timeouts);
        let timeouts = Catalogue::timeouts(models, &attempt.model.name, common);
        let mut watch = Watch::start(timeouts);
        let other = self.other(attempt.model);
        let dialect = other.map_or(self.config.dialect, |other| other.dialect);
        let body = request::body(
            &self.config,
            dialect,
            attempt.call,
            attempt.messages,
            &attempt.model.name,
        );
        let hash = payload_hash(&body);
        let (http, endpoint) = other.map_or((&self.http, &self.endpoint), |other| {
            (&other.http, &other.endpoint)
        });
        let request = http
            .post(endpoint.clone())
            .headers(self.headers_of(attempt))
            .body(body);
        let response = watch
            .wait(progress, request.send())
            .await?
            .map_err(|error| transport(&error))?;
        let status = response.status().as_u16();
        trace.http_status = Some(status);
        reply.upstream_id = header_text(&response, "x-generation-id");
        if status != 200 {
            return Err(self.refusal(response, &mut watch, progress, &hash).await);
        }
        if let Some(id) = reply.upstream_id.as_ref().filter(|_| other.is_none()) {
            progress.accepted(id).await;
        }
        let streamed = response.headers().get(CONTENT_TYPE).is_none_or(|kind| {
            kind.to_str().is_ok_and(|kind| {
                kind.trim_start()
                    .to_ascii_lowercase()
                    .starts_with("text/event-stream")
            })
        });
        let mut intake = Intake {
            reply,
            trace,
            progress,
            clock: &self.clock,
            announced: false,
        };
        intake.announced = intake.reply.upstream_id.is_some() || other.is_some();
        if streamed {
            intake.stream(response, &mut watch).await
        } else {
            let body = read_body(response, &mut watch, intake.progress).await?;
            let body = String::from_utf8(body)
                .map_err(|_| CallError::of(ErrorClass::Malformed, "the answer is not UTF-8"))?;
            intake.absorb(&body, &mut watch).await
        }
    }

    /// Reads what an HTTP error says.
    async fn refusal<P: Progress>(
        &self,
        response: Response,
        watch: &mut Watch,
        progress: &mut P,
        payload_hash: &str,
    ) -> CallError {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        if !response.status().is_client_error() && !response.status().is_server_error() {
            return CallError::of(ErrorClass::Malformed, format!("upstream answered {status}"));
        }
        // The status alone is enough where the body does not come or is no JSON.
        let body = read_body(response, watch, progress)
            .await
            .unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let error = body
            .get("error")
            .filter(|error| !error.is_null())
            .unwrap_or(&body);
        let hints = Hints::read(Some(&headers), error, self.clock.now());
        let mut error = CallError::from(Signal::read(Some(status), error, hints));
        if error.class == ErrorClass::InvalidRequest {
            // Enough to tell whether one payload or every payload is refused.
            error
                .detail
                .push_str(&format!(" (payload sha256 {payload_hash})"));
        }
        error
    }

    fn headers_of(&self, attempt: &Attempt<'_>) -> HeaderMap {
        let mut headers = self.headers.clone();
        if let Some(value) = bearer(attempt.key) {
            headers.insert(AUTHORIZATION, value);
        }
        for (name, value) in [
            ("x-request-id", &attempt.call.request_id),
            ("traceparent", &attempt.traceparent),
        ] {
            if let Some(value) = value
                .as_ref()
                .and_then(|value| HeaderValue::try_from(value).ok())
            {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        headers
    }
}

pub(super) fn endpoint(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}

pub(super) fn bearer(key: &Key) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", key.secret()?)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(super) fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn fixed_headers(config: &UpstreamConfig) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    for (name, value) in [
        ("http-referer", &config.referer),
        ("x-title", &config.title),
    ] {
        if let Some(value) = value {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
    headers
}

fn header_text(response: &Response, name: &str) -> Option<String> {
    let text = response.headers().get(name)?.to_str().ok()?;
    Some(clean(text)).filter(|text| !text.is_empty())
}

fn payload_hash(body: &[u8]) -> String {
    Sha256::digest(body)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn proxies_are_for_other_machines() {
        let here = |url: &str| super::is_this_machine(&url.parse().unwrap());
        for url in [
            "http://localhost:1/v1",
            "http://127.0.0.1:1",
            "http://127.9.9.9",
            "http://[::1]:1/v1",
        ] {
            assert!(here(url), "{url}");
        }
        for url in [
            "https://openrouter.ai/api/v1",
            "http://10.0.0.1",
            "http://localhost.example",
        ] {
            assert!(!here(url), "{url}");
        }
    }

    #[test]
    fn a_payload_has_a_short_stable_name() {
        assert_eq!(super::payload_hash(b"{}"), "44136fa355b3678a");
    }
}
