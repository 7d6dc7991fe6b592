//! A caller may be dropped at any await, as every request's and every job's is. Whatever it had
//! begun, no connection may come back to the pool with a transaction open or with another scope's
//! settings.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod common;

use std::time::Duration;

use common::{World, claimer, until};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use shared::clock::Clock;
use shared::id;
use shared::store::{Db, ServingRole, StoreResult, UserTx, generations, ledger, maintenance};
use uuid::Uuid;

/// Notes with what settings the statements of a test ran.
const NOTES: &str = "
    CREATE TABLE public.notes (person text, sweep text, durable text, began timestamptz, role text);
    CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO public.notes VALUES (current_setting('app.current_user_id', true), current_setting('app.sweep', true),
                                         current_setting('synchronous_commit'), now(), current_setting('role'));
        RETURN COALESCE(NEW, OLD);
    END $$;
    CREATE TRIGGER note BEFORE INSERT ON chat.usage_tracking FOR EACH ROW EXECUTE FUNCTION public.note();
    CREATE TRIGGER note BEFORE DELETE ON chat.idempotency_keys FOR EACH ROW EXECUTE FUNCTION public.note();";

/// What a transaction that began after all others were dropped saw of itself.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    person: String,
    sweep: String,
    durable: String,
    role: String,
    /// Whether it began when it was asked to and not before.
    own: bool,
}

/// Polls the future so often, with a pause after each, and drops it.
async fn abandon<T>(work: impl Future<Output = T>, polls: u32, pause: Duration) -> Option<T> {
    let mut work = Box::pin(work);
    for _ in 0..polls {
        if let Some(done) = futures::FutureExt::now_or_never(work.as_mut()) {
            return Some(done);
        }
        tokio::time::sleep(pause).await;
    }
    None
}

/// Stores something of the person's.
async fn book(tx: &mut UserTx) -> StoreResult<()> {
    let now = Clock::system().now();
    let wasted = ledger::Used {
        id: id::new(now),
        conversation_id: tx.user_id(),
        generation_id: tx.user_id(),
        operation: "completion",
        usage: &common::usage(),
        wasted: true,
    };
    ledger::used(tx, &wasted).await
}

/// Everything that begins a transaction, followed by work and a commit.
async fn some_transaction(db: &Db, which: u32, user: Uuid) -> StoreResult<()> {
    match which {
        0 => {
            let mut tx = db.user(user).await?;
            generations::find(&mut tx, user).await?;
            tx.commit().await
        }
        1 => {
            let mut tx = db.user_async(user).await?;
            book(&mut tx).await?;
            tx.commit().await
        }
        2 => {
            let mut tx = db.sweep().await?;
            generations::expired_leases(&mut tx, 10, std::time::Duration::ZERO).await?;
            tx.commit().await
        }
        3 => {
            let mut tx = db.sweep_statement().await?;
            generations::claim_ready(
                &mut tx,
                &generations::Room::for_any(10),
                &claimer("w", Duration::from_secs(1)),
            )
            .await?;
            tx.commit().await
        }
        // A transaction that is dropped instead of committed.
        _ => {
            let mut tx = db.sweep_async().await?;
            generations::renew(&mut tx, &[(user, user)], Duration::from_secs(1)).await?;
            Ok(())
        }
    }
}

struct Rig {
    world: World,
    /// A worker's connections, few enough that each is used again at once.
    db: Db,
}

impl Rig {
    async fn new(connections: u32) -> Self {
        let world = World::new().await;
        world.execute(NOTES).await;
        // Whatever the server's own setting, so that a transaction that does not wait for the disk
        // differs from one that does.
        world
            .execute("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = on', current_database()); END $$")
            .await;
        let mut config = world.env.db_config();
        config.pool_max = connections;
        let db = Db::connect_lazy(&config, ServingRole::Worker).unwrap();
        Self { world, db }
    }

    /// The database's time.
    async fn now(&self) -> String {
        self.world.value("SELECT clock_timestamp()").await
    }

    async fn seen(&self, since: &str) -> Seen {
        let mut session = self.world.env.session().await;
        let sql = format!(
            "WITH note AS (DELETE FROM public.notes RETURNING *)
             SELECT COALESCE(person, ''), COALESCE(sweep, ''), durable, role, (began >= '{since}')::text
             FROM note ORDER BY began DESC LIMIT 1"
        );
        let mut rows = session.rows(&sql).await.unwrap();
        let mut texts = rows.remove(0).into_iter().map(Option::unwrap);
        let mut next = || texts.next().unwrap();
        Seen {
            person: next(),
            sweep: next(),
            durable: next(),
            role: next(),
            own: next() == "true",
        }
    }

