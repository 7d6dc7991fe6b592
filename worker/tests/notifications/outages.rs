//! A broker that dies, that takes nothing, or that shows a certificate of its own.

use crate::broker::{EXCHANGE, OwnBroker};
use crate::common::{Fleet, TestWorker};

impl Fleet {
    async fn telling_broker(&self, url: &str, settings: &[(&'static str, &str)]) -> TestWorker {
        let usual = [
            ("NOTIFICATION_TRANSPORT", "amqp"),
            ("RABBITMQ_URL", url),
            ("NOTIFICATION_EXCHANGE", EXCHANGE),
        ];
        let settings: Vec<_> = usual.iter().chain(settings).copied().collect();
        let worker = self.worker_with("w1", &settings);
        self.switched_on().await;
        worker
    }

    /// Waits until something waits to be told, for a reason like this.
    async fn untold(&self, reason: &str) {
        let sql = format!("SELECT last_error LIKE '%{reason}%' FROM chat.notifications LIMIT 1");
        self.becomes(&sql, "true").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_killed_gets_everything_once_it_is_back() {
    let fleet = Fleet::new().await;
    let Some(mut broker) = OwnBroker::start(&fleet).await else {
        return;
    };
    let _worker = fleet.telling_broker(&broker.url(), &[]).await;
    let conversation = fleet.conversation().await;
    fleet.replied(conversation, "before").await;
    fleet.all_told().await;
    broker.kill();
    for content in ["meanwhile", "still"] {
        fleet.replied(conversation, content).await;
    }
    fleet.untold("no connection").await;
    broker.start_again(&fleet).await;
    fleet.all_told().await;
    // What was confirmed before it died is still there: messages and queue are durable.
    assert_eq!(broker.ids().await.len(), 3);
}

/// A broker without memory or disk reads nothing more from those who publish.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_blocks_publishers_is_waited_for_on_one_connection() {
    let fleet = Fleet::new().await;
    let Some(broker) = OwnBroker::start(&fleet).await else {
        return;
    };
    let settings = [("NOTIFICATION_TIMEOUT", "2")];
    let _worker = fleet.telling_broker(&broker.url(), &settings).await;
    let conversation = fleet.conversation().await;
    fleet.replied(conversation, "before").await;
    fleet.all_told().await;
    broker.control(&["set_vm_memory_high_watermark", "0"]);
    fleet.replied(conversation, "meanwhile").await;
    fleet.untold("blocked").await;
    let attempts = fleet.read("SELECT attempts FROM chat.notifications").await;
    let more = format!("SELECT attempts > {attempts} + 3 FROM chat.notifications");
    fleet.becomes(&more, "true").await;
    let connections = broker.control(&["list_connections", "state", "--no-table-headers"]);
    assert_eq!(connections.lines().count(), 1, "{connections}");
    broker.control(&["set_vm_memory_high_watermark", "0.6"]);
    fleet.all_told().await;
    assert_eq!(broker.ids().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_tls_is_known_by_its_authority() {
    let fleet = Fleet::new().await;
    let Some(broker) = OwnBroker::start(&fleet).await else {
        return;
    };
    let stranger = fleet.telling_broker(&broker.tls_url(), &[]).await;
    let conversation = fleet.conversation().await;
    fleet.replied(conversation, "hello").await;
    fleet.untold("invalid peer certificate").await;
    stranger.stop();
    stranger.ended().await;
    assert!(broker.ids().await.is_empty());
    let authority = broker.authority();
    let settings = [("RABBITMQ_CA_FILE", authority.as_str())];
    let _worker = fleet.telling_broker(&broker.tls_url(), &settings).await;
    fleet.all_told().await;
    assert_eq!(broker.ids().await.len(), 1);
}
