//! Where events come from, as an operator sets it.

use shared::config::Vars;

/// The longest name that AMQP allows, less what is added for the dead letters.
const LONGEST_NAME: usize = 240;

/// The exchange and the queue.
#[derive(Clone, Debug)]
pub struct InboundConfig {
    /// Whether this worker consumes events, where there is a broker.
    pub enabled: bool,
    /// The topic exchange that the services publish to.
    pub exchange: String,
    /// The queue that is consumed.
    pub queue: String,
    /// The routing key that is bound, beside `analysis.*`.
    pub routing_key: String,
    /// Events that this worker has at a time.
    pub prefetch: u16,
}

impl InboundConfig {
    /// Reads the variables; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let config = Self {
            enabled: vars.flag(
                "INBOUND_ENABLED",
                true,
                "whether this worker consumes events where RABBITMQ_URL is set",
            ),
            exchange: vars.get(
                "EXCHANGE_NAME",
                "atma_exchange",
                "topic exchange that events come from; declared durable where there is none",
            ),
            queue: vars.get(
                "CHAT_QUEUE_NAME",
                "chat_events",
                "durable queue of events; with .dlq it is that of events that cannot be used",
            ),
            routing_key: vars.get(
                "ROUTING_KEY",
                "chat.events",
                "routing key of events, beside analysis.*",
            ),
            prefetch: vars.within(
                "INBOUND_PREFETCH",
                16,
                (1, 1_000),
                "events that a worker has at a time",
            ),
        };
        for (name, value) in [
            ("EXCHANGE_NAME", &config.exchange),
            ("CHAT_QUEUE_NAME", &config.queue),
            ("ROUTING_KEY", &config.routing_key),
        ] {
            if value.len() > LONGEST_NAME {
                vars.problem(name, format_args!("must have at most {LONGEST_NAME} bytes"));
            }
        }
        config
    }

    /// The exchange that dead letters go through.
    #[must_use]
    pub fn dead_exchange(&self) -> String {
        format!("{}.dlx", self.queue)
    }

    /// The queue that they wait in.
    #[must_use]
    pub fn dead_queue(&self) -> String {
        format!("{}.dlq", self.queue)
    }
}
