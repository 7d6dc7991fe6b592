//! The log of one generation: a Redis stream whose entry ids are ours.
//!
//! An entry's id is `attempt-seq`. Redis refuses an id that is not larger than the last, so an
//! attempt that lost its lease cannot write after its successor began, and nothing can follow the
//! terminal event.
//!
//! An entry also has the moment at which Redis took it, by which the logs of a conversation's generations are read in
//! the order in which their events were published: the next one is queued while the last one is still answered.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ::redis::Script;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{log_key, user_channel};
use crate::clock::Clock;
use crate::domain::{Event, EventType};
use crate::id::EventId;
use crate::queue::LOG_LIFETIME;
use crate::redis::{Redis, RedisFailure};

/// How long a log can be read after its generation ended.
const LIFETIME_AFTER_END: Duration = Duration::from_mins(10);
/// A log holds about so many events; a reply has fewer, because deltas are coalesced.
const LOG_CAP: usize = 10_000;
/// Entries read at a time.
const PAGE: usize = 512;

/// Appends the events of one attempt and publishes those that were not acknowledged: unless a newer
/// attempt or the end is in the log already (-1), or the log does not hold what it should (0).
/// Events that are in it are left out: the answer to them was lost, not they. One script, so that
/// nobody hears of an event that is not in the log, or of one after those that the log has lost.
const APPEND_SOURCE: &str = r"local attempt, terminal, held, acknowledged = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
          local seq = 0
          local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
          if newest then
              local newest_attempt, newest_seq = string.match(newest[1], '^(%d+)-(%d+)$')
              if tonumber(newest_attempt) > attempt or newest_seq == terminal then return -1 end
              if tonumber(newest_attempt) == attempt then seq = tonumber(newest_seq) end
          end
          if seq < held then return 0 end
          local now = redis.call('TIME')
          local at = now[1] .. string.format('%06d', now[2])
          for i = 8, #ARGV, 2 do
              if tonumber(ARGV[i]) > seq then
                  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], ARGV[1] .. '-' .. ARGV[i], 'e', ARGV[i + 1], 't', at)
                  if tonumber(ARGV[i]) > acknowledged then redis.call('PUBLISH', ARGV[6], ARGV[i + 1]) end
              end
          end
          if seq == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[7]) end
          return 1";
static APPEND: LazyLock<Script> = LazyLock::new(|| Script::new(APPEND_SOURCE));

/// Appends the terminal event, unless it is there already or there is no room, and publishes it in any case: it is the
/// whole of what came, and who has it leaves it out.
const END_SOURCE: &str = r"local now = redis.call('TIME')
          redis.pcall('XADD', KEYS[1], ARGV[1], 'e', ARGV[2], 't', now[1] .. string.format('%06d', now[2]))
          redis.call('PUBLISH', ARGV[3], ARGV[2])
          redis.call('PEXPIRE', KEYS[1], ARGV[4])
          return 1";

/// Publishes an event that has no log, and keeps the moment, so that a client can resume after it.
static PUBLISH: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local now = redis.call('TIME')
          redis.pcall('SET', KEYS[1], now[1] .. string.format('%06d', now[2]), 'PX', ARGV[3])
          redis.call('PUBLISH', ARGV[1], ARGV[2])
          return 1",
    )
});

/// What became of appended events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Appended {
    Yes,
    /// Redis lost the log that the attempt has written to, or the end of it.
    Gone,
    /// A newer attempt or the end is in the log.
    Overtaken,
}

/// An event as it travels: its JSON, and the fields by which it is routed.
#[derive(Clone, Debug)]
pub struct PushedEvent {
    /// Its id.
    pub id: EventId,
    /// What it tells.
    pub kind: EventType,
    /// The generation, unless it tells of the conversation itself.
    pub generation_id: Option<Uuid>,
    /// The conversation.
    pub conversation_id: Uuid,
    /// The whole event.
    pub json: Arc<str>,
}

