//! One call for vectors: texts in, a vector for each in the same order, or an error by the same table as
//! everybody else's.

use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use shared::clock::Clock;
use time::OffsetDateTime;

use super::backoff::full_jitter;
use super::client::{bearer, endpoint, is_this_machine};
use super::embeddings_config::EmbeddingConfig;
use super::error::{CallError, Signal};
use super::hints::Hints;
use super::intake::transport;
use super::keys::{Keys, Refusal};
use super::{Admission, BuildError, ErrorClass, Model, Referee, TokenUsage, wire};

/// The longest answer: ten vectors of the largest dimension as text take about 1 MB.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// A provider of vectors as this process uses it.
#[derive(Debug)]
pub struct Embeddings {
    http: reqwest::Client,
    keys: Keys,
    config: EmbeddingConfig,
    clock: Clock,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct EmbeddingCall<'a> {
    /// The model.
    pub model: &'a str,
    /// Numbers that each vector must have.
    pub dimension: usize,
    /// The texts, as they go out.
    pub texts: &'a [String],
    /// How long it may take with all its retries.
    pub time_left: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// A vector for each text, in the texts' order.
    pub vectors: Vec<Vec<f32>>,
    /// What the call took, for the ledger.
    pub record: EmbeddingRecord,
}

/// One call, for the ledger.
#[derive(Clone, Debug)]
pub struct EmbeddingRecord {
    /// Which key was used, by its label.
    pub key_label: String,
    /// The model that says it answered.
    pub model_served: Option<String>,
    /// The provider's id of the call.
    pub upstream_id: Option<String>,
    /// What it used, where the provider said so.
    pub usage: Option<TokenUsage>,
    /// Why it failed.
    pub error: Option<ErrorClass>,
    /// When the request went out.
    pub started_at: OffsetDateTime,
    /// When it ended.
    pub finished_at: OffsetDateTime,
}

/// Who has to do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody: it passes.
    Passing,
    /// One of the texts: the others would be embedded without it.
    Text,
    /// The operator: key, credit, model or dimension.
    Setting,
}

/// There are no vectors.
#[derive(Clone, Debug, thiserror::Error)]
#[error("failed to embed: {class}: {detail}")]
pub struct EmbeddingError {
    /// The kind of failure.
    pub class: ErrorClass,
    /// Who has to do something about it.
    pub fault: Fault,
    /// For the log and for editors; no content, no keys.
    pub detail: String,
    /// Before that no call is worth trying.
    pub wait: Option<Duration>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Vec<Item>,
    model: Option<String>,
    id: Option<String>,
    usage: Option<Box<RawValue>>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<f32>,
}

