//! Telling the notification service: what the outbox holds goes out as signed HTTP requests, as
//! messages of RabbitMQ, or as both.
//!
//! **Rule:** at least once. A row is gone only after its destination has confirmed it, so a worker
//! that dies in between tells it again, under the same id and with the same bytes.

mod address;
mod amqp;
mod attempt;
mod body;
mod config;
mod deliver;
mod http;
mod sign;

pub use config::{AmqpConfig, BrokerConfig, HttpConfig, NotificationsConfig};
pub use sign::{SigningError, SigningKeys};

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt as _;
use shared::domain::{Destination, NotificationType};
use shared::store::StoreResult;
use shared::store::notifications;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::deliver::Line;
use crate::context::Context;

/// How long to wait before the fleet is told again where notifications go.
const SWITCH_AGAIN: Duration = Duration::from_secs(1);

/// Lets those who end generations wake those who tell of it: jobs and sweeps of this process, and
/// broadcasts of cancellations. It is a hint: what it misses is found within a second.
#[derive(Debug, Default)]
pub struct Wake {
    http: Notify,
    amqp: Notify,
}

impl Wake {
    /// A generation has ended and that is committed.
    pub fn wake(&self) {
        self.http.notify_one();
        self.amqp.notify_one();
    }

    fn of(&self, destination: Destination) -> &Notify {
        match destination {
            Destination::Http => &self.http,
            Destination::Amqp => &self.amqp,
        }
    }
}

/// A notification as it goes out.
#[derive(Clone, Debug)]
struct Outgoing {
    id: Uuid,
    user_id: Uuid,
    kind: NotificationType,
    body: Bytes,
    request_id: Option<String>,
    traceparent: Option<String>,
}

/// Why a destination does not have a notification, or may not.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    /// Status or kind of failure; never what the receiver said.
    error: String,
    /// It wants no more.
    gone: bool,
    /// It asked to be left alone for so long.
    retry_after: Option<Duration>,
}

impl Refusal {
    fn of(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            gone: false,
            retry_after: None,
        }
    }
}

/// A way to a destination.
#[derive(Debug)]
enum Transport {
    Http(http::Http),
    Amqp(amqp::Amqp),
}

impl Transport {
    async fn send(&self, notification: &Outgoing) -> Result<(), Refusal> {
        match self {
            Self::Http(http) => http.send(notification).await,
            Self::Amqp(amqp) => amqp.send(notification).await,
        }
    }
}

/// The ways that are configured.
#[derive(Debug)]
pub struct Outbound {
    lines: Vec<Line>,
}

/// The HTTP client could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up the client of the notification service")]
pub struct BuildError(#[from] reqwest::Error);

impl Outbound {
    /// Sets up the ways; nothing is connected yet.
    ///
    /// # Errors
    /// When the machine's trusted certificates cannot be read for an https destination.
    pub fn new(context: &Arc<Context>) -> Result<Self, BuildError> {
        let config = &context.config.notifications;
        let mut lines = Vec::new();
        if let Some(http) = &config.http {
            let http = http::Http::new(http, context.clock.clone())?;
            let transport = Transport::Http(http);
            lines.push(Line::new(context, Destination::Http, transport));
        }
        if let Some(amqp) = &config.amqp {
            let transport = Transport::Amqp(amqp::Amqp::new(amqp.clone()));
            lines.push(Line::new(context, Destination::Amqp, transport));
        }
        Ok(Self { lines })
    }

    /// Tells for as long as the process lives. When told to stop it takes nothing more, gives what is
    /// on its way a moment and puts the rest back.
    pub async fn run(self, context: Arc<Context>, stopping: CancellationToken) {
        let wanted: Vec<Destination> = self.lines.iter().map(Line::destination).collect();
        if stopping
            .run_until_cancelled(switched(&context, &wanted))
            .await
            .is_none()
        {
            return;
        }
        let lines = self.lines.into_iter().map(|line| line.run(&stopping));
        futures::future::join_all(lines).await;
        // Nothing to tell is no reason to end before the process does.
        stopping.cancelled().await;
    }
}

/// Tells the fleet where notifications go, until it knows.
async fn switched(context: &Context, wanted: &[Destination]) {
    loop {
        match switch(context, wanted).await {
            Ok(true) => {
                tracing::warn!(?wanted, "the destinations of notifications changed");
                return;
            }
            Ok(false) => return,
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the destinations of notifications were not set; trying again"
            ),
        }
        let jitter = rand::rng().random_range(0.5..1.5);
        tokio::time::sleep(SWITCH_AGAIN.mul_f64(jitter)).await;
    }
}

async fn switch(context: &Context, wanted: &[Destination]) -> StoreResult<bool> {
    let mut tx = context.db.sweep().await?;
    let changed = notifications::switch(&mut tx, wanted).await?;
    tx.commit().await?;
    Ok(changed)
}