impl PushedEvent {
    /// Reads the routing fields of an event's JSON; none when it is not an event this version
    /// knows.
    #[must_use]
    pub fn parse(json: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Head {
            id: EventId,
            #[serde(rename = "type")]
            kind: EventType,
            generation_id: Option<Uuid>,
            conversation_id: Uuid,
        }
        let head: Head = serde_json::from_str(json).ok()?;
        Some(Self {
            id: head.id,
            kind: head.kind,
            generation_id: head.generation_id,
            conversation_id: head.conversation_id,
            json: json.into(),
        })
    }
}

impl From<&Event> for PushedEvent {
    fn from(event: &Event) -> Self {
        Self {
            id: event.id,
            kind: event.kind,
            generation_id: event.generation_id,
            conversation_id: event.conversation_id,
            json: event.to_json().into(),
        }
    }
}

/// Writes the log of one attempt. A failure is kept to itself: the reply does not depend on it.
#[derive(Debug)]
pub struct LogWriter {
    redis: Redis,
    clock: Clock,
    user_id: Uuid,
    conversation_id: Uuid,
    generation_id: Uuid,
    attempt: u32,
    /// Every event of this attempt, so that the log can be written again after Redis lost it.
    written: Vec<(u32, String)>,
    /// How many of them Redis has acknowledged.
    acknowledged: usize,
    /// A newer attempt or the end is in the log already.
    overtaken: bool,
}

impl LogWriter {
    /// A writer for one attempt; `attempt` is at least 1.
    #[must_use]
    pub fn new(
        redis: Redis,
        clock: Clock,
        user_id: Uuid,
        conversation_id: Uuid,
        generation_id: Uuid,
        attempt: u32,
    ) -> Self {
        Self {
            redis,
            clock,
            user_id,
            conversation_id,
            generation_id,
            attempt,
            written: Vec::new(),
            acknowledged: 0,
            overtaken: false,
        }
    }

    /// Appends an event and publishes it.
    pub async fn write(&mut self, kind: EventType, data: &impl Serialize) {
        self.push(kind, data);
        self.flush().await;
    }

    /// Appends an event that goes out with the next one.
    pub fn push(&mut self, kind: EventType, data: &impl Serialize) {
        let seq = u32::try_from(self.written.len() + 1).unwrap_or(EventId::TERMINAL_SEQ - 1);
        let id = EventId {
            generation_id: self.generation_id,
            attempt: self.attempt,
            seq,
        };
        let event = Event::of_generation(id, kind, self.conversation_id, self.clock.now(), data);
        self.written.push((seq, event.to_json()));
    }

    /// Sends what was pushed and not yet acknowledged.
    pub async fn flush(&mut self) {
        if self.overtaken || self.acknowledged == self.written.len() {
            return;
        }
        let appended = match self.append(self.acknowledged).await {
            // What clients saw already is not published again, only the log is made whole.
            Ok(Appended::Gone) => self.append(0).await,
            other => other,
        };
        match appended {
            Ok(Appended::Yes) => self.acknowledged = self.written.len(),
            Ok(Appended::Overtaken) => self.overtaken = true,
            Ok(Appended::Gone) => {}
            Err(failure) => {
                tracing::debug!(generation.id = %self.generation_id, %failure, "event not logged");
            }
        }
    }

    /// Ends the log with the terminal event and pushes what may run next to the end of its list, in one
    /// round trip with whatever is still to be sent.
    ///
    /// # Errors
    /// When Redis is away; readers then synthesise the event from the row.
    pub async fn end(
        &self,
        terminal: &Event,
        wake: impl IntoIterator<Item = (Uuid, crate::domain::Priority)>,
    ) -> Result<(), RedisFailure> {
        let key = log_key(&self.redis, self.generation_id);
        let channel = user_channel(&self.redis, self.user_id);
        let mut pipeline = ::redis::pipe();
        for (id, priority) in wake {
            pipeline
                .rpush(
                    crate::queue::list_key(&self.redis, priority),
                    id.as_bytes().as_slice(),
                )
                .ignore();
        }
        // Nobody may hear of text that the log does not hold: who missed what came before it could
        // never fill the gap. Where it cannot be appended, the terminal event brings the whole reply.
        if self.acknowledged < self.written.len() && !self.overtaken {
            pipeline.cmd("EVAL").arg(APPEND_SOURCE).arg(1).arg(&key);
            for argument in self.append_arguments(self.acknowledged) {
                pipeline.arg(argument);
            }
            pipeline.ignore();
        }
        add_end(&mut pipeline, &key, &channel, terminal);
        self.redis.pipeline(&pipeline).await
    }

