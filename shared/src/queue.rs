//! The hints: ids of ready generations in one Redis list per priority.
//!
//! A list holds ids only and may lose all of them at any time; a worker that finds its lists empty
//! looks at the table, and the reconciler pushes again.

use std::sync::LazyLock;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Script, cmd};
use uuid::Uuid;

use crate::clock::Clock;
use crate::domain::{Event, EventType, Generation, Parked, Priority};
use crate::id::EventId;
use crate::push::log_key;
use crate::redis::{Redis, RedisFailure};

/// A list holds at most so many ids; what does not fit waits in Postgres for the reconciler.
pub const LIST_CAP: u32 = 10_000;
/// A log whose generation never ends in Redis's sight goes after this long.
pub(crate) const LOG_LIFETIME: Duration = Duration::from_hours(1);

/// Appends the id where there is room, unless it is parked, and tells the user about the position.
/// Returns the number of generations before it, which is that of ids and of what is before a parked
/// one, and how long the reply may take, -1 where that cannot be said: the model has not been seen at
/// work, the queue is paused, or it is not known how quickly it empties. What is parked waits while
/// others go all the way that it goes afterwards. Where the account's limit paces the model, those who stand
/// in that line come first, too; who has another model to go to does not wait there for long.
static ANNOUNCE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local length, cap, is_parked = redis.call('LLEN', KEYS[1]), tonumber(ARGV[1]), ARGV[9] == '1'
          if not is_parked and length < cap then redis.call('RPUSH', KEYS[1], ARGV[2]) end
          local pace = redis.call('HMGET', KEYS[3], ARGV[3], ARGV[10], ARGV[11], ARGV[14])
          local model_ms, gap_ms, depth = tonumber(pace[1] or '0'), tonumber(pace[2] or '0'), tonumber(pace[3] or '0')
          if length >= cap and depth > length then length = depth end
          local now = redis.call('TIME')
          local wait_ms, waiting = length * gap_ms, 0
          local bucket, line, gap, slack, longest = string.match(pace[4] or '', '^(.+)|(.+)|(%d+)|(%d+)|(%d*)$')
          if bucket then
              local at = now[1] * 1000000 + now[2]
              local state = redis.call('HMGET', bucket, 'arrival', 'closed')
              local start = math.max(at, tonumber(state[2] or '0'))
              waiting = redis.call('ZCOUNT', line, '-inf', math.floor(at / 1000))
              local turn = math.max(tonumber(state[1] or '0'), start) + (length + waiting) * tonumber(gap) - tonumber(slack)
              local paced_ms = (math.max(start, turn) - at) / 1000
              if ARGV[15] == '1' and longest ~= '' and paced_ms > tonumber(longest) then
                  waiting = 0
              else
                  wait_ms = math.max(wait_ms, paced_ms)
              end
          end
          local estimate = -1
          if model_ms > 0 and (gap_ms > 0 or length == 0 and gap_ms == 0) then
              estimate = math.floor((model_ms + wait_ms) * tonumber(ARGV[13]))
          end
          local position = length + waiting + tonumber(ARGV[12])
          local event = ARGV[4] .. position .. ARGV[5] .. (estimate >= 0 and estimate or 'null') .. ARGV[6]
          redis.call('XADD', KEYS[2], '0-1', 'e', event, 't', now[1] .. string.format('%06d', now[2]))
          redis.call('PEXPIRE', KEYS[2], ARGV[7])
          redis.call('PUBLISH', ARGV[8], event)
          return { position, estimate }",
    )
});

/// Appends ids for as long as there is room.
static PUSH_BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local room = tonumber(ARGV[1]) - redis.call('LLEN', KEYS[1])
          for i = 2, math.min(#ARGV, room + 1) do redis.call('RPUSH', KEYS[1], ARGV[i]) end",
    )
});

pub(crate) fn list_key(redis: &Redis, priority: Priority) -> String {
    redis.key(format_args!("ready:{priority}"))
}

pub(crate) fn pace_key(redis: &Redis) -> String {
    redis.key("pace")
}

/// The field of the pace that says how many milliseconds pass until one more leaves the queue, -1
/// while it is paused.
fn gap_field(priority: Priority) -> String {
    format!("gap:{priority}")
}

