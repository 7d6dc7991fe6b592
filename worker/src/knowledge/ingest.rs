//! Uploads to entries: rows first, so that words find them at once, then vectors, each batch stored before
//! the next is asked for. A worker that dies leaves a lease that runs out, and whoever takes the upload
//! then asks for no vector that is stored. A pass over everything for another model is such work, too
//! ([`super::reindex`]).

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use shared::domain::{EmbeddingProfile, IngestionKind, Priority};
use shared::id;
use shared::knowledge::match_texts;
use shared::store::knowledge::ingest::{self, Entry, WaitingRow};
use shared::store::knowledge::ingestions::{self, Held};
use shared::store::knowledge::search::text as vector_text;
use shared::store::knowledge::{reindex, vectors, words};
use shared::store::{StoreError, StoreResult};
use uuid::Uuid;

use super::embedder::Vectored;
use super::reindex::{self as another, Ended};
use super::{Asker, questions};
use crate::context::Context;
use crate::upstream::{EmbeddingError, ErrorClass, Fault};

/// How often is looked for an upload that nobody told of.
const LOOK: Duration = Duration::from_secs(1);
/// How long a claim holds without renewal, and how often it is renewed.
const LEASE: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(4);
/// Rows of one transaction.
const ROWS: i64 = 200;
/// Texts looked at in one go, and calls for vectors at a time.
pub(super) const TEXTS: i64 = 200;
const CALLS: usize = 4;
/// How long one call may take with all its retries.
const PATIENCE: Duration = Duration::from_secs(100);
/// How long a provider that does not work is left alone, and how often that may happen.
const AWAY: Duration = Duration::from_secs(15);
const MOST_ATTEMPTS: i32 = 40;

