//! Many assessments at once, and a broker or a database that dies in their middle.

use std::time::Duration;

use rand::seq::SliceRandom as _;
use shared::testing::TestEnv;
use uuid::Uuid;

use crate::broker::OwnBroker;
use crate::common::{Fleet, TestWorker};
use crate::complete;
use crate::postgres::OwnPostgres;
use crate::publisher::Publisher;

const ASSESSMENTS: usize = 1_000;
/// Those of the database's test: it is the slower one to come back, and meanwhile nothing moves.
const FEWER_ASSESSMENTS: usize = 400;
/// How long the whole may take on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(200);

/// A fleet with a broker of its own, and a publisher.
struct Storm {
    fleet: Fleet,
    broker: OwnBroker,
    publisher: Publisher,
    _worker: TestWorker,
}

impl Storm {
    /// None where this machine has no broker or no pika.
    async fn over(fleet: Fleet) -> Option<Self> {
        let broker = OwnBroker::start(&fleet).await?;
        let url = broker.url();
        let publisher = Publisher::start(&url, "atma_exchange")?;
        let settings = [
            ("RABBITMQ_URL", url.as_str()),
            ("INBOUND_ENABLED", "true"),
            ("WORKER_CONCURRENCY", "64"),
            // Everything at once is more than a person's places allow otherwise.
            ("INBOUND_PREFETCH", "32"),
        ];
        let worker = fleet.worker_with("consumer", &settings);
        fleet
            .until(async || {
                let queues = broker.control(&["list_queues", "name", "consumers"]);
                queues.contains("chat_events\t1").then_some(())
            })
            .await;
        Some(Self {
            fleet,
            broker,
            publisher,
            _worker: worker,
        })
    }

    /// Hands over the events of so many assessments, each twice and in any order.
    fn publish(&mut self, assessments: usize) {
        let mut events = Vec::new();
        for _ in 0..assessments {
            let event = complete(Uuid::new_v4(), Uuid::new_v4()).to_string();
            events.extend([("chat.events", event.clone()), ("analysis.complete", event)]);
        }
        events.shuffle(&mut rand::rng());
        self.publisher.hand_over(events);
    }

    async fn count(&self, sql: &str) -> usize {
        self.fleet.env.value(sql).await.unwrap().parse().unwrap()
    }

    /// Waits until the query counts so many.
    async fn reaches(&self, sql: &str, expected: usize) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let count = self.count(sql).await;
            if count >= expected {
                break;
            }
            let is_late = tokio::time::Instant::now() >= deadline;
            assert!(!is_late, "{count} of {expected}: {sql}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all are ready, and looks whether one was lost or doubled.
    async fn ends_with(&self, assessments: usize) {
        let ready = "SELECT count(*) FROM chat.assessments WHERE stage = 'chatbot_ready'";
        self.reaches(ready, assessments).await;
        // What is delivered again is in the inbox.
        self.fleet
            .until(async || {
                let queues = self.broker.control(&["list_queues", "name", "messages"]);
                queues.contains("chat_events\t0").then_some(())
            })
            .await;
        for (what, sql) in [
            ("conversations", "SELECT count(*) FROM chat.conversations"),
            (
                "welcomes",
                "SELECT count(*) FROM chat.messages WHERE metadata ->> 'type' = 'assessment_welcome'",
            ),
            ("messages", "SELECT count(*) FROM chat.messages"),
            (
                "generations",
                "SELECT count(*) FROM chat.generations WHERE status = 'completed'",
            ),
            ("events", "SELECT count(*) FROM chat.inbound_events"),
        ] {
            assert_eq!(self.count(sql).await, assessments, "{what}");
        }
        let dead = self.broker.control(&["list_queues", "name", "messages"]);
        assert!(dead.contains("chat_events.dlq\t0"), "{dead}");
        self.fleet.check_invariants().await;
    }
}

#[tokio::test]
async fn a_broker_that_is_killed_in_the_middle_loses_and_doubles_nothing() {
    let Some(mut storm) = Storm::over(Fleet::new().await).await else {
        return;
    };
    storm.publish(ASSESSMENTS);
    for at in 0..2 * ASSESSMENTS {
        storm.publisher.confirmed().await;
        if at == ASSESSMENTS * 2 / 3 {
            storm.broker.kill();
            storm.broker.start_again(&storm.fleet).await;
        }
    }
    storm.ends_with(ASSESSMENTS).await;
}

#[tokio::test]
async fn a_database_that_dies_twice_in_the_middle_loses_and_doubles_nothing() {
    let mut postgres = OwnPostgres::start().await;
    let fleet = Fleet::of(TestEnv::on(postgres.url()).await).await;
    let Some(mut storm) = Storm::over(fleet).await else {
        return;
    };
    storm.publish(FEWER_ASSESSMENTS);
    let taken = "SELECT count(*) FROM chat.inbound_events";
    for (third, death) in [
        (1, OwnPostgres::stop_at_once as fn(&mut OwnPostgres)),
        (2, OwnPostgres::kill),
    ] {
        storm.reaches(taken, FEWER_ASSESSMENTS * third / 3).await;
        death(&mut postgres);
        // Long enough for what is on its way to find nobody.
        tokio::time::sleep(Duration::from_secs(2)).await;
        postgres.start_again().await;
        let taken = storm.count(taken).await;
        assert!(taken < FEWER_ASSESSMENTS, "it did not die in the middle");
    }
    for _ in 0..2 * FEWER_ASSESSMENTS {
        storm.publisher.confirmed().await;
    }
    storm.ends_with(FEWER_ASSESSMENTS).await;
}