/// The field of the pace that says how many wait in the queue.
fn depth_field(priority: Priority) -> String {
    format!("depth:{priority}")
}

/// The field of the pace that names the line in which calls of a model wait for the account's limit.
fn line_field(model: &str) -> String {
    format!("line:{model}")
}

/// Pushes a generation that was just accepted and tells its user, in one round trip. A parked one is
/// not pushed; it waits to be woken. Fills in the position and the estimate.
///
/// # Errors
/// When Redis is away; the commit stands and the generation is found without the hint.
pub async fn announce(
    redis: &Redis,
    clock: &Clock,
    user_id: Uuid,
    priority: Priority,
    generation: &mut Generation,
    parked: Option<Parked>,
) -> Result<(), RedisFailure> {
    let event = Event::of_generation(
        EventId {
            generation_id: generation.id,
            attempt: 0,
            seq: 1,
        },
        EventType::Queued,
        generation.conversation_id,
        clock.now(),
        &Queued {
            position: POSITION_MARK,
            estimated_response_time_ms: ESTIMATE_MARK,
        },
    )
    .to_json();
    let (before, rest) = event
        .split_once(&POSITION_MARK.to_string())
        .unwrap_or((&event, ""));
    let (between, after) = rest
        .split_once(&ESTIMATE_MARK.to_string())
        .unwrap_or((rest, ""));
    let mut invocation = ANNOUNCE.prepare_invoke();
    invocation
        .key(list_key(redis, priority))
        .key(log_key(redis, generation.id))
        .key(pace_key(redis))
        .arg(LIST_CAP)
        .arg(generation.id.as_bytes().as_slice())
        .arg(&generation.model)
        .arg(before)
        .arg(between)
        .arg(after)
        .arg(u64::try_from(LOG_LIFETIME.as_millis()).unwrap_or(u64::MAX))
        .arg(crate::push::user_channel(redis, user_id))
        .arg(i32::from(parked.is_some()))
        .arg(gap_field(priority))
        .arg(depth_field(priority))
        .arg(parked.map_or(0, |parked| parked.ahead))
        .arg(parked.map_or(1.0, |parked| parked.rounds))
        .arg(line_field(&generation.model))
        .arg(i32::from(priority == Priority::Premium));
    let (position, estimate): (i64, i64) = redis.script(&invocation).await?;
    generation.queue_position = Some(position);
    generation.estimated_response_time_ms = (estimate >= 0).then_some(estimate);
    Ok(())
}

/// The data of the event; a struct, because the script relies on the order of its fields.
#[derive(serde::Serialize)]
struct Queued {
    position: u64,
    estimated_response_time_ms: u64,
}

/// Numbers that no id or time of an event contains, replaced inside the script, where the list's
/// length is known.
const POSITION_MARK: u64 = 18_446_744_073_709_551_557;
const ESTIMATE_MARK: u64 = 18_446_744_073_709_551_533;

/// Pushes generations that a worker had, to the front: they have waited already.
///
/// # Errors
/// When Redis is away.
pub async fn push_front(
    redis: &Redis,
    ready: impl IntoIterator<Item = (Uuid, Priority)>,
) -> Result<(), RedisFailure> {
    let mut pipeline = ::redis::pipe();
    for (id, priority) in ready {
        pipeline
            .lpush(list_key(redis, priority), id.as_bytes().as_slice())
            .ignore();
    }
    if pipeline.is_empty() {
        return Ok(());
    }
    redis.pipeline(&pipeline).await
}

/// Pushes generations that may be claimed from now on, at the end: in front, those of a busy person
/// would come before everybody else's for as long as there are any. What finds no room waits in the
/// table.
///
/// # Errors
/// When Redis is away.
pub async fn push_back(
    redis: &Redis,
    ready: impl IntoIterator<Item = (Uuid, Priority)>,
) -> Result<(), RedisFailure> {
    let ready: Vec<(Uuid, Priority)> = ready.into_iter().collect();
    for priority in Priority::ALL {
        let mut invocation = PUSH_BACK.key(list_key(redis, *priority));
        invocation.arg(LIST_CAP);
        let ids = ready.iter().filter(|(_, queue)| queue == priority);
        let mut count = 0;
        for (id, _) in ids {
            invocation.arg(id.as_bytes().as_slice());
            count += 1;
        }
        if count > 0 {
            redis.script::<()>(&invocation).await?;
        }
    }
    Ok(())
}

