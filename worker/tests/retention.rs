//! After the retention period nothing is left of a message, and what is younger stays.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that meets something unexpected must fail where it does, and waits for its own tasks"
)]

mod common;

use std::time::Duration;

use common::Fleet;
use shared::id;
use time::OffsetDateTime;
use uuid::Uuid;

/// A conversation with an answered message, as it was so many days ago, in which something last happened later.
async fn old(fleet: &Fleet, days: i64, last_days: i64) -> Uuid {
    let at = OffsetDateTime::now_utc() - time::Duration::days(days);
    let [conversation, question, generation, reply] =
        [0, 1, 2, 3].map(|ms| id::new(at + time::Duration::milliseconds(ms)));
    let user = fleet.user;
    let when = format!("now() - interval '{days} days'");
    let last = format!("now() - interval '{last_days} days'");
    let rows = format!(
        "INSERT INTO chat.conversations (id, user_id, title, context_type, last_id, created_at, last_activity_at)
         VALUES ('{conversation}', '{user}', 'old', 'general', '{reply}', {when}, {last});
         INSERT INTO chat.messages (id, user_id, conversation_id, sender_type, content, token_count, created_at)
         VALUES ('{question}', '{user}', '{conversation}', 'user', 'q', 1, {when}),
                ('{reply}', '{user}', '{conversation}', 'assistant', 'a', 1, {when});
         INSERT INTO chat.generations (id, user_id, conversation_id, kind, context_type, status, priority, model_chain, model,
                                       is_free_model, user_message_id, assistant_message_id, deadline_at, queued_at, finished_at)
         VALUES ('{generation}', '{user}', '{conversation}', 'reply', 'general', 'completed', 'standard', '[]', 'm',
                 true, '{question}', '{reply}', {when}, {when}, {when});
         INSERT INTO chat.feedback (message_id, user_id, rating) VALUES ('{reply}', '{user}', 'up');
         INSERT INTO chat.usage_tracking (id, user_id, conversation_id, generation_id, operation, model, prompt_tokens,
                                          completion_tokens, is_free_model, processing_time_ms, created_at)
         VALUES ('{generation}', '{user}', '{conversation}', '{generation}', 'completion', 'm', 1, 1, true, 1, {when})"
    );
    fleet.env.execute_all(&rows).await;
    conversation
}

