//! Texts to vectors, for everybody in this process: calls are shared by those who ask at the same time,
//! questions are remembered, and every call is a row of the ledger.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use rust_decimal::Decimal;
use shared::clock::Clock;
use shared::domain::{EmbeddingProfile, Priority, estimate_tokens};
use shared::figures::{Figure, Figures};
use shared::id;
use shared::redis::Redis;
use shared::store::knowledge::usage;
use shared::store::ledger::{self, CallEnded, CallStarted};
use shared::store::{Db, StoreResult};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

use super::remembered;
use crate::pacing::{Asker as PacedAsker, Limit, Paced, Pacing, PacingConfig};
use crate::upstream::{
    BuildError, Embedded, EmbeddingCall, EmbeddingConfig, EmbeddingError, EmbeddingRecord,
    Embeddings, ErrorClass, Fault,
};

/// How long a call waits for more texts, once it has one.
const GATHER: Duration = Duration::from_millis(20);
/// Texts that may wait; whoever comes then waits with them.
const WAITING: usize = 1024;
/// Calls at a time.
const CALLS: usize = 8;

/// For whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The person, for the ledger.
    pub user_id: Uuid,
    /// The generation, ingestion or question.
    pub reference: Uuid,
    /// The attempt at it.
    pub attempt: i32,
    /// Who has to wait when not all can be served.
    pub priority: Priority,
    /// How long it may take.
    pub patience: Duration,
}

/// The vector of a text.
#[derive(Clone, Debug)]
pub struct Vectored {
    /// The vector.
    pub vector: Vec<f32>,
    /// This text's part of what the call charged.
    pub tokens: i64,
    /// Likewise; NULL is unknown and never 0.
    pub cost: Option<Decimal>,
}

type Answer = Result<Vectored, Arc<EmbeddingError>>;

#[derive(Debug)]
struct Wish {
    asker: Asker,
    profile: Arc<EmbeddingProfile>,
    text: String,
    tokens: u32,
    done: oneshot::Sender<Answer>,
}

/// The way to have texts embedded.
#[derive(Debug)]
pub struct Embedder {
    wishes: mpsc::Sender<Wish>,
    cache: Cache<(Uuid, [u8; 32]), Arc<Vec<f32>>>,
    upstream: Embeddings,
    pacing: Pacing,
    db: Db,
    clock: Clock,
    figures: Arc<Figures>,
}

/// The texts that wait to be embedded.
#[derive(Debug)]
pub struct Texts(mpsc::Receiver<Wish>);

