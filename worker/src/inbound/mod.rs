//! Events of other services: the analysis worker tells by RabbitMQ how far an assessment is.
//!
//! **Rule:** a delivery is acknowledged after the commit that did its work, so none is lost whoever
//! dies; a repetition finds its event in the inbox and changes nothing. What cannot be understood goes
//! to the dead-letter queue with the reason in a header, once the broker has confirmed that it is there.

mod broker;
mod config;
mod dead;
mod event;
mod handle;

pub use config::InboundConfig;
pub use dead::{DeadEvent, DeadEvents};

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicCancelOptions};
use rand::RngExt as _;
use tokio_util::sync::CancellationToken;

use self::broker::Open;
use self::event::Refusal;
use crate::context::Context;
use crate::outbound::BrokerConfig;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A connection may take so long to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// What is being done may take so long when the worker stops; the rest is delivered again.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Consumes until told to stop, reconnecting for ever; returns when `ended`.
pub async fn run(context: Arc<Context>, stopping: CancellationToken, ended: CancellationToken) {
    match context.config.notifications.broker.clone() {
        Some(_) if !context.config.inbound.enabled => {
            tracing::info!("events are left to other workers: INBOUND_ENABLED is false");
        }
        Some(broker) => consume(&context, &broker, &stopping).await,
        None => tracing::info!("no events are consumed: RABBITMQ_URL is not set"),
    }
    // Nothing to consume is no reason to end before the process does.
    ended.cancelled().await;
}

async fn consume(context: &Context, broker: &BrokerConfig, stopping: &CancellationToken) {
    let mut pause = FIRST_PAUSE;
    while !stopping.is_cancelled() {
        let connecting = broker::open(broker, &context.config.inbound);
        let connecting = tokio::time::timeout(CONNECT_WITHIN, connecting);
        match stopping.run_until_cancelled(connecting).await {
            None => break,
            Some(Ok(Ok(open))) => {
                tracing::info!(queue = context.config.inbound.queue, "consuming events");
                pause = FIRST_PAUSE;
                metrics::gauge!(shared::metrics::INBOUND_CONNECTED).set(1.0);
                consume_from(context, open, stopping).await;
                metrics::gauge!(shared::metrics::INBOUND_CONNECTED).set(0.0);
                if !stopping.is_cancelled() {
                    tracing::warn!("the broker of events is gone; connecting again");
                }
            }
            Some(Ok(Err(error))) => {
                let error: String = error.to_string().chars().take(200).collect();
                tracing::warn!(
                    error,
                    pause_ms = pause.as_millis(),
                    "the broker of events cannot be reached"
                );
            }
            Some(Err(_)) => tracing::warn!("the broker of events does not answer"),
        }
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.0));
        let _ = stopping
            .run_until_cancelled(tokio::time::sleep(jittered))
            .await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Consumes for as long as the connection lasts. As many events are worked on at a time as the broker
/// hands out unacknowledged.
async fn consume_from(context: &Context, mut open: Open, stopping: &CancellationToken) {
    let mut working: FuturesUnordered<BoxFuture<'_, bool>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(is_alive) = working.next() => {
                if !is_alive {
                    return;
                }
            }
            delivery = open.consumer.next() => match delivery {
                Some(Ok(delivery)) => working.push(Box::pin(one(context, &open.dead, delivery, stopping))),
                Some(Err(error)) => {
                    tracing::debug!(%error, "no more deliveries on this connection");
                    return;
                }
                None => return,
            },
        }
    }
    let consumer = open.consumer.tag();
    let finishing = async {
        let _ = open
            .channel
            .basic_cancel(consumer, BasicCancelOptions::default())
            .await;
        while working.next().await.is_some() {}
    };
    // What is not done by then goes back with the connection.
    let _ = tokio::time::timeout(LAST_WORDS, finishing).await;
}

/// Does the work of one delivery. False when the connection is of no more use.
async fn one(
    context: &Context,
    dead: &DeadEvents,
    delivery: Delivery,
    stopping: &CancellationToken,
) -> bool {
    let (kind, outcome) = match event::read(&delivery) {
        Ok(event) => {
            let kind = event.kind.as_str();
            match handle::until_done(context, &event, stopping).await {
                Some(Ok(outcome)) => (kind, Ok(outcome)),
                Some(Err(refusal)) => (kind, Err(refusal)),
                // It stops; the broker keeps the event for another worker.
                None => return true,
            }
        }
        Err(refusal) => ("unknown", Err(refusal)),
    };
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(Refusal(reason)) => {
            tracing::warn!(reason, "an event goes to the dead-letter queue");
            if let Err(error) = dead.put(&delivery, &reason).await {
                tracing::warn!(%error, "the dead-letter queue does not take an event");
                return false;
            }
            "refused"
        }
    };
    metrics::counter!(shared::metrics::INBOUND_EVENTS, "type" => kind, "outcome" => outcome)
        .increment(1);
    delivery.acker.ack(BasicAckOptions::default()).await.is_ok()
}