async fn rows(fleet: &Fleet, table: &str, what: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM chat.{table} WHERE {what}");
    fleet.env.value(&sql).await.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_the_retention_period_goes_and_the_rest_stays() {
    let fleet = Fleet::new().await;
    // The months that a service of that age would have.
    let months = "SELECT chat.ensure_partitions(3, now() - interval '500 days')";
    fleet.env.value(months).await;
    let gone = old(&fleet, 450, 440).await;
    let still_used = old(&fleet, 450, 3).await;
    let young = old(&fleet, 40, 40).await;
    // Nothing ran in it, so nothing says how old it is but itself.
    let empty = id::new(OffsetDateTime::now_utc() - time::Duration::days(450));
    let row = format!(
        "INSERT INTO chat.conversations (id, user_id, title, context_type, last_id, last_activity_at)
         VALUES ('{empty}', '{}', 'empty', 'general', '{empty}', now() - interval '450 days')",
        fleet.user
    );
    fleet.env.execute(&row).await;

    // Nothing else would take this one along: it ended lately.
    let late = format!(
        "INSERT INTO chat.generations (id, user_id, conversation_id, kind, context_type, status, priority, model_chain, model,
                                       is_free_model, deadline_at, queued_at, finished_at)
         SELECT '{}', user_id, conversation_id, 'reply', 'general', 'cancelled', 'standard', '[]', 'm', true, now(), now(), now()
         FROM chat.generations WHERE conversation_id = '{gone}'",
        id::new(OffsetDateTime::now_utc())
    );
    fleet.env.execute(&late).await;
    let summaries = format!(
        "INSERT INTO chat.conversation_summaries (conversation_id, version, user_id, up_to, content, token_count, model, created_at)
         SELECT c.id, v.version, c.user_id, c.id, 'what was said', 3, 'm', now() - v.days * interval '1 day'
         FROM chat.conversations c, (VALUES (1, 440), (2, 3)) v (version, days) WHERE c.id = '{still_used}'"
    );
    fleet.env.execute(&summaries).await;

    let worker = fleet.worker_with("w1", &[("RETENTION_DAYS", "365")]);
    fleet
        .until(async || (rows(&fleet, "generations", "true").await == 1).then_some(()))
        .await;
    let ids = |conversations: &[Uuid]| {
        let quoted: Vec<String> = conversations.iter().map(|id| format!("'{id}'")).collect();
        quoted.join(",")
    };
    fleet
        .until(async || {
            let left = rows(
                &fleet,
                "conversations",
                &format!("id IN ({})", ids(&[gone, empty])),
            )
            .await;
            (left == 0).then_some(())
        })
        .await;
    let stays = format!("id IN ({})", ids(&[still_used, young]));
    assert_eq!(rows(&fleet, "conversations", &stays).await, 2);
    for table in ["messages", "usage_tracking"] {
        let of = |id: Uuid| format!("conversation_id = '{id}'");
        assert_eq!(rows(&fleet, table, &of(gone)).await, 0, "{table}");
        assert_eq!(
            rows(&fleet, table, &of(still_used)).await,
            0,
            "{table}: a month goes as a whole"
        );
        assert!(rows(&fleet, table, &of(young)).await > 0, "{table}");
    }
    fleet
        .until(async || (rows(&fleet, "feedback", "true").await == 1).then_some(()))
        .await;
    fleet
        .until(async || (rows(&fleet, "conversation_summaries", "true").await == 1).then_some(()))
        .await;
    assert_eq!(
        rows(&fleet, "conversation_summaries", "version = 2").await,
        1
    );
    // No month is left that is over as a whole.
    let old_months = "SELECT count(*) FROM pg_class WHERE relnamespace = 'chat'::regnamespace
        AND relname ~ '^(messages|attempts|usage_tracking)_[0-9]{4}_[0-9]{2}$'
        AND to_date(right(relname, 7), 'YYYY_MM') + interval '1 month' <= now() - interval '365 days'";
    fleet
        .until(async || (fleet.env.value(old_months).await? == "0").then_some(()))
        .await;
    // The service goes on in a conversation whose past is gone.
    let generation = fleet.send(still_used, "do you remember?").await;
    assert!(common::is_completed(&fleet.ended(generation.id).await));
    worker.stop();
    worker.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn assessments_go_with_their_conversation_and_the_trail_in_its_own_time() {
    let fleet = Fleet::new().await;
    let months = "SELECT chat.ensure_partitions(3, now() - interval '500 days')";
    fleet.env.value(months).await;
    let (gone, still_used) = (old(&fleet, 450, 440).await, old(&fleet, 450, 3).await);
    let nowhere = Uuid::new_v4();
    // Of a conversation that goes, of one that stays, of none, and one that somebody asked for again lately.
    for (place, conversation, touched) in [
        (1, gone, 440),
        (2, still_used, 440),
        (3, nowhere, 440),
        (4, nowhere, 2),
    ] {
        let row = format!(
            "INSERT INTO chat.assessments (id, user_id, conversation_id, created_at, updated_at)
             VALUES ('00000000-0000-0000-0000-00000000000{place}', '{}', '{conversation}',
                     now() - interval '450 days', now() - interval '{touched} days')",
            fleet.user
        );
        fleet.env.execute(&row).await;
    }
    for days in [1_200, 400, 1] {
        let at = OffsetDateTime::now_utc() - time::Duration::days(days);
        let row = format!(
            "INSERT INTO chat.audit_log (id, at, actor, action, subject)
             VALUES ('{}', now() - interval '{days} days', 'ops', 'queue.pause', '{days}')",
            id::new(at)
        );
        fleet.env.execute(&row).await;
    }
    let worker = fleet.worker_with("w1", &[("RETENTION_DAYS", "365")]);
    fleet
        .until(async || (rows(&fleet, "assessments", "true").await == 2).then_some(()))
        .await;
    let stays = "right(id::text, 1) IN ('2', '4')";
    assert_eq!(rows(&fleet, "assessments", stays).await, 2);
    fleet
        .until(async || (rows(&fleet, "audit_log", "subject = '1200'").await == 0).then_some(()))
        .await;
    assert_eq!(rows(&fleet, "audit_log", "true").await, 2);
    worker.stop();
    worker.ended().await;

    // Nobody wipes what was done lately, not even with a worker's rights.
    let role = shared::store::ServingRole::Worker;
    let mut session = fleet.env.session_as(role).await;
    session.run("SET app.sweep = 'on'").await.unwrap();
    let refused = session.run("DELETE FROM chat.audit_log").await.unwrap_err();
    assert_eq!(refused.code, "42501", "{refused:?}");
    assert_eq!(rows(&fleet, "audit_log", "true").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_used_does_not_hide_what_lies_behind_it() {
    let fleet = Fleet::new().await;
    let months = "SELECT chat.ensure_partitions(3, now() - interval '500 days')";
    fleet.env.value(months).await;
    // More than one pass looks at, begun before the one that is over.
    let used = format!(
        "INSERT INTO chat.conversations (id, user_id, title, context_type, last_id)
         SELECT chat.uuid7_floor(now() - interval '470 days' + n * interval '1 millisecond'), '{}', 'used', 'general',
                chat.uuid7_floor(now())
         FROM generate_series(1, {}) n",
        fleet.user,
        worker::retention::LOOKED_AT,
    );
    fleet.env.execute(&used).await;
    let gone = old(&fleet, 450, 440).await;
    let worker = fleet.worker_with("w1", &[("RETENTION_DAYS", "365")]);
    let of_gone = format!("id = '{gone}'");
    fleet
        .until(async || (rows(&fleet, "conversations", &of_gone).await == 0).then_some(()))
        .await;
    let used = rows(&fleet, "conversations", "title = 'used'").await;
    assert_eq!(used, worker::retention::LOOKED_AT);
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_expires_where_nobody_wants_it_to() {
    let fleet = Fleet::new().await;
    old(&fleet, 4_000, 4_000).await;
    let worker = fleet.worker_with("w1", &[("RETENTION_DAYS", "0")]);
    // By the time that it answers, it has maintained.
    let conversation = fleet.conversation().await;
    let generation = fleet.send(conversation, "hello").await;
    fleet.ended(generation.id).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rows(&fleet, "conversations", "title = 'old'").await, 1);
    assert_eq!(rows(&fleet, "messages", "content = 'q'").await, 1);
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_that_can_only_be_a_mistake_is_refused() {
    let fleet = Fleet::new().await;
    let mut vars = shared::config::Vars::from_map(fleet.settings("w1", &[("RETENTION_DAYS", "3")]));
    worker::config::WorkerConfig::from_vars(&mut vars);
    let text = vars.finish().unwrap_err().to_string();
    assert!(
        text.contains("RETENTION_DAYS: must be 0 or at least 30"),
        "{text}"
    );
    // And the database does not rely on it.
    let mut session = fleet
        .env
        .session_as(shared::store::ServingRole::Worker)
        .await;
    assert!(
        session
            .run("SELECT chat.drop_partition(now() - interval '6 days')")
            .await
            .is_err()
    );
    assert!(
        session
            .run("SELECT chat.drop_partition(now() - interval '36 years')")
            .await
            .is_ok()
    );
}