impl Embedder {
    /// Both ends; none is at work before [`run_embedder`] is.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(
        config: EmbeddingConfig,
        pacing: &PacingConfig,
        db: Db,
        redis: Redis,
        clock: Clock,
        figures: Arc<Figures>,
    ) -> Result<(Self, Texts), BuildError> {
        let (wishes, receiver) = mpsc::channel(WAITING);
        let pacing = PacingConfig {
            free: None,
            paid: Limit::per_minute(config.per_minute),
            ..*pacing
        };
        let mut account = shared::crypto::hex(&shared::crypto::sha256(&[
            b"embed",
            config.base_url.as_str().as_bytes(),
        ]));
        account.truncate(8);
        let cache = Cache::builder()
            .max_capacity(config.cache_size)
            .time_to_live(config.cache_ttl)
            .build();
        let embedder = Self {
            wishes,
            cache,
            pacing: Pacing::new(redis, &pacing, &account),
            upstream: Embeddings::new(config, clock.clone())?,
            db,
            clock,
            figures,
        };
        Ok((embedder, Texts(receiver)))
    }

    /// What this was set up with.
    #[must_use]
    pub fn config(&self) -> &EmbeddingConfig {
        self.upstream.config()
    }

    /// How many vectors of questions are remembered, and the bytes they take.
    pub async fn remembers(&self) -> (u64, u64) {
        self.cache.run_pending_tasks().await;
        let entries = self.cache.entry_count();
        let dimension = u64::try_from(self.config().dimension).unwrap_or(0);
        (entries, entries * dimension * 4)
    }

    /// The vector of a question; who asks the same at the same time shares one call, and who asks it again
    /// gets what is remembered.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn question(
        &self,
        profile: &Arc<EmbeddingProfile>,
        text: &str,
        asker: Asker,
    ) -> Result<Arc<Vec<f32>>, Arc<EmbeddingError>> {
        let folded = shared::knowledge::fold(text);
        let key = (profile.id, shared::crypto::sha256(&[folded.as_bytes()]));
        let mut outcome = "hit";
        let began = Instant::now();
        let asked = self.cache.try_get_with(key, async {
            let hours = self.config().cache_ttl.as_secs_f64() / 3600.0;
            let known = remembered::find(&self.db, asker.user_id, profile.id, &key.1, hours).await;
            if let Some(vector) = known {
                outcome = "stored";
                return Ok(Arc::new(vector));
            }
            outcome = "miss";
            let prefixed = format!("{}{folded}", profile.query_prefix);
            let vector = self.one(profile, prefixed, asker).await?.vector;
            remembered::keep(&self.db, asker.user_id, profile.id, &key.1, &vector).await;
            Ok(Arc::new(vector))
        });
        let asked = match tokio::time::timeout(asker.patience, asked).await {
            Ok(answer) => answer.map_err(|error: Arc<Arc<EmbeddingError>>| Arc::clone(&*error)),
            Err(_) => Err(Arc::new(late())),
        };
        metrics::counter!(shared::metrics::EMBEDDING_CACHE, "outcome" => outcome).increment(1);
        self.figures
            .note(Figure::EmbeddingCache, began.elapsed(), outcome == "miss");
        let entries = self.cache.entry_count();
        metrics::gauge!(shared::metrics::EMBEDDING_CACHE_ENTRIES).set(entries as f64);
        let bytes = entries * u64::try_from(profile.dimension).unwrap_or(0) * 4;
        metrics::gauge!(shared::metrics::EMBEDDING_CACHE_BYTES).set(bytes as f64);
        asked
    }

    /// The vectors of entries' texts, in their order; each may fail for itself.
    pub async fn documents(
        &self,
        profile: &Arc<EmbeddingProfile>,
        texts: &[String],
        asker: Asker,
    ) -> Vec<Answer> {
        let wished = texts
            .iter()
            .map(|text| self.one(profile, format!("{}{text}", profile.document_prefix), asker));
        futures::future::join_all(wished).await
    }

    async fn one(&self, profile: &Arc<EmbeddingProfile>, text: String, asker: Asker) -> Answer {
        let tokens = estimate_tokens(&text);
        if tokens > self.config().max_tokens {
            return Err(Arc::new(EmbeddingError {
                class: ErrorClass::ContextLength,
                fault: Fault::Text,
                detail: format!("the text has more than {} tokens", self.config().max_tokens),
                wait: None,
            }));
        }
        let (done, answer) = oneshot::channel();
        let wish = Wish {
            asker,
            profile: Arc::clone(profile),
            text,
            tokens,
            done,
        };
        if self.wishes.send(wish).await.is_err() {
            return Err(Arc::new(late()));
        }
        answer.await.unwrap_or_else(|_| Err(Arc::new(late())))
    }
}

fn late() -> EmbeddingError {
    EmbeddingError {
        class: ErrorClass::Timeout,
        fault: Fault::Passing,
        detail: "no vector came in time".to_owned(),
        wait: None,
    }
}

/// Makes calls of what waits, for as long as there is anybody who may ask.
pub async fn run_embedder(embedder: Arc<Embedder>, mut texts: Texts) {
    use futures::stream::{FuturesUnordered, StreamExt as _};
    let mut calls = FuturesUnordered::new();
    let mut next: Option<Wish> = None;
    loop {
        let first = match next.take() {
            Some(wish) => wish,
            None => tokio::select! {
                wish = texts.0.recv(), if calls.len() < CALLS => match wish {
                    Some(wish) => wish,
                    None => return,
                },
                Some(()) = calls.next() => continue,
            },
        };
        if calls.len() >= CALLS {
            calls.next().await;
        }
        let (batch, left) = {
            let gathering = gather(embedder.config(), first, &mut texts);
            tokio::pin!(gathering);
            loop {
                tokio::select! {
                    gathered = &mut gathering => break gathered,
                    Some(()) = calls.next() => {}
                }
            }
        };
        next = left;
        calls.push(call(&embedder, batch));
    }
}