/// How many ids wait in each list.
///
/// # Errors
/// When Redis is away.
pub async fn depths(redis: &Redis) -> Result<Vec<(Priority, u64)>, RedisFailure> {
    let mut pipeline = ::redis::pipe();
    for priority in Priority::ALL {
        pipeline.llen(list_key(redis, *priority));
    }
    let lengths: Vec<u64> = redis.pipeline(&pipeline).await?;
    Ok(Priority::ALL.iter().copied().zip(lengths).collect())
}

/// How many generations are before this one, and how long its reply may take, counted as when it was
/// announced; nothing of both when it is neither in its list nor parked.
///
/// # Errors
/// When Redis is away.
pub async fn position(
    redis: &Redis,
    priority: Priority,
    id: Uuid,
    model: &str,
    parked: Option<Parked>,
) -> Result<(Option<i64>, Option<i64>), RedisFailure> {
    let mut pipeline = ::redis::pipe();
    let list = list_key(redis, priority);
    match parked {
        None => pipeline.cmd("LPOS").arg(list).arg(id.as_bytes().as_slice()),
        Some(_) => pipeline.llen(list),
    };
    pipeline
        .cmd("HMGET")
        .arg(pace_key(redis))
        .arg(model)
        .arg(gap_field(priority));
    let (in_list, (model_ms, gap_ms)): (Option<i64>, (Option<f64>, Option<f64>)) =
        redis.pipeline(&pipeline).await?;
    let (ahead, rounds) = parked.map_or((0, 1.0), |parked| (parked.ahead, parked.rounds));
    let estimate = in_list.and_then(|ahead| {
        let waiting_ms = match gap_ms {
            Some(gap_ms) if gap_ms >= 0.0 => ahead as f64 * gap_ms,
            None if ahead == 0 => 0.0,
            _ => return None,
        };
        Some(((model_ms? + waiting_ms) * rounds) as i64)
    });
    Ok((in_list.map(|in_list| in_list + ahead), estimate))
}

/// What came of a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Ids of this queue.
    Ids(Priority, Vec<Uuid>),
    /// [`nudge`] ended it.
    Nudged,
    /// Nothing came in time.
    Nothing,
}

/// The list that ends a wait of this name without an id.
fn nudge_key(redis: &Redis, name: Uuid) -> String {
    redis.key(format_args!("nudge:{name}"))
}

/// Ends the wait of this name, because it should ask for something else; or the next one, where there
/// is none.
///
/// # Errors
/// When Redis is away.
pub async fn nudge(redis: &Redis, name: Uuid) -> Result<(), RedisFailure> {
    let key = nudge_key(redis, name);
    let mut pipeline = ::redis::pipe();
    // One is enough, and it goes should the waiter be gone.
    pipeline.del(&key).ignore();
    pipeline.rpush(&key, "1").ignore();
    pipeline.expire(&key, 60).ignore();
    redis.pipeline(&pipeline).await
}

/// A worker's own connection that waits for ids.
pub struct Waiter {
    redis: Redis,
    name: Uuid,
    block: Duration,
    /// With the server it is to, as [`Redis::moves`] counts them.
    connection: Option<(u64, MultiplexedConnection)>,
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter")
            .field("block", &self.block)
            .finish_non_exhaustive()
    }
}

impl Waiter {
    /// A waiter that blocks for up to `block` at a time; its name is its alone.
    #[must_use]
    pub fn new(redis: Redis, name: Uuid, block: Duration) -> Self {
        Self {
            redis,
            name,
            block,
            connection: None,
        }
    }

