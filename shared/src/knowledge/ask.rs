//! Asking the workers for the vector of a question. Only they have the provider's keys and the cache, so
//! the API asks through Redis: a question in a list, its answer in another one that only this asker reads.
//! Whoever gets no answer in time searches by words.

use std::time::Duration;

use ::redis::{cmd, pipe};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::redis::{Redis, RedisFailure};

/// Questions that may wait; with more of them nobody would be answered in time.
const MOST_WAITING: i64 = 256;
/// How long an answer that nobody reads is kept, in milliseconds.
const KEPT_MS: i64 = 10_000;

/// A text to embed as a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Names the list for the answer.
    pub id: Uuid,
    /// Who asks, for the ledger.
    pub user_id: Uuid,
    /// The text.
    pub text: String,
    /// How long the asker waits, in milliseconds.
    pub patience_ms: u64,
}

/// The vector of a question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The profile it belongs to.
    pub profile_id: Uuid,
    /// The vector.
    pub vector: Vec<f32>,
}

fn questions_key(redis: &Redis) -> String {
    redis.key("embed:questions")
}

fn answer_key(redis: &Redis, id: Uuid) -> String {
    redis.key(format_args!("embed:answer:{id}"))
}

/// Asks for the vector of a text; none where no worker can give one within `patience`.
///
/// # Errors
/// When Redis is away.
pub async fn ask(
    redis: &Redis,
    user_id: Uuid,
    text: &str,
    patience: Duration,
) -> Result<Option<Asked>, RedisFailure> {
    let question = Question {
        id: Uuid::new_v4(),
        user_id,
        text: text.to_owned(),
        patience_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
    };
    let key = questions_key(redis);
    let mut asking = pipe();
    asking
        .rpush(&key, serde_json::to_vec(&question).unwrap_or_default())
        .ignore();
    // The oldest go first: whoever asked them has waited longest and is about to give up.
    asking
        .ltrim(&key, isize::try_from(-MOST_WAITING).unwrap_or(-256), -1)
        .ignore();
    asking.pexpire(&key, KEPT_MS).ignore();
    redis.pipeline::<()>(&asking).await?;
    let mut connection = redis.blocking(patience).await?;
    let answer = cmd("BLPOP")
        .arg(answer_key(redis, question.id))
        .arg(patience.as_secs_f64())
        .query_async::<Option<(String, Vec<u8>)>>(&mut connection)
        .await?;
    Ok(answer.and_then(|(_, json)| serde_json::from_slice::<Option<Asked>>(&json).ok()?))
}

/// Answers a question; none tells that there is no vector to be had.
///
/// # Errors
/// When Redis is away; the asker goes on without.
pub async fn answer(
    redis: &Redis,
    question: &Question,
    asked: Option<&Asked>,
) -> Result<(), RedisFailure> {
    let key = answer_key(redis, question.id);
    let mut answering = pipe();
    answering
        .rpush(&key, serde_json::to_vec(&asked).unwrap_or_default())
        .ignore();
    answering.pexpire(&key, KEPT_MS).ignore();
    redis.pipeline(&answering).await
}

/// The questions that wait, on a connection of their own.
#[derive(Debug)]
pub struct Questions {
    redis: Redis,
    /// With the server it is to, as [`Redis::moves`] counts them.
    connection: Option<(u64, ::redis::aio::MultiplexedConnection)>,
}

impl Questions {
    /// How long one wait for a question may take.
    const BLOCK: Duration = Duration::from_secs(1);

    /// Nothing is opened yet.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self {
            redis,
            connection: None,
        }
    }

    /// The next question; none when there was none for a second.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn next(&mut self) -> Result<Option<Question>, RedisFailure> {
        let moves = self.redis.moves();
        let connection = match &mut self.connection {
            Some((at, connection)) if *at == moves => connection,
            _ => {
                let opened = self.redis.blocking(Self::BLOCK).await?;
                &mut self.connection.insert((moves, opened)).1
            }
        };
        let popped = cmd("BLPOP")
            .arg(questions_key(&self.redis))
            .arg(Self::BLOCK.as_secs_f64())
            .query_async::<Option<(String, Vec<u8>)>>(connection)
            .await;
        match popped {
            Ok(found) => Ok(found.and_then(|(_, json)| serde_json::from_slice(&json).ok())),
            Err(error) => {
                self.connection = None;
                Err(error.into())
            }
        }
    }
}
