//! From an event on RabbitMQ to a ready conversation: a real worker, a real broker, events published
//! by a client that is not ours.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets something unexpected must fail where it does"
)]

#[path = "../notifications/broker.rs"]
#[expect(dead_code, reason = "these tests use their own part of it")]
mod broker;
#[path = "../common/mod.rs"]
mod common;
mod dead;
mod dlq;
mod events;
mod postgres;
mod publisher;
#[path = "../notifications/receiver.rs"]
#[expect(dead_code, reason = "these tests use their own part of it")]
mod receiver;
mod storm;
mod welcomes;

use common::{Fleet, TestWorker};
use serde_json::{Value, json};
use shared::config::Vars;
use uuid::Uuid;

use crate::publisher::Publisher;

/// A worker that consumes from an exchange and a queue of the test's own.
pub(crate) struct Consuming {
    pub(crate) fleet: Fleet,
    pub(crate) url: String,
    pub(crate) exchange: String,
    pub(crate) queue: String,
    pub(crate) publisher: Publisher,
    pub(crate) worker: Option<TestWorker>,
}

impl Consuming {
    /// None where this machine has no broker or no pika.
    pub(crate) async fn new(settings: &[(&'static str, &str)]) -> Option<Self> {
        let url: String =
            Vars::from_process().optional("TEST_RABBITMQ_URL", "set by cargo xtask test")?;
        let name = Uuid::new_v4().simple().to_string();
        let (exchange, queue) = (format!("test-{name}"), format!("events-{name}"));
        let publisher = Publisher::start(&url, &exchange)?;
        let fleet = Fleet::new().await;
        let mut consuming = Self {
            fleet,
            url,
            exchange,
            queue,
            publisher,
            worker: None,
        };
        consuming.start(settings);
        consuming.until_declared().await;
        Some(consuming)
    }

    /// Starts the worker that consumes.
    pub(crate) fn start(&mut self, settings: &[(&'static str, &str)]) {
        let own = [
            ("RABBITMQ_URL", self.url.as_str()),
            ("INBOUND_ENABLED", "true"),
            ("EXCHANGE_NAME", &self.exchange),
            ("CHAT_QUEUE_NAME", &self.queue),
        ];
        let settings: Vec<_> = own.iter().chain(settings).copied().collect();
        self.worker = Some(self.fleet.worker_with("consumer", &settings));
    }

    /// What is published before the queue is bound goes nowhere.
    async fn until_declared(&self) {
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(&self.url, properties)
            .await
            .unwrap();
        let passive = lapin::options::QueueDeclareOptions {
            passive: true,
            ..lapin::options::QueueDeclareOptions::default()
        };
        self.fleet
            .until(async || {
                let channel = connection.create_channel().await.ok()?;
                let table = lapin::types::FieldTable::default();
                let queue = self.queue.as_str().into();
                let found = channel.queue_declare(queue, passive, table).await.ok()?;
                (found.consumer_count() > 0).then_some(())
            })
            .await;
    }

    /// The one value of a query, or nothing.
    pub(crate) async fn read(&self, sql: &str) -> String {
        self.fleet.env.value(sql).await.unwrap_or_default()
    }

    /// Waits until the query gives this.
    pub(crate) async fn becomes(&self, sql: &str, expected: &str) {
        self.fleet
            .until(async || (self.read(sql).await == expected).then_some(()))
            .await;
    }
}

pub(crate) fn results() -> Value {
    json!({
        "riasec": { "R": 85, "I": 92, "A": 78, "S": 60, "E": 41, "C": 55 },
        "ocean": { "O": 88, "C": 75, "E": 82, "A": 70, "N": 30 },
        "viaIs": { "curiosity": 95, "prudence": 21 },
        "personaProfile": { "summary": "Orang ini adalah pembelajar yang ingin tahu dan suka mencipta." },
    })
}

pub(crate) fn complete(user: Uuid, assessment: Uuid) -> Value {
    json!({
        "event": "analysis_complete", "user_id": user, "assessment_id": assessment,
        "results": results(), "occurred_at": "2026-11-01T08:00:00Z",
    })
}
