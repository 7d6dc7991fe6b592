//! Workers whose clocks are wrong by an hour: leases, delays and deadlines are the database's.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets something unexpected must fail where it does"
)]

mod common;

use common::{Fleet, TestWorker};
use shared::clock::Clock;
use time::Duration;
use uuid::Uuid;

/// Longer than any lease, delay or deadline of these tests.
const WRONG_BY: Duration = Duration::HOUR;

impl Fleet {
    /// A worker whose clock is wrong, with room for a few replies.
    fn wrong(&mut self, name: &str, by: Duration) -> TestWorker {
        let right = std::mem::replace(&mut self.clock, Clock::wrong(by));
        let settings = [
            ("WORKER_CONCURRENCY", "4"),
            ("STANDARD_SHARE", "100"),
            // Longer than a busy machine is late.
            ("LEASE_SECONDS", "6"),
        ];
        let worker = self.worker_with(name, &settings);
        self.clock = right;
        worker
    }

    /// A reply that stands still.
    async fn hold(&self) -> Uuid {
        let conversation = self.conversation().await;
        let held = self.send(conversation, "[[sim:hold=3]] hello").await.id;
        self.streaming(held).await;
        held
    }

    /// Who makes it.
    async fn holder(&self, id: Uuid) -> String {
        let sql =
            format!("SELECT split_part(worker_id, '/', 1) FROM chat.generations WHERE id = '{id}'");
        self.env.value(&sql).await.unwrap_or_default()
    }

    async fn holds(&self, condition: &str) -> bool {
        let sql = format!("SELECT {condition}");
        self.env.value(&sql).await.as_deref() == Some("true")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_ends_no_lease_early_and_none_late() {
    let mut fleet = Fleet::new().await;
    let ahead = fleet.wrong("ahead", WRONG_BY);
    let first = fleet.hold().await;
    let _behind = fleet.wrong("behind", -WRONG_BY);
    let mut held = vec![first];
    // One of them has no room for all.
    while fleet.holder(held[held.len() - 1]).await == "ahead" {
        held.push(fleet.hold().await);
    }
    // Both hold leases, both look for lost ones, for longer than a lease.
    let since = fleet.env.value("SELECT now()").await.unwrap();
    fleet
        .until(async || {
            let over = format!("now() > '{since}'::timestamptz + interval '7 seconds'");
            fleet.holds(&over).await.then_some(())
        })
        .await;
    let most = "max(attempt) = 1 FROM chat.generations WHERE kind <> 'title'";
    assert!(fleet.holds(most).await);
    // No lease is an hour long, and none has run out.
    let leases = "bool_and(lease_until BETWEEN now() AND now() + interval '6 seconds')
                  FROM chat.generations WHERE status = 'in_progress'";
    assert!(fleet.holds(leases).await);

    ahead.kill();
    let of_ahead = format!("FROM chat.generations WHERE id = '{first}'");
    let until = format!("SELECT lease_until {of_ahead}");
    let until = fleet.env.value(&until).await.unwrap();
    let ended = async |id| {
        fleet
            .until(async || {
                // What is rescued stands still once more.
                fleet.simulator.release();
                let generation = fleet.generation(id).await;
                generation.status.is_terminal().then_some(generation)
            })
            .await
    };
    let by_behind = held.pop().unwrap();
    assert_eq!(ended(by_behind).await.attempts, 1);
    for id in held {
        let rescued = ended(id).await;
        assert!(common::is_completed(&rescued));
        assert_eq!(rescued.attempts, 2);
    }
    // The lease was over before anybody else had it.
    let after = format!("started_at >= '{until}'::timestamptz {of_ahead}");
    assert!(fleet.holds(&after).await);
    fleet.check_invariants().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_puts_nothing_off_and_lets_nothing_expire() {
    for by in [WRONG_BY, -WRONG_BY] {
        let mut fleet = Fleet::new().await;
        let _worker = fleet.wrong("wrong", by);
        let conversation = fleet.conversation().await;
        // Neither model answers at first, so it is put back for some seconds; its deadline is in ten
        // minutes.
        let sent = fleet
            .send(conversation, "[[sim:429,retry_after=2,times=2]] hello")
            .await;
        let ended = fleet.ended(sent.id).await;
        assert!(common::is_completed(&ended), "{ended:?}");
        assert_eq!(ended.attempts, 2, "it was put back");
        fleet.check_invariants().await;
    }
}
