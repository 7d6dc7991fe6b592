//! Asking one service.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use crate::breaker::Breaker;
use crate::{PlatformConfig, ServiceAddress};

/// An answer with more is none that Balas can use.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Tries after the first.
const RETRIES: usize = 2;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No address is set.
    #[error("the service is not configured")]
    NotConfigured,
    /// The service says that there is no such thing.
    #[error("the service knows nothing of it")]
    NotFound,
    /// It did not answer, or not in a way that makes sense.
    #[error("the service gave no answer: {0}")]
    Unavailable(String),
}

/// How one try failed, and whether another may do better.
#[derive(Debug)]
struct Failure {
    text: String,
    passes: bool,
}

#[derive(Debug)]
pub(crate) struct Service {
    name: &'static str,
    url: Url,
    client: reqwest::Client,
    breaker: Breaker,
}

impl Service {
    pub(crate) fn new(
        address: &ServiceAddress,
        config: &PlatformConfig,
    ) -> Result<Self, reqwest::Error> {
        // Fails when another part of the process chose a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        let key = address.key.as_ref();
        if let Some(mut key) = key.and_then(|key| HeaderValue::from_str(key.expose_secret()).ok()) {
            key.set_sensitive(true);
            headers.insert("x-service-key", key);
        }
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .timeout(config.timeout)
            .connect_timeout(config.timeout)
            // The key is for this service and for nobody it points to.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("balas/", env!("CARGO_PKG_VERSION")));
        if address.url.scheme() == "http" {
            builder = builder.tls_certs_only([]);
        }
        Ok(Self {
            name: address.name,
            url: address.url.clone(),
            client: builder.build()?,
            breaker: Breaker::default(),
        })
    }

    /// Asks, and reads the answer.
    pub(crate) async fn get<T>(
        &self,
        path: &str,
        user_id: Uuid,
        read: fn(&Value) -> Option<T>,
    ) -> Result<T, Missing> {
        if !self.breaker.admits() {
            self.count("rested");
            return Err(Missing::Unavailable("it failed several times".to_owned()));
        }
        self.show_breaker();
        let began = Instant::now();
        let backoff = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_factor(3.0)
            .with_max_times(RETRIES)
            .with_jitter();
        let asking = || self.ask(path, user_id, read);
        let asked = asking
            .retry(backoff)
            .when(|failure: &Failure| failure.passes);
        let asked = asked.await;
        metrics::histogram!(shared::metrics::PLATFORM_DURATION, "service" => self.name)
            .record(began.elapsed().as_secs_f64());
        match asked {
            Ok(answer) => {
                self.breaker.succeeded();
                self.show_breaker();
                self.count(if answer.is_some() {
                    "answered"
                } else {
                    "not_found"
                });
                answer.ok_or(Missing::NotFound)
            }
            Err(failure) => {
                self.breaker.failed();
                self.show_breaker();
                self.count("failed");
                let text = failure.text;
                tracing::warn!(
                    service = self.name,
                    error = text,
                    "a service of the platform gave no answer"
                );
                Err(Missing::Unavailable(text))
            }
        }
    }

    /// Counts a question by what came of it.
    pub(crate) fn count(&self, outcome: &'static str) {
        metrics::counter!(shared::metrics::PLATFORM_REQUESTS, "service" => self.name, "outcome" => outcome)
            .increment(1);
    }

    fn show_breaker(&self) {
        metrics::gauge!(shared::metrics::PLATFORM_BREAKER, "service" => self.name)
            .set(self.breaker.condition().number());
    }

    /// None when the service says that there is nothing.
    async fn ask<T>(
        &self,
        path: &str,
        user_id: Uuid,
        read: fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let failure = |text: String, passes| Failure { text, passes };
        let of_request = |error: reqwest::Error| {
            let kind = if error.is_timeout() {
                "timeout"
            } else {
                "no connection"
            };
            failure(kind.to_owned(), true)
        };
        let url = self
            .url
            .join(path)
            .map_err(|error| failure(error.to_string(), false))?;
        let response = self
            .client
            .get(url)
            .header("x-user-id", user_id.to_string())
            .send()
            .await
            .map_err(of_request)?;
        let status = response.status();
        match status {
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            status if status.is_success() => {}
            status => {
                let passes = status.is_server_error()
                    || matches!(
                        status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                    );
                return Err(failure(format!("status {}", status.as_u16()), passes));
            }
        }
        let body = body(response).await.map_err(of_request)?;
        let body = body.ok_or_else(|| failure("its answer is too large".to_owned(), false))?;
        let answer = serde_json::from_slice(&body)
            .ok()
            .and_then(|value| read(&value));
        answer
            .map(Some)
            .ok_or_else(|| failure("its answer makes no sense".to_owned(), false))
    }
}

/// The body; none when it is too large.
async fn body(mut response: reqwest::Response) -> Result<Option<Bytes>, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}