/// Why work ends before its end.
pub(super) enum Stop {
    /// Somebody else has it, or it was cancelled.
    Lost,
    /// The database failed.
    Store(StoreError),
    /// The provider gives no vectors.
    Provider(Arc<EmbeddingError>),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How work came to its end.
enum Done {
    /// Entries can be found; what editors should know of it.
    Indexed(Option<String>),
    /// Another model was built.
    Another(Ended),
}

/// Works on uploads for ever, one at a time in each process.
pub async fn ingest(context: Arc<Context>) {
    loop {
        match take(&context).await {
            Ok(Some(held)) => {
                work(&context, &held).await;
                continue;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "uploads not looked for"
            ),
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn take(context: &Context) -> StoreResult<Option<Held>> {
    let mut tx = context.db.sweep().await?;
    let held = ingestions::claim(&mut tx, &context.worker_id, LEASE).await?;
    tx.commit().await?;
    Ok(held)
}

async fn work(context: &Context, held: &Held) {
    tracing::info!(ingestion.id = %held.id, kind = %held.kind, attempt = held.attempt, "ingestion begins");
    let done = tokio::select! {
        done = run(context, held) => done,
        () = keep(context, held) => Err(Stop::Lost),
    };
    let ended = match done {
        Ok(Done::Indexed(problem)) => finish(context, held, problem.as_deref()).await,
        Ok(Done::Another(Ended::Swapped)) => return,
        Ok(Done::Another(Ended::Unfit(problem))) => another::give_up(context, held, &problem).await,
        Err(Stop::Lost) => {
            tracing::info!(ingestion.id = %held.id, "the ingestion was taken away or cancelled");
            return;
        }
        Err(Stop::Store(error)) => {
            tracing::warn!(ingestion.id = %held.id, error = &error as &dyn std::error::Error, "ingestion interrupted");
            put_back(context, held, Duration::from_secs(2), None).await
        }
        Err(Stop::Provider(error)) => {
            tracing::warn!(ingestion.id = %held.id, error = &*error as &dyn std::error::Error, "no vectors for the ingestion");
            without_provider(context, held, &error).await
        }
    };
    if let Err(error) = ended {
        tracing::warn!(ingestion.id = %held.id, error = &error as &dyn std::error::Error, "the lease will run out");
    }
}

/// What becomes of work for which the provider gives no vectors: it is put off, and one day ends without them.
async fn without_provider(
    context: &Context,
    held: &Held,
    error: &EmbeddingError,
) -> StoreResult<()> {
    let problem = format!("the embedding provider gives no vectors: {}", error.detail);
    let is_last = held.attempt >= MOST_ATTEMPTS;
    match held.kind {
        // A model that is not there, or has other vectors, will not have come tomorrow.
        IngestionKind::Reindex if is_last || error.class == ErrorClass::UnknownModel => {
            another::give_up(context, held, &problem).await
        }
        // What is there is found by its words.
        IngestionKind::Upload if is_last => finish(context, held, Some(&problem)).await,
        _ => {
            let wait = error.wait.unwrap_or(AWAY).max(AWAY);
            put_back(context, held, wait, Some(&problem)).await
        }
    }
}

/// Renews the claim until it is lost.
async fn keep(context: &Context, held: &Held) {
    loop {
        tokio::time::sleep(RENEW).await;
        let renewed = async {
            let mut tx = context.db.sweep().await?;
            let ours = ingestions::renew(&mut tx, held, LEASE).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(ours)
        };
        if let Ok(false) = renewed.await {
            return;
        }
    }
}

/// All of it.
async fn run(context: &Context, held: &Held) -> Result<Done, Stop> {
    match held.kind {
        IngestionKind::Upload => index(context, held).await.map(Done::Indexed),
        IngestionKind::Reindex => another::run(context, held).await.map(Done::Another),
    }
}

/// Rows to entries and their vectors. What is left to tell editors is returned.
async fn index(context: &Context, held: &Held) -> Result<Option<String>, Stop> {
    while store_rows(context, held).await? {}
    let mut tx = context.db.user(held.created_by).await?;
    words::recount(&mut tx, &held.collection).await?;
    tx.commit().await?;
    if !context.embedder.config().is_enabled() {
        return Ok(Some(
            "no embedding provider is set; the entries are found by their words only".to_owned(),
        ));
    }
    let mut filled = None;
    loop {
        let Some(profile) = questions::profile(context, held.created_by).await? else {
            return Ok(Some(
                "there is no pgvector; the entries are found by their words only".to_owned(),
            ));
        };
        if filled == Some(profile.id) {
            return Ok(None);
        }
        fill(context, held, &profile).await?;
        // Another model may have been swapped in meanwhile; then the texts need its vectors.
        filled = Some(profile.id);
    }
}

/// Embeds what is missing of an upload.
async fn fill(context: &Context, held: &Held, profile: &Arc<EmbeddingProfile>) -> Result<(), Stop> {
    let mut tx = context.db.user(held.created_by).await?;
    vectors::count(&mut tx, held, profile.id).await?;
    tx.commit().await?;
    let mut after = Uuid::nil();
    loop {
        let mut tx = context.db.user(held.created_by).await?;
        let missing = vectors::missing(&mut tx, held, profile.id, after, TEXTS)
            .await?
            .ok_or(Stop::Lost)?;
        tx.commit().await?;
        let Some(last) = missing.last() else {
            return Ok(());
        };
        after = last.id;
        embed_all(context, held, profile, &missing).await?;
    }
}

/// Embeds these texts, some calls at a time.
pub(super) async fn embed_all(
    context: &Context,
    held: &Held,
    profile: &Arc<EmbeddingProfile>,
    missing: &[vectors::Missing],
) -> Result<(), Stop> {
    let batches: Vec<Vec<_>> = missing
        .chunks(context.embedder.config().batch_size)
        .map(<[_]>::to_vec)
        .collect();
    let mut stored = stream::iter(batches)
        .map(|batch| embed(context, held, Arc::clone(profile), batch))
        .buffer_unordered(CALLS);
    while let Some(outcome) = stored.next().await {
        outcome?;
    }
    Ok(())
}

/// Makes entries of the next rows. Returns whether there may be more.
async fn store_rows(context: &Context, held: &Held) -> Result<bool, Stop> {
    let mut tx = context.db.user(held.created_by).await?;
    let rows = ingest::waiting(&mut tx, held, ROWS)
        .await?
        .ok_or(Stop::Lost)?;
    if rows.is_empty() {
        return Ok(false);
    }
    let entries: Vec<Entry> = rows.iter().map(|row| entry(context, row)).collect();
    ingest::store(&mut tx, held, &rows, &entries).await?;
    tx.commit().await?;
    Ok(true)
}

fn entry(context: &Context, row: &WaitingRow) -> Entry {
    let now = context.clock.now();
    let texts = match_texts(&row.text).into_iter().map(|text| {
        let hash = shared::crypto::sha256(&[text.as_bytes()]);
        (id::new(now), text, hash)
    });
    Entry {
        line: row.line,
        new_id: id::new(now),
        texts: texts.collect(),
    }
}

/// Has texts embedded and stores what came, at once: what is stored is never asked for again.
async fn embed(
    context: &Context,
    held: &Held,
    profile: Arc<EmbeddingProfile>,
    batch: Vec<vectors::Missing>,
) -> Result<(), Stop> {
    let asker = Asker {
        user_id: held.created_by,
        reference: held.id,
        attempt: held.attempt,
        priority: Priority::Background,
        patience: PATIENCE,
    };
    let texts: Vec<String> = batch
        .iter()
        .map(|missing| missing.content.clone())
        .collect();
    let answers = context.embedder.documents(&profile, &texts, asker).await;
    let (mut chunks, mut came, mut spent) = (Vec::new(), Vec::new(), vectors::Spent::default());
    let (mut refused, mut away) = (Vec::new(), None);
    for (missing, answer) in batch.into_iter().zip(answers) {
        match answer {
            Ok(Vectored {
                vector,
                tokens,
                cost,
            }) => {
                chunks.push(missing.id);
                came.push(vector_text(&vector));
                spent.tokens += tokens;
                spent.cost = match (spent.cost, cost) {
                    (Some(sum), Some(cost)) => Some(sum + cost),
                    (sum, cost) => sum.or(cost),
                };
            }
            Err(error) if error.fault == Fault::Text => refused.push((missing.id, error)),
            Err(error) => away = Some(error),
        }
    }
    if !chunks.is_empty() {
        store_vectors(context, held, &profile, &chunks, &came, spent).await?;
    }
    for (chunk, error) in refused {
        let mut tx = context.db.user(held.created_by).await?;
        let reason = format!("the embedding provider refused the text ({})", error.class);
        let noted = match held.kind {
            IngestionKind::Upload => vectors::refuse(&mut tx, held, chunk, &reason).await?,
            IngestionKind::Reindex => {
                reindex::refuse(&mut tx, held, profile.id, chunk, &reason).await?
            }
        };
        if !noted {
            return Err(Stop::Lost);
        }
        tx.commit().await?;
    }
    match away {
        Some(error) => Err(Stop::Provider(error)),
        None => Ok(()),
    }
}

/// Vectors cost money, so a database that is away for a moment is waited for.
async fn store_vectors(
    context: &Context,
    held: &Held,
    profile: &EmbeddingProfile,
    chunks: &[Uuid],
    came: &[String],
    spent: vectors::Spent,
) -> Result<(), Stop> {
    let mut pauses = [100, 500, 2_000, 5_000]
        .map(Duration::from_millis)
        .into_iter();
    loop {
        let stored = async {
            let mut tx = context.db.user(held.created_by).await?;
            let ours = vectors::store(&mut tx, held, profile.id, chunks, came, spent).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(ours)
        };
        match stored.await {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(Stop::Lost),
            Err(error) => match pauses.next() {
                Some(pause) if error.is_unavailable() || error.is_conflict() => {
                    tokio::time::sleep(pause).await
                }
                _ => return Err(error.into()),
            },
        }
    }
}

async fn finish(context: &Context, held: &Held, problem: Option<&str>) -> StoreResult<()> {
    let mut tx = context.db.user(held.created_by).await?;
    let ours = ingestions::finish(&mut tx, held, problem, false).await?;
    tx.commit().await?;
    if ours {
        tracing::info!(ingestion.id = %held.id, problem, "ingestion ends");
    }
    Ok(())
}

async fn put_back(
    context: &Context,
    held: &Held,
    delay: Duration,
    problem: Option<&str>,
) -> StoreResult<()> {
    let mut tx = context.db.sweep().await?;
    ingestions::put_back(&mut tx, held, delay, problem).await?;
    tx.commit().await
}