    fn append_arguments(&self, from: usize) -> Vec<String> {
        let mut arguments = vec![
            self.attempt.to_string(),
            EventId::TERMINAL_SEQ.to_string(),
            from.to_string(),
            self.acknowledged.to_string(),
            LOG_CAP.to_string(),
            user_channel(&self.redis, self.user_id),
            millis(LOG_LIFETIME).to_string(),
        ];
        for (seq, json) in self.written.iter().skip(from) {
            arguments.push(seq.to_string());
            arguments.push(json.clone());
        }
        arguments
    }

    /// Appends the events from `from` on and publishes those that were not acknowledged.
    async fn append(&self, from: usize) -> Result<Appended, RedisFailure> {
        let mut invocation = APPEND.key(log_key(&self.redis, self.generation_id));
        for argument in self.append_arguments(from) {
            invocation.arg(argument);
        }
        Ok(match self.redis.script(&invocation).await? {
            1 => Appended::Yes,
            0 => Appended::Gone,
            _ => Appended::Overtaken,
        })
    }
}

/// Ends the log of a generation that no worker runs, and publishes the terminal event.
///
/// # Errors
/// When Redis is away; readers then synthesise the event from the row.
pub async fn write_terminal(
    redis: &Redis,
    user_id: Uuid,
    event: &Event,
) -> Result<(), RedisFailure> {
    let mut pipeline = ::redis::pipe();
    let key = log_key(redis, event.id.generation_id);
    add_end(&mut pipeline, &key, &user_channel(redis, user_id), event);
    redis.pipeline(&pipeline).await
}

fn add_end(pipeline: &mut ::redis::Pipeline, key: &str, channel: &str, terminal: &Event) {
    pipeline
        .cmd("EVAL")
        .arg(END_SOURCE)
        .arg(1)
        .arg(key)
        .arg(terminal.id.stream_id())
        .arg(terminal.to_json())
        .arg(channel)
        .arg(millis(LIFETIME_AFTER_END))
        .ignore();
}

fn mark_key(redis: &Redis, id: EventId) -> String {
    redis.key(format_args!("mark:{id}"))
}

/// Publishes an event that has no log. For ten minutes a client can resume after it.
///
/// # Errors
/// When Redis is away.
pub async fn publish(redis: &Redis, user_id: Uuid, event: &Event) -> Result<(), RedisFailure> {
    let mut invocation = PUBLISH.key(mark_key(redis, event.id));
    invocation
        .arg(user_channel(redis, user_id))
        .arg(event.to_json())
        .arg(millis(LIFETIME_AFTER_END));
    redis.script::<i64>(&invocation).await.map(drop)
}

/// When Redis took an event, by its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// In microseconds since 1970.
    pub at_us: u64,
    /// How long ago that is.
    pub age: Duration,
}

/// When Redis took this event; none when it does not know of it (any more).
///
/// # Errors
/// When Redis is away.
pub async fn taken(redis: &Redis, id: EventId) -> Result<Option<Taken>, RedisFailure> {
    let mut pipeline = ::redis::pipe();
    let entry = id.stream_id();
    pipeline
        .cmd("XRANGE")
        .arg(log_key(redis, id.generation_id))
        .arg(&entry)
        .arg(&entry);
    pipeline.get(mark_key(redis, id));
    pipeline.cmd("TIME");
    let (logged, mark, (seconds, micros)): (Vec<Entry>, Option<u64>, (u64, u64)) =
        redis.pipeline(&pipeline).await?;
    let now_us = seconds.saturating_mul(1_000_000).saturating_add(micros);
    let at_us = logged.first().and_then(entry_at).or(mark);
    Ok(at_us.map(|at_us| Taken {
        at_us,
        age: Duration::from_micros(now_us.saturating_sub(at_us)),
    }))
}

