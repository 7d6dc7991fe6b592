//! What a statement reads does not depend on what others wait for, whatever the planner was told last: with
//! statistics of a quiet moment every index of unfinished rows looks empty to it, and so each is as good as
//! the next.

use std::collections::BTreeMap;

use shared::store::generations::{self, Cancelled, Look};
use uuid::Uuid;

use crate::common::{LEASE, World, claimer, until};

/// Ready generations of as many people, and parked ones of one person.
const CROWD: i64 = 4_000;
/// Rounds, so that prepared statements get their general plans, which are made after five.
const ROUNDS: i64 = 10;
/// Parked work is counted up to here for a position, of each kind.
const COUNTED: i64 = 1_000;

/// Entries read from each index of generations, and rows read without one.
const READ: &str = "SELECT string_agg(name || ' ' || tuples, ', ') FROM (
    SELECT indexrelname AS name, idx_tup_read AS tuples FROM pg_stat_user_indexes WHERE relname = 'generations'
    UNION ALL
    SELECT 'the table', seq_tup_read FROM pg_stat_user_tables WHERE relname = 'generations') x";

/// How many entries were read of each index in a round.
struct Reads(BTreeMap<String, i64>);

impl Reads {
    fn of(text: &str) -> Self {
        let one = |entry: &str| {
            let (name, count) = entry.rsplit_once(' ').unwrap();
            (name.to_owned(), count.parse().unwrap())
        };
        Self(text.split(", ").map(one).collect())
    }

    fn since(mut self, before: &Self) -> Self {
        for (name, count) in &mut self.0 {
            *count = (*count - before.0[name]) / ROUNDS;
        }
        self
    }

    #[track_caller]
    fn assert_at_most(&self, most: i64, when: &str) {
        let all: i64 = self.0.values().sum();
        assert!(all <= most, "{all} {when}: {:?}", self.0);
    }
}

impl World {
    /// What has been read so far, by all sessions: each reports at its end.
    async fn read(&self) -> Reads {
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
        // The pools find out one by one that theirs are gone.
        let mut in_a_row = 0;
        until("the pools have new sessions", async || {
            let api = self.api.user(self.user).await.is_ok();
            let sweep = self.worker.sweep().await.is_ok();
            let statement = async {
                let mut tx = self.worker.sweep_statement().await?;
                generations::claim(&mut tx, &[], &claimer("w/1", LEASE)).await
            };
            let fine = api && sweep && statement.await.is_ok();
            in_a_row = if fine { in_a_row + 1 } else { 0 };
            (in_a_row == 5).then_some(())
        })
        .await;
        Reads::of(&self.value(READ).await)
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
                "SELECT gen_random_uuid(), md5((n % 100)::text)::uuid, gen_random_uuid(), {made}, 'completed', now(), NULL, now()"
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

    async fn reads_of_a_round(&self, user: Uuid) -> Reads {
        let before = self.read().await;
        for _ in 0..ROUNDS {
            self.round(user).await;
        }
        self.read().await.since(&before)
    }
}

#[tokio::test]
async fn nobody_reads_what_others_wait_for() {
    let world = World::with_places(2).await;
    let noisy = Uuid::new_v4();
    let theirs = world.conversation_of(noisy).await;
    world.crowd(noisy, theirs).await;

    let reads = world.reads_of_a_round(world.user).await;
    reads.assert_at_most(CROWD / 4, "with old statistics");
    world.execute("ANALYZE").await;
    let reads = world.reads_of_a_round(world.user).await;
    reads.assert_at_most(CROWD / 4, "with new statistics");
}

/// Whoever has thousands waiting reads as many of their own as a position counts, and not more.
#[tokio::test]
async fn a_person_reads_no_more_of_their_own_than_a_position_counts() {
    let world = World::with_places(2).await;
    let theirs = world.conversation_of(world.user).await;
    world.crowd(world.user, theirs).await;
    let most = 4 * 2 * COUNTED + CROWD / 4;

    let reads = world.reads_of_a_round(world.user).await;
    reads.assert_at_most(most, "with old statistics");
    world.execute("ANALYZE").await;
    let reads = world.reads_of_a_round(world.user).await;
    reads.assert_at_most(most, "with new statistics");
}

/// Positions are counted for those who wait, and only for them.
#[tokio::test]
async fn nobody_is_counted_for_a_message_that_need_not_wait() {
    let world = World::with_places(2).await;
    world
        .execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET track_functions = pl', current_database()); END $$",
        )
        .await;
    let counts = async || -> i64 {
        world.read().await;
        let calls =
            "SELECT COALESCE(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'ahead'";
        world.value(calls).await.parse().unwrap()
    };
    let before = counts().await;
    let conversation = world.conversation_of(world.user).await;
    let message = crate::common::text(conversation, "hello");
    world.send_as(world.user, &message).await;
    assert_eq!(counts().await, before);
    world.send_as(world.user, &message).await;
    assert_eq!(counts().await, before + 1);
}