    /// The next person's transaction sees its own settings and nothing else.
    async fn check_user(&self, what: &str) {
        let since = self.now().await;
        let user = Uuid::new_v4();
        let mut tx = self.db.user(user).await.unwrap();
        book(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        let expected = Seen {
            person: user.to_string(),
            sweep: String::new(),
            durable: "on".to_owned(),
            role: "balas_worker".to_owned(),
            own: true,
        };
        assert_eq!(self.seen(&since).await, expected, "after {what}");
    }

    /// The next sweep too.
    async fn check_sweep(&self, what: &str) {
        self.world
            .execute(&format!(
                "INSERT INTO chat.idempotency_keys (user_id, key, fingerprint, status, body, created_at)
                 VALUES ('{}', 'old', '', 200, '', now() - interval '2 days')",
                Uuid::new_v4()
            ))
            .await;
        let since = self.now().await;
        let mut tx = self.db.sweep().await.unwrap();
        assert_eq!(
            maintenance::expire_idempotency_keys(&mut tx, 10)
                .await
                .unwrap(),
            1,
            "after {what}"
        );
        tx.commit().await.unwrap();
        let expected = Seen {
            person: String::new(),
            sweep: "on".to_owned(),
            durable: "on".to_owned(),
            role: "balas_worker".to_owned(),
            own: true,
        };
        assert_eq!(self.seen(&since).await, expected, "after {what}");
    }

    /// No transaction stays open once nobody holds one.
    async fn check_idle(&self) {
        until("no transaction is open", async || {
            let open = self
                .world
                .value(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                       AND application_name = 'balas-worker' AND (xact_start IS NOT NULL OR state <> 'idle')",
                )
                .await;
            (open == "0").then_some(())
        })
        .await;
    }

    async fn rounds(&self, seed: u64, rounds: u32) {
        let mut random = StdRng::seed_from_u64(seed);
        for round in 0..rounds {
            let which = random.random_range(0..5);
            let polls = random.random_range(1..12);
            let pause = Duration::from_micros(random.random_range(0..400));
            let work = some_transaction(&self.db, which, Uuid::new_v4());
            let done = abandon(work, polls, pause).await;
            let what =
                format!("round {round}: transaction {which}, {polls} polls, {pause:?}, {done:?}");
            assert!(done.is_none_or(|outcome| outcome.is_ok()), "{what}");
            if random.random() {
                self.check_user(&what).await;
            } else {
                self.check_sweep(&what).await;
            }
        }
        self.check_idle().await;
    }
}

#[tokio::test]
async fn a_dropped_caller_leaves_nothing_on_the_only_connection() {
    Rig::new(1).await.rounds(1, 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_caller_leaves_nothing_on_two_connections() {
    let rig = Rig::new(2).await;
    let mut random = StdRng::seed_from_u64(2);
    for round in 0..150 {
        // Three callers for two connections: one is dropped while it waits for a connection.
        let abandoned = (0..3).map(|_| {
            let which = random.random_range(0..5);
            let polls = random.random_range(1..10);
            let pause = Duration::from_micros(random.random_range(0..500));
            abandon(
                some_transaction(&rig.db, which, Uuid::new_v4()),
                polls,
                pause,
            )
        });
        for done in futures::future::join_all(abandoned)
            .await
            .into_iter()
            .flatten()
        {
            done.unwrap();
        }
        rig.check_user(&format!("round {round}")).await;
        rig.check_sweep(&format!("round {round}")).await;
    }
    rig.check_idle().await;
}

/// A commit that was asked for and not waited for happens or does not; it is never half of it.
#[tokio::test]
async fn a_dropped_commit_is_whole_or_nothing() {
    let rig = Rig::new(1).await;
    for polls in 1..40 {
        let work = async {
            let mut tx = rig.db.user(rig.world.user).await?;
            book(&mut tx).await?;
            book(&mut tx).await?;
            tx.commit().await
        };
        let done = abandon(work, polls, Duration::from_micros(150)).await;
        // The next transaction on the only connection comes after whatever became of that one.
        rig.check_user(&format!("{polls} polls")).await;
        let sql = format!(
            "SELECT count(*) FROM chat.usage_tracking WHERE user_id = '{}'",
            rig.world.user
        );
        let rows = rig.world.value(&sql).await;
        let whole = rows == "2" || (rows == "0" && done.is_none());
        assert!(whole, "{rows} rows after {polls} polls, {done:?}");
        rig.world.execute("DELETE FROM chat.usage_tracking").await;
    }
}

/// As a process does that is frozen, or whose machine is gone without a word.
#[tokio::test]
async fn who_stands_still_in_a_transaction_loses_it_and_its_locks() {
    let world = World::new().await;
    let mut frozen = world.worker.sweep().await.unwrap();
    assert!(
        maintenance::try_lock(&mut frozen, "reconcile")
            .await
            .unwrap()
    );
    until("another worker may sweep", async || {
        let mut tx = world.worker.sweep().await.unwrap();
        let free = maintenance::try_lock(&mut tx, "reconcile").await.unwrap();
        free.then_some(())
    })
    .await;
    assert!(frozen.commit().await.unwrap_err().is_unavailable());

    let conversation = world.conversation().await;
    let mut frozen = world.api.user(world.user).await.unwrap();
    assert!(
        generations::lock_conversation(&mut frozen, conversation)
            .await
            .unwrap()
    );
    let mut other = world.api.user(world.user).await.unwrap();
    let locked = generations::lock_conversation(&mut other, conversation);
    assert!(common::in_time("the lock is free", locked).await.unwrap());
    assert!(frozen.commit().await.unwrap_err().is_unavailable());
}