/// An entry of a log as Redis tells it.
type Entry = (String, Vec<(String, String)>);

fn entry_at((_, fields): &Entry) -> Option<u64> {
    let (_, at) = fields.iter().find(|(name, _)| name == "t")?;
    at.parse().ok()
}

/// An event of a log.
#[derive(Clone, Debug)]
pub struct Logged {
    /// The event.
    pub event: PushedEvent,
    /// When Redis took it, in microseconds since 1970; none for one of an older version.
    pub at_us: Option<u64>,
}

/// Reads a generation's log after `after`, oldest first.
///
/// # Errors
/// When Redis is away.
pub async fn read_log(
    redis: &Redis,
    generation_id: Uuid,
    after: Option<EventId>,
) -> Result<Vec<PushedEvent>, RedisFailure> {
    let entries = read_entries(redis, generation_id, after).await?;
    Ok(entries.into_iter().map(|entry| entry.event).collect())
}

/// The same with the moments.
///
/// # Errors
/// When Redis is away.
pub async fn read_entries(
    redis: &Redis,
    generation_id: Uuid,
    after: Option<EventId>,
) -> Result<Vec<Logged>, RedisFailure> {
    let key = log_key(redis, generation_id);
    let mut events: Vec<Logged> = Vec::new();
    let mut start = after.map_or_else(|| "-".to_owned(), |id| format!("({}", id.stream_id()));
    loop {
        let mut command = ::redis::cmd("XRANGE");
        command
            .arg(&key)
            .arg(&start)
            .arg("+")
            .arg("COUNT")
            .arg(PAGE);
        let page: Vec<Entry> = redis.command(&command).await?;
        let full = page.len() == PAGE;
        if let Some((last, _)) = page.last() {
            start = format!("({last}");
        }
        events.extend(page.iter().filter_map(|entry| {
            Some(Logged {
                event: PushedEvent::parse(&entry.1.first()?.1)?,
                at_us: entry_at(entry),
            })
        }));
        if !full {
            return Ok(events);
        }
    }
}

/// The text that clients have seen of the newest attempt, for a generation that is being
/// cancelled.
///
/// # Errors
/// When Redis is away.
pub async fn text_so_far(redis: &Redis, generation_id: Uuid) -> Result<String, RedisFailure> {
    Ok(seen(redis, generation_id).await?.text)
}

/// When the first of that text was published; none while there is none.
///
/// # Errors
/// When Redis is away.
pub async fn first_text_at(
    redis: &Redis,
    generation_id: Uuid,
) -> Result<Option<OffsetDateTime>, RedisFailure> {
    Ok(seen(redis, generation_id).await?.first_at)
}

/// What clients have seen of the newest attempt.
#[derive(Default)]
struct Seen {
    text: String,
    first_at: Option<OffsetDateTime>,
}

async fn seen(redis: &Redis, generation_id: Uuid) -> Result<Seen, RedisFailure> {
    #[derive(Deserialize)]
    struct Delta {
        #[serde(with = "crate::domain::timestamp")]
        at: OffsetDateTime,
        data: Text,
    }
    #[derive(Deserialize)]
    struct Text {
        text: String,
    }
    let mut seen = Seen::default();
    let mut attempt = 0;
    for event in read_log(redis, generation_id, None).await? {
        if event.id.attempt != attempt || event.kind == EventType::Retrying {
            attempt = event.id.attempt;
            seen = Seen::default();
        }
        if event.kind == EventType::Delta
            && let Ok(delta) = serde_json::from_str::<Delta>(&event.json)
        {
            seen.text.push_str(&delta.data.text);
            seen.first_at.get_or_insert(delta.at);
        }
    }
    Ok(seen)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
