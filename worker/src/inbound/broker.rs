//! A connection to the broker, with everything declared that is needed.

use lapin::options::{
    BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::runtime::default_runtime;
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use secrecy::ExposeSecret as _;

use super::{DeadEvents, InboundConfig};
use crate::outbound::BrokerConfig;

/// Events of any stage of an analysis.
const ANALYSIS_EVENTS: &str = "analysis.*";

/// An open connection, which ends with this.
pub(super) struct Open {
    pub(super) consumer: Consumer,
    pub(super) channel: Channel,
    pub(super) dead: DeadEvents,
    _connection: Connection,
}

pub(super) async fn connect(broker: &BrokerConfig, name: &str) -> lapin::Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let authorities = OwnedTLSConfig {
        identity: None,
        cert_chain: broker.authorities.clone(),
    };
    let (url, runtime) = (broker.url.expose_secret(), default_runtime()?);
    Connection::connect_with_config(url, properties, authorities, runtime).await
}

/// Connects, declares and begins to consume.
pub(super) async fn open(broker: &BrokerConfig, config: &InboundConfig) -> lapin::Result<Open> {
    let connection = connect(broker, "balas-worker events").await?;
    declare(&connection, config).await?;
    let confirmed = connection.create_channel().await?;
    confirmed
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let channel = connection.create_channel().await?;
    channel
        .basic_qos(config.prefetch, BasicQosOptions::default())
        .await?;
    let consumer = channel
        .basic_consume(
            config.queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    Ok(Open {
        consumer,
        channel,
        dead: DeadEvents::new(confirmed, config),
        _connection: connection,
    })
}

/// Makes what is not there; what is there is taken as it is, and asking for it needs no right to
/// declare.
pub(super) async fn declare(connection: &Connection, config: &InboundConfig) -> lapin::Result<()> {
    let dead_exchange = config.dead_exchange();
    let dead_queue = config.dead_queue();
    exchange(connection, &config.exchange, ExchangeKind::Topic).await?;
    exchange(connection, &dead_exchange, ExchangeKind::Fanout).await?;
    queue(connection, &dead_queue, FieldTable::default()).await?;
    bind(connection, &dead_queue, &dead_exchange, "").await?;
    // Whatever the broker itself gives up goes there as well.
    let mut arguments = FieldTable::default();
    arguments.insert(
        ShortString::from("x-dead-letter-exchange"),
        AMQPValue::LongString(LongString::from(dead_exchange)),
    );
    queue(connection, &config.queue, arguments).await?;
    for key in [config.routing_key.as_str(), ANALYSIS_EVENTS] {
        bind(connection, &config.queue, &config.exchange, key).await?;
    }
    Ok(())
}

async fn exchange(connection: &Connection, name: &str, kind: ExchangeKind) -> lapin::Result<()> {
    let declare = async |options: ExchangeDeclareOptions| {
        // An exchange that is not there closes the channel on which it was asked for.
        let channel = connection.create_channel().await?;
        channel
            .exchange_declare(name.into(), kind.clone(), options, FieldTable::default())
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

async fn queue(connection: &Connection, name: &str, arguments: FieldTable) -> lapin::Result<()> {
    let declare = async |options: QueueDeclareOptions, arguments: FieldTable| {
        let channel = connection.create_channel().await?;
        channel
            .queue_declare(name.into(), options, arguments)
            .await
            .map(drop)
    };
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    if declare(passive, FieldTable::default()).await.is_ok() {
        return Ok(());
    }
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    declare(durable, arguments).await
}

async fn bind(
    connection: &Connection,
    queue: &str,
    exchange: &str,
    key: &str,
) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
}