    /// Waits for up to `count` ids of the first of these queues that has any.
    ///
    /// # Errors
    /// When Redis is away. The next call connects again.
    pub async fn wait(
        &mut self,
        count: usize,
        queues: &[Priority],
    ) -> Result<Waited, RedisFailure> {
        let lists: Vec<(Priority, String)> = queues
            .iter()
            .map(|priority| (*priority, list_key(&self.redis, *priority)))
            .collect();
        let mut command = cmd("BLMPOP");
        command.arg(self.block.as_secs_f64()).arg(lists.len() + 1);
        for (_, list) in &lists {
            command.arg(list);
        }
        command.arg(nudge_key(&self.redis, self.name));
        command.arg("LEFT").arg("COUNT").arg(count.max(1));
        let moves = self.redis.moves();
        let mut connection = match self.connection.take() {
            Some((at, connection)) if at == moves => connection,
            _ => self.redis.blocking(self.block).await?,
        };
        let popped: Option<(String, Vec<Vec<u8>>)> = command.query_async(&mut connection).await?;
        self.connection = Some((moves, connection));
        let Some((from, ids)) = popped else {
            return Ok(Waited::Nothing);
        };
        let from = lists.into_iter().find(|(_, list)| *list == from);
        Ok(from.map_or(Waited::Nudged, |(priority, _)| {
            let ids = ids.iter().filter_map(|bytes| Uuid::from_slice(bytes).ok());
            Waited::Ids(priority, ids.collect())
        }))
    }
}

/// How a queue does, for estimates.
#[derive(Clone, Copy, Debug)]
pub struct QueuePace {
    /// Which.
    pub queue: Priority,
    /// How many wait in it.
    pub depth: i64,
    /// How many generations leave it in a second while it has any, once that is known.
    pub drain: Option<f64>,
    /// Whether workers leave it alone.
    pub paused: bool,
}

/// Tells how long models take, in milliseconds, and how the queues do, for estimates.
///
/// # Errors
/// When Redis is away.
pub async fn report_pace(
    redis: &Redis,
    models: &[(String, f64)],
    queues: &[QueuePace],
) -> Result<(), RedisFailure> {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for (model, ms) in models {
        known.push((model.clone(), format!("{ms:.0}")));
    }
    for pace in queues {
        known.push((depth_field(pace.queue), pace.depth.to_string()));
        match (pace.paused, pace.drain.filter(|drain| *drain > 0.0)) {
            (true, _) => known.push((gap_field(pace.queue), "-1".to_owned())),
            (false, Some(drain)) => {
                known.push((gap_field(pace.queue), format!("{:.2}", 1_000.0 / drain)));
            }
            (false, None) => unknown.push(gap_field(pace.queue)),
        }
    }
    let mut pipeline = ::redis::pipe();
    if !known.is_empty() {
        pipeline.hset_multiple(pace_key(redis), &known).ignore();
    }
    if !unknown.is_empty() {
        pipeline.hdel(pace_key(redis), unknown).ignore();
    }
    if pipeline.is_empty() {
        return Ok(());
    }
    redis.pipeline(&pipeline).await
}

/// The line in which calls of a model wait for the account's limit, for estimates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The key of the bucket, a hash that says in microseconds when the next call may come (`arrival`) and until when
    /// none may (`closed`).
    pub bucket: String,
    /// The key of the line, a set sorted by when who waits was accepted, in milliseconds.
    pub line: String,
    /// Between two calls.
    pub gap: Duration,
    /// How far ahead of its time a call may come.
    pub slack: Duration,
    /// Premium work that would wait longer has a model with another limit to go to.
    pub longest: Option<Duration>,
}

/// Tells in which line calls of each model wait; none where nothing paces them.
///
/// # Errors
/// When Redis is away.
pub async fn report_lines(
    redis: &Redis,
    lines: &[(String, Option<Line>)],
) -> Result<(), RedisFailure> {
    let mut pipeline = ::redis::pipe();
    for (model, line) in lines {
        let field = line_field(model);
        match line {
            None => pipeline.hdel(pace_key(redis), field).ignore(),
            Some(line) => {
                let longest = line.longest.map(|longest| longest.as_millis().to_string());
                let text = format!(
                    "{}|{}|{}|{}|{}",
                    line.bucket,
                    line.line,
                    line.gap.as_micros(),
                    line.slack.as_micros(),
                    longest.unwrap_or_default()
                );
                pipeline.hset(pace_key(redis), field, text).ignore()
            }
        };
    }
    if pipeline.is_empty() {
        return Ok(());
    }
    redis.pipeline(&pipeline).await
}
