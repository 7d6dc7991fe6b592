//! The log of a generation, and who may write into it.

use shared::domain::EventType;
use shared::id::EventId;
use shared::push::{Feed, read_log, text_so_far};

use crate::common::World;
use crate::common::in_time;
use crate::stage::{Replica, Stage, delta, ids, rest};

#[tokio::test]
async fn a_log_tells_the_whole_story_in_order() {
    let stage = Stage::new().await;
    stage.write_all(3, std::time::Duration::ZERO).await;
    let events = read_log(&stage.world.redis, stage.id(), None)
        .await
        .unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    use EventType::{Completed, Delta, InProgress, Queued};
    assert_eq!(kinds, [Queued, InProgress, Delta, Delta, Delta, Completed]);
    let expected = [
        (0, 1),
        (1, 1),
        (1, 2),
        (1, 3),
        (1, 4),
        (1, EventId::TERMINAL_SEQ),
    ];
    assert_eq!(
        stage.log().await,
        expected.map(|(attempt, seq)| stage.event_id(attempt, seq))
    );
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event.generation_id, Some(stage.id()));
        assert_eq!(event.conversation_id, stage.claim.conversation_id);
        let later = read_log(&stage.world.redis, stage.id(), Some(event.id))
            .await
            .unwrap();
        assert_eq!(later.len(), events.len() - number - 1);
    }
    let terminal: serde_json::Value = serde_json::from_str(&events[5].json).unwrap();
    assert_eq!(terminal["id"], events[5].id.to_string());
    assert_eq!(
        terminal["data"]["assistant_message"]["content"],
        "the reply"
    );
    // Ten minutes to resume from, and no longer.
    let key = stage.world.redis.key(format_args!("log:{}", stage.id()));
    let left: i64 = stage
        .world
        .redis
        .command(redis::cmd("PTTL").arg(key))
        .await
        .unwrap();
    assert!((1..=600_000).contains(&left), "{left} ms");
}

#[tokio::test]
async fn a_long_log_is_read_to_its_end() {
    let stage = Stage::new().await;
    let mut writer = stage.writer();
    for number in 0..1_300 {
        writer.push(EventType::Delta, &delta(number));
    }
    writer.flush().await;
    let log = stage.log().await;
    assert_eq!(log.len(), 1_301);
    assert!(log.is_sorted_by(|a, b| a < b));
    let after = Some(stage.event_id(1, 700));
    assert_eq!(
        read_log(&stage.world.redis, stage.id(), after)
            .await
            .unwrap()
            .len(),
        600
    );
}

/// The worker that lost its lease is still writing when another attempt has begun.
#[tokio::test]
async fn an_overtaken_attempt_neither_logs_nor_publishes() {
    let stage = Stage::new().await;
    let replica = Replica::new(&stage.world);
    let mut old = stage.writer();
    old.write(EventType::InProgress, &delta(0)).await;
    let claim = stage.next_attempt().await;
    let mut new = stage.writer_of(&claim);
    new.write(EventType::InProgress, &delta(0)).await;
    let mut feed = replica.hub.subscribe(stage.world.user).await;
    let before = stage.log().await;
    for number in 1..4 {
        old.push(EventType::Delta, &delta(number));
        old.write(EventType::Delta, &delta(number)).await;
    }
    // A writer that has written nothing yet, as one that was frozen right after its claim.
    let mut frozen = stage.writer();
    frozen.write(EventType::InProgress, &delta(0)).await;
    assert_eq!(stage.log().await, before);
    new.write(EventType::Delta, &delta(1)).await;
    let heard = in_time("the new attempt is heard", async {
        loop {
            if let Feed::Event(event) = feed.next().await {
                break event.id;
            }
        }
    });
    assert_eq!(
        heard.await,
        stage.event_id(2, 2),
        "nothing else was published"
    );
}

