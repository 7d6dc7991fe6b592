//! Messages to an exchange of RabbitMQ, each confirmed by the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::runtime::default_runtime;
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
};
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;

use super::{AmqpConfig, Outgoing, Refusal};

/// Kept on disk by the broker, in a durable queue.
const PERSISTENT: u8 = 2;
/// Of what went wrong, operators see so many characters.
const ERROR_LENGTH: usize = 200;

/// The broker, connected on demand. lapin's own recovery is off: it would send again what nobody
/// waits for any more, and here every failure has its next try already.
#[derive(Debug)]
pub(super) struct Amqp {
    config: AmqpConfig,
    open: Mutex<Option<Arc<Open>>>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    channel: Channel,
    /// A try on it did not get to its end, so nobody knows what the broker still has to say.
    doubtful: AtomicBool,
}

impl Open {
    fn is_usable(&self) -> bool {
        self.connection.status().connected()
            && self.channel.status().connected()
            && !self.doubtful.load(Ordering::Relaxed)
    }

    /// A broker that runs out of memory or disk reads nothing more from who publishes, and says so. It
    /// would not even read the end of this connection; another one in its place would fare the same.
    fn is_blocked(&self) -> bool {
        let status = self.connection.status();
        status.connected() && status.blocked()
    }
}

/// A connection on which a try ends early, by an error or by the clock, is not used again.
struct Doubt<'a>(Option<&'a Open>);

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(open) = self.0 {
            open.doubtful.store(true, Ordering::Relaxed);
        }
    }
}

impl Amqp {
    pub(super) fn new(config: AmqpConfig) -> Self {
        Self {
            config,
            open: Mutex::new(None),
        }
    }

    /// Publishes it once and waits until the broker has it. A message that no queue takes comes back
    /// and counts as refused: nobody would ever read it.
    pub(super) async fn send(&self, notification: &Outgoing) -> Result<(), Refusal> {
        let open = self.open().await.map_err(|error| refusal(&error))?;
        if open.is_blocked() {
            return Err(Refusal::of("the broker takes no messages: it is blocked"));
        }
        let mut doubt = Doubt(Some(&open));
        let confirmation = self
            .publish(&open.channel, notification)
            .await
            .map_err(|error| refusal(&error))?;
        doubt.0 = None;
        match confirmation {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => {
                Err(Refusal::of("no queue is bound for this routing key"))
            }
            Confirmation::Nack(_) => Err(Refusal::of("the broker refused the message")),
            Confirmation::NotRequested => Err(Refusal::of("the broker does not confirm")),
        }
    }

    async fn publish(
        &self,
        channel: &Channel,
        notification: &Outgoing,
    ) -> lapin::Result<Confirmation> {
        let routing_key = format!("notifications.user.{}", notification.user_id);
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let confirmation = channel
            .basic_publish(
                self.config.exchange.as_str().into(),
                routing_key.into(),
                options,
                &notification.body,
                properties(notification),
            )
            .await?;
        confirmation.await
    }

    /// The connection, opened where there is none that works. One try at a time opens it; the others
    /// wait as long as a try may take. One that is blocked stays, so that its end is noticed.
    async fn open(&self) -> lapin::Result<Arc<Open>> {
        let mut slot = self.open.lock().await;
        let kept = slot.as_ref();
        if let Some(open) = kept.filter(|open| open.is_usable() || open.is_blocked()) {
            return Ok(Arc::clone(open));
        }
        // Dropped before the next is opened: a broker counts connections.
        *slot = None;
        let properties =
            ConnectionProperties::default().with_connection_name("balas-worker".into());
        let authorities = OwnedTLSConfig {
            identity: None,
            cert_chain: self.config.broker.authorities.clone(),
        };
        let (url, runtime) = (self.config.broker.url.expose_secret(), default_runtime()?);
        let connecting = Connection::connect_with_config(url, properties, authorities, runtime);
        let connection = connecting.await?;
        self.declare(&connection).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let open = Arc::new(Open {
            connection,
            channel,
            doubtful: AtomicBool::new(false),
        });
        *slot = Some(Arc::clone(&open));
        Ok(open)
    }

    /// Makes the exchange where there is none. One that is there is taken as it is, and asking for it
    /// needs no right to declare.
    async fn declare(&self, connection: &Connection) -> lapin::Result<()> {
        let declare = async |options: ExchangeDeclareOptions| {
            // An exchange that is not there closes the channel on which it was asked for.
            let channel = connection.create_channel().await?;
            let name = self.config.exchange.as_str().into();
            channel
                .exchange_declare(name, ExchangeKind::Topic, options, FieldTable::default())
                .await
        };
        let passive = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        if declare(passive).await.is_ok() {
            return Ok(());
        }
        declare(ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        })
        .await
    }
}

fn properties(notification: &Outgoing) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("x-request-id", &notification.request_id),
        ("traceparent", &notification.traceparent),
    ] {
        if let Some(value) = value {
            let value = AMQPValue::LongString(LongString::from(value.as_str()));
            headers.insert(ShortString::from(name), value);
        }
    }
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(notification.id.to_string().into())
        .with_type(notification.kind.as_str().into())
        .with_app_id("balas".into())
        .with_headers(headers)
}

fn refusal(error: &lapin::Error) -> Refusal {
    let text = format!("no connection: {error}");
    Refusal::of(text.chars().take(ERROR_LENGTH).collect::<String>())
}
