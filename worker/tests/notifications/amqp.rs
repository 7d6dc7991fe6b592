//! Told by RabbitMQ.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use shared::config::Vars;
use uuid::Uuid;

use crate::common::{Fleet, TestWorker};
use crate::receiver::Receiver;
use crate::{SECRET, proxy};

/// A broker with an exchange of the test's own; none where this machine has no broker, which
/// `cargo xtask test` says, and with `REQUIRE_ALL` refuses.
struct Broker {
    url: String,
    exchange: String,
    channel: Channel,
    _connection: Connection,
}

impl Broker {
    async fn new() -> Option<Self> {
        let url: String =
            Vars::from_process().optional("TEST_RABBITMQ_URL", "set by cargo xtask test")?;
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        Some(Self {
            url,
            exchange: format!("test-{}", Uuid::new_v4().simple()),
            channel,
            _connection: connection,
        })
    }

    /// A queue that gets what is told of everybody, once the exchange is there. It goes with the
    /// connection.
    async fn bind(&self) -> String {
        let queue = format!("{}-queue", self.exchange);
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        self.channel
            .queue_declare(queue.as_str().into(), options, FieldTable::default())
            .await
            .unwrap();
        self.channel
            .queue_bind(
                queue.as_str().into(),
                self.exchange.as_str().into(),
                "notifications.user.*".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        queue
    }

    async fn exchange(&self) {
        let options = lapin::options::ExchangeDeclareOptions {
            durable: true,
            ..lapin::options::ExchangeDeclareOptions::default()
        };
        let kind = lapin::ExchangeKind::Topic;
        self.channel
            .exchange_declare(
                self.exchange.as_str().into(),
                kind,
                options,
                FieldTable::default(),
            )
            .await
            .unwrap();
    }

    async fn get(&self, queue: &str) -> Option<BasicGetMessage> {
        let options = BasicGetOptions { no_ack: true };
        self.channel.basic_get(queue.into(), options).await.unwrap()
    }

    /// Everything that is in the queue.
    async fn drain(&self, queue: &str) -> Vec<BasicGetMessage> {
        let mut all = Vec::new();
        while let Some(message) = self.get(queue).await {
            all.push(message);
        }
        all
    }

    /// The exchange stays in the broker otherwise.
    async fn clean_up(&self) {
        self.channel
            .exchange_delete(
                self.exchange.as_str().into(),
                ExchangeDeleteOptions::default(),
            )
            .await
            .unwrap();
    }
}

impl Fleet {
    async fn publishing(&self, broker: &Broker, url: &str) -> TestWorker {
        let settings = [
            ("NOTIFICATION_TRANSPORT", "amqp"),
            ("RABBITMQ_URL", url),
            ("NOTIFICATION_EXCHANGE", broker.exchange.as_str()),
            ("NOTIFICATION_TIMEOUT", "60"),
        ];
        let worker = self.worker_with("w1", &settings);
        self.switched_on().await;
        worker
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ways_tell_the_same_bytes_under_the_same_id() {
    let Some(broker) = Broker::new().await else {
        return;
    };
    let fleet = Fleet::new().await;
    broker.exchange().await;
    let queue = broker.bind().await;
    let receiver = Receiver::new().await;
    let settings = [
        ("NOTIFICATION_TRANSPORT", "both"),
        ("NOTIFICATION_SIGNING_SECRET", SECRET),
        ("RABBITMQ_URL", broker.url.as_str()),
        ("NOTIFICATION_EXCHANGE", broker.exchange.as_str()),
    ];
    let _worker = fleet.telling_with("w1", &receiver, &settings).await;
    let conversation = fleet.conversation().await;
    let mut generations = Vec::new();
    for number in 0..3 {
        generations.push(fleet.replied(conversation, &number.to_string()).await);
    }
    fleet.all_told().await;
    let mut messages = broker.drain(&queue).await;
    messages.dedup_by_key(|message| message.data.clone());
    let mut requests = receiver.requests();
    requests.dedup_by_key(|request| request.id());
    assert_eq!((messages.len(), requests.len()), (3, 3));
    for (message, request) in messages.iter().zip(&requests) {
        assert_eq!(message.data, request.body);
        let properties = &message.properties;
        let id = properties.message_id().as_ref().unwrap();
        assert_eq!(id.as_str(), request.id());
        assert_eq!(*properties.delivery_mode(), Some(2));
        let kind = properties.kind().as_ref().unwrap();
        assert_eq!(kind.as_str(), "chat.generation.completed");
        let headers = properties.headers().as_ref().unwrap();
        let request_id = headers.inner().get("x-request-id").unwrap();
        let expected = AMQPValue::LongString("request-1".into());
        assert_eq!(request_id, &expected);
        let routing_key = format!("notifications.user.{}", fleet.user);
        assert_eq!(message.routing_key.as_str(), routing_key);
    }
    let heard: Vec<String> = requests
        .iter()
        .map(|request| request.generation())
        .collect();
    let sent: Vec<String> = generations.iter().map(Uuid::to_string).collect();
    assert_eq!(heard, sent);
    broker.clean_up().await;
}

/// An exchange is made where there is none; a message that no queue takes is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_queue_takes_waits_until_one_does() {
    let Some(broker) = Broker::new().await else {
        return;
    };
    let fleet = Fleet::new().await;
    let _worker = fleet.publishing(&broker, &broker.url).await;
    let conversation = fleet.conversation().await;
    fleet.replied(conversation, "hello").await;
    fleet
        .becomes(
            "SELECT last_error FROM chat.notifications",
            "no queue is bound for this routing key",
        )
        .await;
    let queue = broker.bind().await;
    fleet.all_told().await;
    assert!(!broker.drain(&queue).await.is_empty());
    broker.clean_up().await;
}

/// The broker has it, and its answer is lost with the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_that_is_lost_means_the_same_again() {
    let Some(broker) = Broker::new().await else {
        return;
    };
    let fleet = Fleet::new().await;
    broker.exchange().await;
    let queue = broker.bind().await;
    let lose = Arc::new(AtomicBool::new(false));
    let server = proxy::server_of(&broker.url);
    let between = proxy::losing(server, Arc::clone(&lose)).await;
    let url = proxy::url_at(&broker.url, between.address);
    let _worker = fleet.publishing(&broker, &url).await;
    let conversation = fleet.conversation().await;
    fleet.replied(conversation, "first").await;
    fleet.all_told().await;
    assert!(!broker.drain(&queue).await.is_empty());
    lose.store(true, Ordering::SeqCst);
    fleet.replied(conversation, "second").await;
    fleet.all_told().await;
    assert!(!lose.load(Ordering::SeqCst), "something was lost");
    let mut messages = broker.drain(&queue).await;
    assert!(!messages.is_empty());
    messages.dedup_by_key(|message| message.data.clone());
    assert_eq!(messages.len(), 1, "every copy has the same bytes");
    broker.clean_up().await;
}

/// A channel that the broker closed is not used again.
#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_was_deleted_is_made_again() {
    let Some(broker) = Broker::new().await else {
        return;
    };
    let fleet = Fleet::new().await;
    broker.exchange().await;
    broker.bind().await;
    let _worker = fleet.publishing(&broker, &broker.url).await;
    let conversation = fleet.conversation().await;
    fleet.replied(conversation, "first").await;
    fleet.all_told().await;
    broker.clean_up().await;
    fleet.replied(conversation, "second").await;
    fleet
        .becomes(
            "SELECT last_error FROM chat.notifications",
            "no queue is bound for this routing key",
        )
        .await;
    let queue = broker.bind().await;
    fleet.all_told().await;
    let ids: HashSet<_> = broker
        .drain(&queue)
        .await
        .into_iter()
        .map(|message| message.data.clone())
        .collect();
    assert_eq!(ids.len(), 2);
    broker.clean_up().await;
}

/// A broker that does not answer holds nothing up for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_hangs_is_given_up_and_tried_again() {
    let fleet = Fleet::new().await;
    let silent = proxy::silent().await;
    let url = format!("amqp://guest:guest@{}/%2f", silent.address);
    let settings = [
        ("NOTIFICATION_TRANSPORT", "amqp"),
        ("RABBITMQ_URL", url.as_str()),
        ("NOTIFICATION_TIMEOUT", "1"),
    ];
    let _worker = fleet.worker_with("w1", &settings);
    fleet.switched_on().await;
    let conversation = fleet.conversation().await;
    fleet.replied(conversation, "hello").await;
    fleet
        .becomes(
            "SELECT attempts > 1 AND last_error = 'timeout' FROM chat.notifications",
            "true",
        )
        .await;
}