/// A call's texts: as many as it may have, or those that came within [`GATHER`]. What does not fit begins
/// the next one.
async fn gather(
    config: &EmbeddingConfig,
    first: Wish,
    texts: &mut Texts,
) -> (Vec<Wish>, Option<Wish>) {
    let due = Instant::now() + GATHER;
    let mut tokens = first.tokens;
    let mut batch = vec![first];
    while batch.len() < config.batch_size {
        let Ok(Some(wish)) = tokio::time::timeout_at(due, texts.0.recv()).await else {
            return (batch, None);
        };
        let fits = tokens.saturating_add(wish.tokens) <= config.max_tokens;
        // Vectors of two models cannot come from one call.
        if !fits || wish.profile.id != batch[0].profile.id {
            return (batch, Some(wish));
        }
        tokens += wish.tokens;
        batch.push(wish);
    }
    (batch, None)
}

/// Makes a call for these. Where one text spoils it for the others, each is tried alone.
async fn call(embedder: &Embedder, mut batch: Vec<Wish>) {
    // Nobody pays for what nobody waits for.
    batch.retain(|wish| !wish.done.is_closed());
    let Some(first) = batch.first() else { return };
    let profile = Arc::clone(&first.profile);
    match embed(embedder, &profile, &batch).await {
        Ok(embedded) => hand_out(embedder, &profile, batch, embedded).await,
        Err(error) if error.fault == Fault::Text && batch.len() > 1 => {
            for wish in batch {
                let one = [wish];
                let result = embed(embedder, &profile, &one).await;
                let [wish] = one;
                match result {
                    Ok(embedded) => hand_out(embedder, &profile, vec![wish], embedded).await,
                    Err(error) => {
                        let _ = wish.done.send(Err(Arc::new(error)));
                    }
                }
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for wish in batch {
                let _ = wish.done.send(Err(Arc::clone(&error)));
            }
        }
    }
}

async fn embed(
    embedder: &Embedder,
    profile: &EmbeddingProfile,
    batch: &[Wish],
) -> Result<Embedded, EmbeddingError> {
    let texts: Vec<String> = batch.iter().map(|wish| wish.text.clone()).collect();
    let call = EmbeddingCall {
        model: &profile.model,
        dimension: usize::try_from(profile.dimension).unwrap_or(0),
        texts: &texts,
        time_left: batch
            .iter()
            .map(|wish| wish.asker.patience)
            .max()
            .unwrap_or_default(),
    };
    let asker = batch.first().map(|wish| wish.asker);
    let paced = Paced {
        pacing: &embedder.pacing,
        asker: PacedAsker {
            id: asker.map(|asker| asker.reference).unwrap_or_default(),
            priority: asker.map_or(Priority::Background, |asker| asker.priority),
        },
    };
    let mut failed = Vec::new();
    let result = embedder
        .upstream
        .embed(&call, &paced, |record| failed.push(record))
        .await;
    for record in &failed {
        count(embedder, profile, record);
        if let Some(asker) = asker {
            book(embedder, profile, asker, record, 1.0).await;
        }
    }
    result
}

/// Each gets its vector and its part of what the call took, and the ledger a row for each who asked.
async fn hand_out(
    embedder: &Embedder,
    profile: &EmbeddingProfile,
    batch: Vec<Wish>,
    embedded: Embedded,
) {
    let Embedded { vectors, record } = embedded;
    count(embedder, profile, &record);
    let all: u32 = batch.iter().map(|wish| wish.tokens.max(1)).sum();
    let mut shares: Vec<(Asker, f64)> = Vec::new();
    for wish in &batch {
        let share = f64::from(wish.tokens.max(1)) / f64::from(all);
        match shares.iter_mut().find(|(asker, _)| *asker == wish.asker) {
            Some((_, whole)) => *whole += share,
            None => shares.push((wish.asker, share)),
        }
    }
    for (wish, vector) in batch.into_iter().zip(vectors) {
        let share = f64::from(wish.tokens.max(1)) / f64::from(all);
        let usage = record.usage.as_ref();
        let vectored = Vectored {
            vector,
            tokens: usage.map_or(0, |usage| {
                (f64::from(usage.total_tokens) * share).round() as i64
            }),
            cost: usage.and_then(|usage| part(usage.cost, share)),
        };
        let _ = wish.done.send(Ok(vectored));
    }
    for (asker, share) in shares {
        book(embedder, profile, asker, &record, share).await;
    }
}

fn part(cost: Option<Decimal>, share: f64) -> Option<Decimal> {
    Some((cost? * Decimal::try_from(share).ok()?).round_dp(12))
}

fn count(embedder: &Embedder, profile: &EmbeddingProfile, record: &EmbeddingRecord) {
    let status = record.error.map_or("completed", ErrorClass::as_str);
    metrics::counter!(shared::metrics::EMBEDDING_REQUESTS, "model" => profile.model.clone(), "status" => status).increment(1);
    let took = (record.finished_at - record.started_at)
        .as_seconds_f64()
        .max(0.0);
    metrics::histogram!(shared::metrics::EMBEDDING_DURATION, "model" => profile.model.clone())
        .record(took);
    embedder.figures.note(
        Figure::Embedding,
        Duration::from_secs_f64(took),
        record.error.is_some(),
    );
}

/// Books a call, or somebody's part of one.
async fn book(
    embedder: &Embedder,
    profile: &EmbeddingProfile,
    asker: Asker,
    record: &EmbeddingRecord,
    share: f64,
) {
    let booked = write(embedder, profile, asker, record, share).await;
    if let Err(error) = booked {
        tracing::warn!(
            reference = %asker.reference,
            error = &error as &dyn std::error::Error,
            "an embedding call is missing in the ledger"
        );
    }
}

async fn write(
    embedder: &Embedder,
    profile: &EmbeddingProfile,
    asker: Asker,
    record: &EmbeddingRecord,
    share: f64,
) -> StoreResult<()> {
    let usage = record.usage.as_ref();
    let tokens = usage.map(|usage| (f64::from(usage.total_tokens) * share).round() as i32);
    let cost = usage.and_then(|usage| part(usage.cost, share));
    let call = CallEnded {
        started: CallStarted {
            id: id::new(embedder.clock.now()),
            generation_id: asker.reference,
            attempt: asker.attempt,
            operation: "embedding",
            key_label: record.key_label.clone(),
            model_asked: profile.model.clone(),
            // A cost that is not known is asked of the chat's upstream by this id, which does not know it.
            upstream_id: record.upstream_id.clone().filter(|_| cost.is_some()),
            started_at: record.started_at,
        },
        model_served: record.model_served.clone(),
        outcome: record.error.map_or("completed", ErrorClass::as_str),
        prompt_tokens: tokens,
        completion_tokens: None,
        cost_credits: cost,
        usage: usage.and_then(|usage| usage.raw.clone()),
        wasted: record.error.is_some(),
        first_token_at: None,
        finished_at: record.finished_at,
    };
    let mut tx = embedder.db.user_async(asker.user_id).await?;
    ledger::ended(&mut tx, &call).await?;
    if record.error.is_none() {
        let took = (record.finished_at - record.started_at)
            .whole_milliseconds()
            .max(0);
        let used = usage::Embedding {
            // One call, one name, in the ledger and in the usage.
            id: call.started.id,
            model: &profile.model,
            tokens: tokens.unwrap_or(0),
            cost,
            processing_time_ms: i32::try_from(took).unwrap_or(i32::MAX),
        };
        usage::embedding(&mut tx, &used).await?;
    }
    tx.commit().await
}
