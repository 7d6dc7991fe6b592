//! What a statement reads does not depend on what others wait for, whatever the planner was told last: with
//! statistics of a quiet moment every index of unfinished rows looks empty to it, and so each is as good as
//! the next.

use shared::store::generations::{self, Cancelled, Look};
use uuid::Uuid;

use crate::common::{World, until};

/// Ready generations of as many people, and parked ones of one person.
const CROWD: i64 = 4_000;
/// Rounds, so that prepared statements get their general plans, which are made after five.
const ROUNDS: i64 = 10;
/// Parked work is counted up to here for a position, of each kind.
const COUNTED: i64 = 1_000;

/// Entries read from the indexes of generations, and rows read without one.
const READ: &str = "SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'generations')
                         + (SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'generations')";

impl World {
    /// What has been read so far, by all sessions: each reports at its end.
    async fn read(&self) -> i64 {
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
        )
        .await;
        until("the sessions have ended", async || {
            let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                          AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
            (self.value(others).await == "0").then_some(())
        })
        .await;
        self.value(READ).await.parse().unwrap()
    }

    /// Statistics of a moment in which nothing is unfinished, and a crowd that came after it: ready work of
    /// many people, and parked work of `noisy` in `conversation`.
    async fn crowd(&self, noisy: Uuid, conversation: Uuid) {
        self.execute("ALTER TABLE chat.generations SET (autovacuum_enabled = off)")
            .await;
        // Their conversations do not matter here, so nobody checks that there are any.
        self.execute("SET session_replication_role = replica").await;
        let insert = |rows: &str| {
            format!(
                "INSERT INTO chat.generations (id, user_id, conversation_id, kind, context_type, priority, model_chain,
                                               model, is_free_model, max_attempts, deadline_at, status, finished_at,
                                               parked, run_at)
                 {rows} FROM generate_series(1, {CROWD}) n"
            )
        };
        let made = "'reply', 'general', 'standard', '[]', 'm', true, 5, now() + interval '1 hour'";
        for rows in [
            format!(
                "SELECT gen_random_uuid(), md5(n::text)::uuid, gen_random_uuid(), {made}, 'completed', now(), NULL, now()"
            ),
            format!(
                "SELECT gen_random_uuid(), md5(n::text)::uuid, gen_random_uuid(), {made}, 'queued', NULL, NULL, now()"
            ),
            format!(
                "SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, '{noisy}', '{conversation}', {made}, 'queued', NULL, 'turn', 'infinity'"
            ),
            format!(
                "SELECT ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, '{noisy}', gen_random_uuid(), {made}, 'queued', NULL, 'place', 'infinity'"
            ),
        ] {
            self.execute(&insert(&rows)).await;
            if rows.contains("'completed'") {
                self.execute("ANALYZE").await;
            }
        }
        self.execute("SET session_replication_role = origin").await;
    }

    /// What a person does in three conversations with two places, and what a worker does for it.
    async fn round(&self, user: Uuid) {
        let mut sent = Vec::new();
        let conversations = [
            self.conversation_of(user).await,
            self.conversation_of(user).await,
            self.conversation_of(user).await,
        ];
        for conversation in [0, 0, 1, 2] {
            let message = crate::common::text(conversations[conversation], "hello");
            sent.push(self.send_as(user, &message).await.generation.id);
        }
        let claims = self.claim(&sent).await;
        for claim in &claims {
            self.finish(claim, "reply").await;
        }
        for id in sent {
            let mut tx = self.api.user(user).await.unwrap();
            let cancelled = generations::cancel(&mut tx, id, None).await.unwrap();
            assert!(!matches!(cancelled, Cancelled::NotFound));
            tx.commit().await.unwrap();
        }
        let mut tx = self.worker.sweep().await.unwrap();
        generations::wake_lost(&mut tx, &mut Look::default(), 100)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    async fn reads_of_a_round(&self, user: Uuid) -> i64 {
        let before = self.read().await;
        for _ in 0..ROUNDS {
            self.round(user).await;
        }
        (self.read().await - before) / ROUNDS
    }
}

#[tokio::test]
async fn nobody_reads_what_others_wait_for() {
    let world = World::with_places(2).await;
    let noisy = Uuid::new_v4();
    let theirs = world.conversation_of(noisy).await;
    world.crowd(noisy, theirs).await;

    let reads = world.reads_of_a_round(world.user).await;
    assert!(reads < CROWD / 4, "{reads} with old statistics");
    world.execute("ANALYZE").await;
    let reads = world.reads_of_a_round(world.user).await;
    assert!(reads < CROWD / 4, "{reads} with new statistics");
}

/// Whoever has thousands waiting reads as many of their own as a position counts, and not more.
#[tokio::test]
async fn a_person_reads_no_more_of_their_own_than_a_position_counts() {
    let world = World::with_places(2).await;
    let theirs = world.conversation_of(world.user).await;
    world.crowd(world.user, theirs).await;
    let most = 4 * 2 * COUNTED + CROWD / 4;

    let reads = world.reads_of_a_round(world.user).await;
    assert!(reads < most, "{reads} with old statistics");
    world.execute("ANALYZE").await;
    let reads = world.reads_of_a_round(world.user).await;
    assert!(reads < most, "{reads} with new statistics");
}
