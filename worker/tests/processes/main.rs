//! Workers as processes: signals, restarts, namesakes, and one that is deaf.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that meets something unexpected must fail where it does, and waits for its own tasks"
)]

#[path = "../common/mod.rs"]
mod common;
mod deaf;
mod identity;
mod logs;
mod process;
mod stopping;

use common::Fleet;
use shared::domain::Generation;
use uuid::Uuid;

/// Waiting for a lease to run out would hang.
const LONG: (&str, &str) = ("LEASE_SECONDS", "3600");
/// A reply that stands still the first time it is made, until the simulator releases it.
const HELD: &str = "[[sim:hold=2,processing=1000,times=1]]";

impl Fleet {
    /// Sends messages in conversations of their own, whose replies stand still, and waits until all are
    /// being made.
    pub(crate) async fn held(&self, count: usize) -> Vec<Uuid> {
        let mut ids = Vec::new();
        for number in 0..count {
            let conversation = self.conversation().await;
            let question = format!("Question {number}. {HELD}");
            ids.push(self.send(conversation, &question).await.id);
        }
        let running = "SELECT count(*) FROM chat.generations WHERE status = 'in_progress'";
        let all = count.to_string();
        self.until(async || {
            let in_flight = self.simulator.stats().in_flight as usize;
            let is_running = self.env.value(running).await == Some(all.clone());
            (in_flight >= count && is_running).then_some(())
        })
        .await;
        ids
    }

    /// Waits until the register says of a worker what `column` stands for.
    pub(crate) async fn register(&self, name: &str, what: &str) {
        let sql = format!("SELECT count(*) > 0 FROM chat.workers WHERE name = '{name}' AND {what}");
        self.until(async || (self.env.value(&sql).await? == "true").then_some(()))
            .await;
    }

    /// Waits for the end of all, and returns how they are.
    pub(crate) async fn all_ended(&self, ids: &[Uuid]) -> Vec<Generation> {
        let mut ended = Vec::new();
        for id in ids {
            let generation = self.ended(*id).await;
            assert!(common::is_completed(&generation), "{generation:?}");
            ended.push(generation);
        }
        self.check_invariants().await;
        ended
    }

    /// The attempts that counted, of all replies: those that were given back do not.
    pub(crate) async fn counted(&self) -> String {
        let sql = "SELECT string_agg(DISTINCT (attempt - forgiven)::text, ' ')
                   FROM chat.generations WHERE kind = 'reply'";
        self.env.value(sql).await.unwrap()
    }
}
