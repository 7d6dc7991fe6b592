//! What the notification service gets: a real worker, a receiver that behaves as badly as a test
//! wants, a real broker.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that meets something unexpected must fail where it does"
)]

mod amqp;
mod broker;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod handoff;
mod http;
mod outages;
#[path = "../../../shared/tests/common/proxy.rs"]
#[expect(dead_code, reason = "these tests use their own part of it")]
mod proxy;
mod receiver;
mod waking;

use common::{Fleet, TestWorker};
use receiver::Receiver;
use uuid::Uuid;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

impl Fleet {
    /// A worker that tells `receiver`, once every end is told.
    async fn telling(&self, name: &str, receiver: &Receiver) -> TestWorker {
        self.telling_with(name, receiver, &[]).await
    }

    async fn telling_with(
        &self,
        name: &str,
        receiver: &Receiver,
        settings: &[(&'static str, &str)],
    ) -> TestWorker {
        let url = receiver.url();
        let usual = [
            ("NOTIFICATION_SERVICE_URL", url.as_str()),
            ("NOTIFICATION_SIGNING_SECRET", SECRET),
            ("NOTIFICATION_SERVICE_KEY", "the key of the service"),
            ("NOTIFICATION_ALLOW_PRIVATE", "true"),
            // Longer than a busy machine is late.
            ("NOTIFICATION_TIMEOUT", "60"),
        ];
        let settings: Vec<_> = usual.iter().chain(settings).copied().collect();
        let worker = self.worker_with(name, &settings);
        self.switched_on().await;
        worker
    }

    async fn switched_on(&self) {
        let enabled = "SELECT tgenabled FROM pg_trigger WHERE tgname = 'notify_ended'";
        self.until(async || {
            let enabled = self.env.value(enabled).await;
            (enabled.as_deref() != Some("D")).then_some(())
        })
        .await;
    }

    /// A message with its reply, told or not yet. Returns the generation.
    async fn replied(&self, conversation: Uuid, content: &str) -> Uuid {
        let sent = self.send(conversation, content).await;
        assert!(common::is_completed(&self.ended(sent.id).await));
        sent.id
    }

    /// Ends every wait, but no claim.
    async fn hurry(&self) {
        let mut session = self.env.session().await;
        for sql in [
            "UPDATE chat.notifications SET next_try_at = now() WHERE claim_token IS NULL AND dead_at IS NULL",
            "UPDATE chat.notification_destinations SET paused_until = '-infinity'",
        ] {
            // Where it gets in a worker's way it may lose; it comes again.
            let _ = session.run(sql).await;
        }
    }

    /// Runs a statement as superuser until it does not get in a worker's way.
    async fn force(&self, sql: &str) {
        self.until(async || self.env.session().await.run(sql).await.ok())
            .await;
    }

    /// The one value of a query, or nothing.
    async fn read(&self, sql: &str) -> String {
        self.env.value(sql).await.unwrap_or_default()
    }

    /// Waits until the query gives this, without waiting for tries to become due.
    async fn becomes(&self, sql: &str, expected: &str) {
        self.until(async || {
            self.hurry().await;
            (self.read(sql).await == expected).then_some(())
        })
        .await;
    }

    /// Waits until everything has been told.
    async fn all_told(&self) {
        self.becomes("SELECT count(*) FROM chat.notifications", "0")
            .await;
    }
}
