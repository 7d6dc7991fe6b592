//! What one person or one queue can do to the others. Whatever waits here waits behind a gate, and
//! nothing is said in seconds.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails where it stands"
)]

mod common;

use shared::domain::Priority;
use shared::queue::push_back;
use uuid::Uuid;

use common::{Fleet, TestWorker, is_completed};

/// Replies that stand still after some words, until the simulator is told to let go.
const HELD: &str = "[[sim:hold=3]] go on";

impl Fleet {
    /// A worker that gives no reply up that stands still.
    fn patient_worker(&self, settings: &[(&'static str, &str)]) -> TestWorker {
        let patience = [
            ("UPSTREAM_FIRST_TOKEN_TIMEOUT", "600"),
            ("UPSTREAM_IDLE_TIMEOUT", "600"),
            ("UPSTREAM_TOTAL_TIMEOUT", "600"),
        ];
        self.worker_with("w1", &[&patience, settings].concat())
    }

    async fn count(&self, what: &str) -> u32 {
        let sql = format!("SELECT count(*) FROM chat.generations WHERE {what}");
        self.env.value(&sql).await.unwrap().parse().unwrap()
    }

    /// As many generations of one person in as many conversations, as they would be after they were
    /// accepted: the first eight have the places, and the others wait for them.
    async fn flood(&self, user: Uuid, many: u32, content: &str) {
        let sql = format!(
            r#"
            CREATE TABLE public.flood AS
                SELECT n, chat.uuid7_floor(now() - interval '2 hours' + n * interval '1 millisecond') AS conversation,
                       chat.uuid7_floor(now() - interval '1 hour' + n * interval '2 milliseconds') AS message,
                       chat.uuid7_floor(now() - interval '1 hour' + (2 * n + 1) * interval '1 millisecond') AS generation
                FROM generate_series(1, {many}) n;
            INSERT INTO chat.conversations (id, user_id, title, title_is_default, context_type, last_id, message_count)
                SELECT conversation, '{user}', 'One of many', false, 'general', generation, (n <= 100)::integer
                FROM public.flood;
            INSERT INTO chat.messages (id, user_id, conversation_id, sender_type, content, token_count)
                SELECT message, '{user}', conversation, 'user', '{content}', 10 FROM public.flood WHERE n <= 100;
            INSERT INTO chat.generations (id, user_id, conversation_id, kind, context_type, priority, model_chain, model,
                                          is_free_model, user_message_id, deadline_at, run_at, parked)
                SELECT generation, '{user}', conversation, 'reply', 'general', 'standard',
                       '[{{"name": "test/first:free", "free": true}}]', 'test/first:free', true, message,
                       now() + interval '1 hour', CASE WHEN n <= 8 THEN now() ELSE 'infinity' END,
                       CASE WHEN n > 8 THEN 'place' END
                FROM public.flood"#
        );
        self.env.execute_all(&sql).await;
    }
}

/// Eight of the noisy person's stand still for as long as the test wants; nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn one_person_with_100_000_generations_keeps_nobody_waiting() {
    let fleet = Fleet::new().await;
    let noisy = Uuid::new_v4();
    fleet.flood(noisy, 100_000, HELD).await;
    let first = fleet
        .env
        .value("SELECT string_agg(generation::text, ' ' ORDER BY n) FROM public.flood WHERE n <= 8")
        .await
        .unwrap();
    let first: Vec<Uuid> = first.split(' ').map(|id| id.parse().unwrap()).collect();
    fleet
        .until(async || {
            let hints = first.iter().map(|id| (*id, Priority::Standard));
            push_back(&fleet.redis, hints).await.ok()
        })
        .await;
    let conversation = fleet.conversation().await;
    let sent = fleet.send(conversation, "only this one").await;
    // Ten places for standard work.
    let _worker = fleet.patient_worker(&[("WORKER_CONCURRENCY", "12")]);
    assert!(is_completed(&fleet.ended(sent.id).await));
    let started = format!("user_id = '{noisy}' AND attempt > 0");
    assert!(fleet.count(&started).await <= 8);
    // Let go, the noisy person's go on as well, and never more than eight at a time.
    fleet.simulator.release();
    let ended = format!("user_id = '{noisy}' AND status = 'completed'");
    fleet
        .until(async || {
            let active = format!(
                "user_id = '{noisy}' AND status IN ('queued', 'in_progress') AND parked IS NULL"
            );
            assert!(fleet.count(&active).await <= 8);
            (fleet.count(&ended).await >= 8).then_some(())
        })
        .await;
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_full_of_standard_work_has_a_place_for_premium() {
    let fleet = Fleet::new().await;
    for _ in 0..20 {
        let conversation = fleet.conversation().await;
        fleet.send(conversation, HELD).await;
    }
    let mut background = Vec::new();
    for _ in 0..10 {
        let conversation = fleet.conversation().await;
        let sent = fleet.send_in(Priority::Background, fleet.user, conversation, HELD);
        background.push(sent.await.id);
    }
    let settings = [
        ("WORKER_CONCURRENCY", "10"),
        ("MAX_ACTIVE_PER_USER", "1000"),
    ];
    let _worker = fleet.patient_worker(&settings);
    // None of them ends before the simulator lets go, so the worker stays full.
    let running = "priority <> 'premium' AND status = 'in_progress'";
    fleet
        .until(async || (fleet.count(running).await == 9).then_some(()))
        .await;
    let conversation = fleet.conversation().await;
    let premium = fleet.send_in(Priority::Premium, fleet.user, conversation, "now");
    let premium = premium.await;
    assert!(is_completed(&fleet.ended(premium.id).await));
    assert_eq!(fleet.count(running).await, 9, "nothing had to end for it");
    let lower = "priority = 'background' AND status = 'in_progress'";
    assert!(fleet.count(lower).await <= 5);
    // A place that frees is taken at once, although the worker only waited for premium work.
    fleet
        .until(async || {
            fleet.simulator.release();
            (fleet.count("status <> 'completed'").await == 0).then_some(())
        })
        .await;
    fleet.check_invariants().await;
}

/// Premium work fills all places for as long as the test wants, and what nobody waits for is done all
/// the same.
#[tokio::test(flavor = "multi_thread")]
async fn background_work_advances_while_premium_takes_all_places() {
    let fleet = Fleet::new().await;
    for _ in 0..60 {
        let conversation = fleet.conversation().await;
        let sent = fleet.send_in(Priority::Premium, fleet.user, conversation, HELD);
        sent.await;
    }
    let conversation = fleet.conversation().await;
    let background = fleet.send_in(Priority::Background, fleet.user, conversation, "some time");
    let background = background.await.id;
    let settings = [("WORKER_CONCURRENCY", "2"), ("MAX_ACTIVE_PER_USER", "1000")];
    let _worker = fleet.patient_worker(&settings);
    // At most two premium replies end each time that the simulator lets go.
    let ended = fleet
        .until(async || {
            // A hint may be lost on a busy machine.
            let _ = push_back(&fleet.redis, [(background, Priority::Background)]).await;
            fleet.simulator.release();
            let generation = fleet.generation(background).await;
            generation.status.is_terminal().then_some(generation)
        })
        .await;
    assert!(is_completed(&ended));
    assert!(
        fleet
            .count("priority = 'premium' AND status = 'queued'")
            .await
            > 0
    );
}
