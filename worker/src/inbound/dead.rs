//! Events that cannot be used: putting them away with the reason, and an operator's look at them.

use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use serde::Serialize;

use super::{InboundConfig, broker};
use crate::outbound::BrokerConfig;

/// Where the reason stands.
const REASON: &str = "x-balas-reason";
/// The routing key under which it came, for a replay.
const ROUTING_KEY: &str = "x-balas-routing-key";
/// Kept on disk by the broker, in a durable queue.
const PERSISTENT: u8 = 2;
/// So much of an event is shown.
const SHOWN_BYTES: usize = 200;

/// The dead-letter queue.
#[derive(Clone, Debug)]
pub struct DeadEvents {
    /// With confirms.
    channel: Channel,
    exchange: String,
    queue: String,
    live: String,
}

/// An event as an operator sees it.
#[derive(Clone, Debug, Serialize)]
pub struct DeadEvent {
    /// Why it is here; the broker's own word where Balas has not put it here.
    pub reason: String,
    /// The publisher's name for it.
    pub message_id: Option<String>,
    /// The routing key under which it came.
    pub routing_key: String,
    /// The size of its body, in bytes.
    pub bytes: usize,
    /// The beginning of its body, without control characters.
    pub body: String,
}

/// The broker did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeadError {
    /// It refused, or went away.
    #[error(transparent)]
    Broker(#[from] lapin::Error),
    /// It took a message but will not keep it.
    #[error("the broker did not keep the message")]
    NotKept,
}

impl DeadEvents {
    pub(super) fn new(channel: Channel, config: &InboundConfig) -> Self {
        Self {
            channel,
            exchange: config.dead_exchange(),
            queue: config.dead_queue(),
            live: config.queue.clone(),
        }
    }

    /// Connects for an operator. Dropping the connection puts back what was only looked at.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub async fn connect(
        broker: &BrokerConfig,
        config: &InboundConfig,
    ) -> Result<(Self, Connection), DeadError> {
        let connection = broker::connect(broker, "balas-worker admin").await?;
        broker::declare(&connection, config).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok((Self::new(channel, config), connection))
    }

    /// Puts a delivery away and waits until the broker has it.
    pub(super) async fn put(&self, delivery: &Delivery, reason: &str) -> Result<(), DeadError> {
        let mut headers = headers(&delivery.properties);
        let key = delivery.routing_key.as_str();
        for (name, value) in [(REASON, reason), (ROUTING_KEY, key)] {
            let value = AMQPValue::LongString(LongString::from(value));
            headers.insert(ShortString::from(name), value);
        }
        self.publish(&self.exchange, key, delivery, headers).await
    }

    /// The first events, at most so many; they stay where they are.
    ///
    /// # Errors
    /// When the broker goes away.
    pub async fn list(&self, limit: usize) -> Result<Vec<DeadEvent>, DeadError> {
        let mut events = Vec::new();
        while events.len() < limit
            && let Some(message) = self.get().await?
        {
            events.push(shown(&message.delivery));
        }
        Ok(events)
    }

    /// Gives the first events to the live queue again, at most so many, and returns how many. What
    /// comes back meanwhile, because nothing has changed for it, is not tried twice.
    ///
    /// # Errors
    /// When the broker goes away; what it had not confirmed stays.
    pub async fn replay(&self, limit: usize) -> Result<usize, DeadError> {
        let Some(first) = self.get().await? else {
            return Ok(0);
        };
        let waiting = usize::try_from(first.message_count).unwrap_or(usize::MAX);
        let most = waiting.saturating_add(1).min(limit);
        let mut next = Some(first);
        let mut replayed = 0;
        while let Some(message) = next.take() {
            let mut headers = headers(&message.delivery.properties);
            for name in [REASON, ROUTING_KEY] {
                headers = without(headers, name);
            }
            self.publish("", &self.live, &message.delivery, headers)
                .await?;
            let acker = &message.delivery.acker;
            acker.ack(BasicAckOptions::default()).await?;
            replayed += 1;
            if replayed < most {
                next = self.get().await?;
            }
        }
        Ok(replayed)
    }

    async fn get(&self) -> lapin::Result<Option<BasicGetMessage>> {
        let queue = self.queue.as_str().into();
        self.channel
            .basic_get(queue, BasicGetOptions::default())
            .await
    }

    async fn publish(
        &self,
        exchange: &str,
        key: &str,
        delivery: &Delivery,
        headers: FieldTable,
    ) -> Result<(), DeadError> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let mut properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        if let Some(id) = delivery.properties.message_id() {
            properties = properties.with_message_id(id.clone());
        }
        if let Some(kind) = delivery.properties.content_type() {
            properties = properties.with_content_type(kind.clone());
        }
        let publishing = self.channel.basic_publish(
            exchange.into(),
            key.into(),
            options,
            &delivery.data,
            properties,
        );
        match publishing.await?.await? {
            Confirmation::Ack(None) => Ok(()),
            _ => Err(DeadError::NotKept),
        }
    }
}

fn headers(properties: &BasicProperties) -> FieldTable {
    properties.headers().clone().unwrap_or_default()
}

fn without(headers: FieldTable, name: &str) -> FieldTable {
    let mut kept = FieldTable::default();
    for (other, value) in headers.inner() {
        if other.as_str() != name {
            kept.insert(other.clone(), value.clone());
        }
    }
    kept
}

fn text(properties: &BasicProperties, name: &str) -> Option<String> {
    match properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn shown(delivery: &Delivery) -> DeadEvent {
    let properties = &delivery.properties;
    let start = delivery.data.get(..SHOWN_BYTES).unwrap_or(&delivery.data);
    let body = String::from_utf8_lossy(start);
    DeadEvent {
        reason: text(properties, REASON)
            .or_else(|| text(properties, "x-first-death-reason"))
            .unwrap_or_else(|| "unknown".to_owned()),
        message_id: properties.message_id().as_ref().map(ToString::to_string),
        routing_key: text(properties, ROUTING_KEY)
            .unwrap_or_else(|| delivery.routing_key.to_string()),
        bytes: delivery.data.len(),
        body: body.chars().filter(|c| !c.is_control()).collect(),
    }
}
