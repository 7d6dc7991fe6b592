//! Signed requests to the notification service.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use secrecy::ExposeSecret as _;
use shared::clock::Clock;

use super::address::Resolver;
use super::{BuildError, HttpConfig, Outgoing, Refusal};

/// Nobody is left alone for longer than this because of a `Retry-After`.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);
/// So much of an answer is read, so that its connection can be used again.
const READ_AT_MOST: usize = 16 * 1024;
/// And for so long.
const READ_FOR: Duration = Duration::from_millis(500);
/// Connections that are kept for later.
const IDLE_CONNECTIONS: usize = 16;
/// Of what went wrong, operators see so many characters.
const ERROR_LENGTH: usize = 200;

/// The notification service as it is reached by HTTP.
#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    config: HttpConfig,
    clock: Clock,
}

impl Http {
    pub(super) fn new(config: &HttpConfig, clock: Clock) -> Result<Self, BuildError> {
        // Fails when another part of the process chose a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would resolve the name where nobody checks the address.
            .no_proxy()
            .dns_resolver(Arc::new(Resolver {
                allow_private: config.allow_private,
            }))
            .tcp_nodelay(true)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .user_agent(concat!("balas/", env!("CARGO_PKG_VERSION")));
        if config.endpoint.scheme() == "http" {
            builder = builder.tls_certs_only([]);
        }
        Ok(Self {
            client: builder.build()?,
            config: config.clone(),
            clock,
        })
    }

    /// Posts it once. The status decides; what the answer says besides is not looked at.
    pub(super) async fn send(&self, notification: &Outgoing) -> Result<(), Refusal> {
        let request = self
            .client
            .post(self.config.endpoint.clone())
            .headers(self.headers(notification))
            .body(notification.body.clone());
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(Refusal::of(kind_of(&error.without_url()))),
        };
        let status = response.status();
        let retry_after = self.retry_after(&response);
        let _ = tokio::time::timeout(READ_FOR, finish(response)).await;
        if status.is_success() {
            return Ok(());
        }
        Err(Refusal {
            error: format!("status {}", status.as_u16()),
            gone: status == StatusCode::GONE,
            retry_after,
        })
    }

    fn headers(&self, notification: &Outgoing) -> HeaderMap {
        let timestamp = self.clock.now().unix_timestamp();
        let signature = self
            .config
            .keys
            .sign(notification.id, timestamp, &notification.body);
        let service_key = self.config.service_key.as_ref();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in [
            ("webhook-id", Some(notification.id.to_string())),
            ("webhook-timestamp", Some(timestamp.to_string())),
            ("webhook-signature", Some(signature)),
            (
                "x-service-key",
                service_key.map(|key| key.expose_secret().to_owned()),
            ),
            ("x-request-id", notification.request_id.clone()),
            ("traceparent", notification.traceparent.clone()),
        ] {
            let Some(mut value) = value.and_then(|value| HeaderValue::try_from(value).ok()) else {
                continue;
            };
            value.set_sensitive(name == "x-service-key");
            headers.insert(HeaderName::from_static(name), value);
        }
        headers
    }

    fn retry_after(&self, response: &Response) -> Option<Duration> {
        let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
        let wait = crate::upstream::retry_after(text, self.clock.now())?;
        Some(wait.min(LONGEST_RETRY_AFTER))
    }
}

/// Reads a short answer to its end; a long one is cut off with its connection.
async fn finish(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > READ_AT_MOST {
            return;
        }
    }
}

/// What went wrong, from the innermost cause, which says most.
fn kind_of(error: &reqwest::Error) -> String {
    let kind = if error.is_connect() {
        "no connection"
    } else if error.is_timeout() {
        "timeout"
    } else {
        "no answer"
    };
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    let text = match cause {
        Some(cause) => format!("{kind}: {cause}"),
        None => kind.to_owned(),
    };
    text.chars().take(ERROR_LENGTH).collect()
}