#[tokio::test]
async fn nothing_follows_the_end() {
    let stage = Stage::new().await;
    let replica = Replica::new(&stage.world);
    let mut writer = stage.writer();
    writer.write(EventType::InProgress, &delta(0)).await;
    let terminal = stage.cancel().await;
    let mut feed = replica.hub.subscribe(stage.world.user).await;
    writer.write(EventType::Delta, &delta(1)).await;
    let expected = [(0, 1), (1, 1), (1, EventId::TERMINAL_SEQ)];
    assert_eq!(
        stage.log().await,
        expected.map(|(attempt, seq)| stage.event_id(attempt, seq))
    );
    shared::push::publish(&stage.world.redis, stage.world.user, &terminal)
        .await
        .unwrap();
    let heard = in_time("the mark is heard", async {
        loop {
            if let Feed::Event(event) = feed.next().await {
                break event.id;
            }
        }
    });
    assert_eq!(heard.await, terminal.id, "nothing else was published");
}

/// Redis answered too late, or the answer was lost: the events are there, and are sent again.
#[tokio::test]
async fn events_whose_acknowledgement_was_lost_are_not_doubled() {
    let stage = Stage::new().await;
    let replica = Replica::new(&stage.world);
    let mut feed = replica.hub.subscribe(stage.world.user).await;
    // The same attempt, as it would send again what it believes to be unsent.
    let mut first = stage.writer();
    let mut again = stage.writer();
    for writer in [&mut first, &mut again] {
        writer.push(EventType::InProgress, &delta(0));
        writer.push(EventType::Delta, &delta(1));
    }
    first.flush().await;
    again.push(EventType::Delta, &delta(2));
    again.flush().await;
    again.write(EventType::Delta, &delta(3)).await;
    let numbers = [(0, 1), (1, 1), (1, 2), (1, 3), (1, 4)];
    assert_eq!(
        stage.log().await,
        numbers.map(|(attempt, seq)| stage.event_id(attempt, seq))
    );
    let mut heard = Vec::new();
    in_time("the last is heard", async {
        while heard.len() < 4 {
            if let Feed::Event(event) = feed.next().await {
                heard.push(event.id);
            }
        }
    })
    .await;
    assert_eq!(
        heard,
        numbers[1..]
            .iter()
            .map(|(attempt, seq)| stage.event_id(*attempt, *seq))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn a_log_that_redis_lost_is_written_again() {
    let stage = Stage::new().await;
    let replica = Replica::new(&stage.world);
    let mut feed = replica.hub.subscribe(stage.world.user).await;
    let mut writer = stage.writer();
    for number in 0..4 {
        writer.write(EventType::Delta, &delta(number)).await;
    }
    stage.world.env.wipe_redis().await;
    writer.write(EventType::Delta, &delta(4)).await;
    let all: Vec<_> = (1..=5).map(|seq| stage.event_id(1, seq)).collect();
    assert_eq!(stage.log().await, all);
    // Redis comes back without its last second.
    let kept = read_log(&stage.world.redis, stage.id(), None)
        .await
        .unwrap();
    stage.world.env.wipe_redis().await;
    let key = stage.world.redis.key(format_args!("log:{}", stage.id()));
    for event in &kept[..3] {
        let mut add = redis::cmd("XADD");
        add.arg(&key)
            .arg(event.id.stream_id())
            .arg("e")
            .arg(&*event.json);
        stage.world.redis.command::<String>(&add).await.unwrap();
    }
    writer.write(EventType::Delta, &delta(5)).await;
    let all: Vec<_> = (1..=6).map(|seq| stage.event_id(1, seq)).collect();
    assert_eq!(stage.log().await, all);
    stage.world.env.wipe_redis().await;
    writer.write(EventType::Delta, &delta(6)).await;
    let left: i64 = stage
        .world
        .redis
        .command(redis::cmd("PTTL").arg(&key))
        .await
        .unwrap();
    assert!((1..=3_600_000).contains(&left), "{left} ms");
    // What was heard is not said again.
    let mut heard = Vec::new();
    in_time("the last is heard", async {
        while heard.len() < 7 {
            if let Feed::Event(event) = feed.next().await {
                heard.push(event.id);
            }
        }
    })
    .await;
    let expected: Vec<_> = (1..=7).map(|seq| stage.event_id(1, seq)).collect();
    assert_eq!(heard, expected);
}

/// A worker that lost its lease and a Redis that lost its data, both at once.
#[tokio::test]
async fn an_overtaken_attempt_that_writes_into_an_empty_log_is_overtaken_again() {
    let stage = Stage::new().await;
    let mut old = stage.writer();
    old.write(EventType::Delta, &delta(0)).await;
    let claim = stage.next_attempt().await;
    let mut new = stage.writer_of(&claim);
    new.write(EventType::InProgress, &delta(0)).await;
    new.write(EventType::Delta, &delta(1)).await;
    stage.world.env.wipe_redis().await;
    old.write(EventType::Delta, &delta(1)).await;
    new.write(EventType::Delta, &delta(2)).await;
    let newest: Vec<_> = stage
        .log()
        .await
        .into_iter()
        .filter(|id| id.attempt == 2)
        .collect();
    assert_eq!(newest, [1, 2, 3].map(|seq| stage.event_id(2, seq)));
}

#[tokio::test]
async fn the_text_so_far_is_that_of_the_newest_try() {
    let stage = Stage::new().await;
    let redis = stage.world.redis.clone();
    let text = async || text_so_far(&redis, stage.id()).await.unwrap();
    assert_eq!(text().await, "");
    let mut writer = stage.writer();
    writer
        .write(EventType::InProgress, &serde_json::json!({}))
        .await;
    writer.write(EventType::Delta, &delta(1)).await;
    writer
        .write(
            EventType::Interim,
            &serde_json::json!({ "message": "Still working" }),
        )
        .await;
    writer.write(EventType::Delta, &delta(2)).await;
    assert_eq!(text().await, "1 2 ");
    writer
        .write(
            EventType::Retrying,
            &serde_json::json!({ "reason": "timeout" }),
        )
        .await;
    assert_eq!(text().await, "");
    writer.write(EventType::Delta, &delta(3)).await;
    assert_eq!(text().await, "3 ");
    let claim = stage.next_attempt().await;
    let mut next = stage.writer_of(&claim);
    next.write(EventType::InProgress, &serde_json::json!({}))
        .await;
    assert_eq!(text().await, "");
    next.write(
        EventType::Delta,
        &serde_json::json!({ "text": "\u{1f600}\"\n" }),
    )
    .await;
    assert_eq!(text().await, "\u{1f600}\"\n");
    stage.world.env.wipe_redis().await;
    assert_eq!(text().await, "");
}

/// A log that lost its beginning gets no more text at the end, and nobody hears of any: a follower
/// that missed what came before could not fill the gap. The end brings the whole reply.
#[tokio::test]
async fn the_end_brings_no_text_that_the_log_cannot_hold() {
    let stage = Stage::new().await;
    let replica = Replica::new(&stage.world);
    let mut writer = stage.writer();
    writer.push(EventType::InProgress, &delta(0));
    writer.push(EventType::Delta, &delta(1));
    writer.flush().await;
    let seen = Some(stage.event_id(1, 2));
    let mut follow = replica.follow(&stage.world, stage.id(), seen).await;
    let key = stage.world.redis.key(format_args!("log:{}", stage.id()));
    let gone: i64 = stage
        .world
        .redis
        .command(redis::cmd("DEL").arg(key))
        .await
        .unwrap();
    assert_eq!(gone, 1);
    writer.push(EventType::Delta, &delta(2));
    let terminal = stage.store(&stage.claim, "the whole reply").await;
    writer.end(&terminal, []).await.unwrap();
    let end = stage.event_id(1, EventId::TERMINAL_SEQ);
    assert_eq!(ids(&rest(&mut follow).await), [end]);
    assert_eq!(stage.log().await, [end]);
}

/// A server that is full refuses what it would have to store, and goes on serving everything else:
/// nobody may leave it alone for that, or ends would not be published any more.
#[tokio::test]
async fn a_refusal_within_a_pipeline_is_an_answer() {
    let world = World::new().await;
    let redis = world.env.redis();
    let mut pipeline = ::redis::pipe();
    let full = "return redis.error_reply('OOM it is full')";
    pipeline.cmd("EVAL").arg(full).arg(0).ignore();
    let refused = redis.pipeline::<()>(&pipeline).await.unwrap_err();
    assert!(refused.is_answer(), "{refused:?}");
    let alive = redis.command::<String>(&::redis::cmd("PING")).await;
    assert_eq!(alive.unwrap(), "PONG");
}