impl Embeddings {
    /// Sets up the connections; none is opened yet.
    ///
    /// # Errors
    /// When the machine's trusted certificates cannot be read for an https provider.
    pub fn new(config: EmbeddingConfig, clock: Clock) -> Result<Self, BuildError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .http1_only()
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .user_agent(concat!("balas/", env!("CARGO_PKG_VERSION")));
        if config.base_url.scheme() == "http" {
            builder = builder.tls_certs_only([]);
        }
        if is_this_machine(&config.base_url) {
            builder = builder.no_proxy();
        }
        Ok(Self {
            http: builder.build()?,
            keys: Keys::new(config.keys.iter().cloned()),
            config,
            clock,
        })
    }

    /// What this was set up with.
    #[must_use]
    pub fn config(&self) -> &EmbeddingConfig {
        &self.config
    }

    /// Embeds texts, trying again what passes. `note` hears of every call that was made, also of those
    /// that failed.
    ///
    /// # Errors
    /// When there are no vectors; it says whose fault that is.
    pub async fn embed(
        &self,
        call: &EmbeddingCall<'_>,
        referee: &impl Referee,
        mut note: impl FnMut(EmbeddingRecord),
    ) -> Result<Embedded, EmbeddingError> {
        let began = Instant::now();
        let model = Model::new(call.model, false);
        let mut tries = 0;
        loop {
            let time_left = call.time_left.saturating_sub(began.elapsed());
            let error = match referee.admit(&model, false).await {
                Admission::Go => match self.once(call, time_left).await {
                    Ok(embedded) => {
                        referee.worked(&model).await;
                        return Ok(embedded);
                    }
                    Err((error, record)) => {
                        referee
                            .failed(&model, error.class, error.hints.wait())
                            .await;
                        if let Some(record) = record {
                            note(record);
                        }
                        tries += 1;
                        error
                    }
                },
                Admission::Wait { wait, .. }
                | Admission::Resting(wait)
                | Admission::TooLong(wait) => {
                    let mut error = CallError::of(
                        ErrorClass::Unavailable,
                        "the provider is left alone for a moment",
                    );
                    error.hints.retry_after = Some(wait);
                    error
                }
            };
            let fault = fault(&error);
            let has_other_key = matches!(
                error.class,
                ErrorClass::KeyRefused | ErrorClass::PaymentRequired
            ) && self.keys.choose(false, Instant::now()).is_some();
            if has_other_key {
                continue;
            }
            let wait = error.hints.wait().unwrap_or_else(|| full_jitter(tries));
            let time_left = call.time_left.saturating_sub(began.elapsed());
            if fault != Fault::Passing || tries > self.config.max_retries || wait >= time_left {
                return Err(EmbeddingError {
                    class: error.class,
                    fault,
                    wait: error.hints.wait(),
                    detail: error.detail,
                });
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn once(
        &self,
        call: &EmbeddingCall<'_>,
        time_left: Duration,
    ) -> Result<Embedded, (CallError, Option<EmbeddingRecord>)> {
        let Some(key) = self.keys.choose(false, Instant::now()) else {
            let error = CallError::of(ErrorClass::KeyRefused, "every API key was refused lately");
            return Err((error, None));
        };
        let mut record = EmbeddingRecord {
            key_label: key.label().to_owned(),
            model_served: None,
            upstream_id: None,
            usage: None,
            error: None,
            started_at: self.clock.now(),
            finished_at: self.clock.now(),
        };
        let patience = self.config.timeout.min(time_left);
        let exchange = self.exchange(call, bearer(&key), &mut record);
        let result = match tokio::time::timeout(patience, exchange).await {
            Ok(result) => result,
            Err(_) => Err(CallError::of(
                ErrorClass::Timeout,
                "no vectors came in time",
            )),
        };
        record.finished_at = self.clock.now();
        let error = match result {
            Ok(vectors) => return Ok(Embedded { vectors, record }),
            Err(error) => error,
        };
        record.error = Some(error.class);
        match error.class {
            ErrorClass::KeyRefused => key.bench(Refusal::All, Instant::now()),
            ErrorClass::PaymentRequired => key.bench(Refusal::Paid, Instant::now()),
            _ => {}
        }
        tracing::warn!(
            upstream.model = call.model,
            upstream.key = key.label(),
            error.class = %error.class,
            error.detail = error.detail,
            texts = call.texts.len(),
            "embedding call failed"
        );
        Err((error, Some(record)))
    }

    async fn exchange(
        &self,
        call: &EmbeddingCall<'_>,
        key: Option<HeaderValue>,
        record: &mut EmbeddingRecord,
    ) -> Result<Vec<Vec<f32>>, CallError> {
        let body = serde_json::json!({
            "model": call.model,
            "input": call.texts,
            "dimensions": call.dimension,
            "encoding_format": "float",
        });
        let mut request = self
            .http
            .post(endpoint(&self.config.base_url, "embeddings"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body.to_string());
        if let Some(key) = key {
            request = request.header(AUTHORIZATION, key);
        }
        let mut response = request.send().await.map_err(|error| transport(&error))?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| transport(&error))? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(CallError::of(
                    ErrorClass::Malformed,
                    "the answer is too long",
                ));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status != 200 {
            let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let error = body
                .get("error")
                .filter(|error| !error.is_null())
                .unwrap_or(&body);
            let hints = Hints::read(Some(&headers), error, self.clock.now());
            return Err(CallError::from(Signal::read(Some(status), error, hints)));
        }
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|error| {
            CallError::of(
                ErrorClass::Malformed,
                format!("the answer is no list of vectors: {error}"),
            )
        })?;
        if let Some(error) = answer.error.filter(|error| !error.is_null()) {
            let hints = Hints::read(Some(&headers), &error, self.clock.now());
            return Err(CallError::from(Signal::read(None, &error, hints)));
        }
        record.model_served = answer.model;
        record.upstream_id = answer.id;
        record.usage = answer.usage.and_then(|raw| wire::usage(&raw, false));
        in_order(answer.data, call)
    }
}

/// The vectors in the order of the texts. Providers may send them in any other, and the index tells; one
/// that is missing, doubled, of another length, or no number is nothing to search with.
fn in_order(items: Vec<Item>, call: &EmbeddingCall<'_>) -> Result<Vec<Vec<f32>>, CallError> {
    let malformed = |detail: String| Err(CallError::of(ErrorClass::Malformed, detail));
    if items.len() != call.texts.len() {
        return malformed(format!(
            "{} vectors came for {} texts",
            items.len(),
            call.texts.len()
        ));
    }
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; items.len()];
    for item in items {
        if item.embedding.len() != call.dimension {
            let detail = format!(
                "{WRONG_DIMENSION}: {} has {} numbers in a vector, not {}",
                call.model,
                item.embedding.len(),
                call.dimension
            );
            return Err(CallError::of(ErrorClass::UnknownModel, detail));
        }
        let length: f32 = item.embedding.iter().map(|number| number * number).sum();
        if !length.is_finite() || length == 0.0 {
            return malformed("a vector has no direction".to_owned());
        }
        match vectors.get_mut(item.index) {
            Some(place @ None) => *place = Some(item.embedding),
            _ => return malformed(format!("the index {} is wrong or comes twice", item.index)),
        }
    }
    Ok(vectors.into_iter().flatten().collect())
}

const WRONG_DIMENSION: &str = "embedding_dimension_mismatch";

fn fault(error: &CallError) -> Fault {
    match error.class {
        ErrorClass::InvalidRequest | ErrorClass::ContextLength | ErrorClass::ContentPolicy => {
            Fault::Text
        }
        ErrorClass::UnknownModel
        | ErrorClass::KeyRefused
        | ErrorClass::PaymentRequired
        | ErrorClass::NoEndpoint => Fault::Setting,
        ErrorClass::InFlightBudget
        | ErrorClass::ServerError
        | ErrorClass::PlatformLimit
        | ErrorClass::Capacity
        | ErrorClass::Unavailable
        | ErrorClass::EmptyAnswer
        | ErrorClass::Connection
        | ErrorClass::Malformed
        | ErrorClass::Timeout => Fault::Passing,
    }
}
