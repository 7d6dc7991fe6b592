//! One line per destination: settle what ended, take what is due, try it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use shared::domain::Destination;
use shared::store::StoreResult;
use shared::store::notifications::{self, Backlog, Held, Settled, Settlement, Taken};
use shared::traces::{Kind, Span};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[cfg(doc)]
use super::NotificationsConfig;
use super::attempt::Attempt;
use super::{Outgoing, Transport, body};
use crate::context::Context;

/// So long after its first try a notification is given up.
const GIVE_UP_AFTER: Duration = Duration::from_hours(24);
/// Before a database that is away is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the backlog is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
/// How much longer a claim holds than its try may take.
const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// Of that, so much may pass before the try begins.
const BEGIN_WITHIN: Duration = Duration::from_secs(15);
/// A transaction that takes longer has met a connection that is dead.
const PATIENCE: Duration = Duration::from_secs(5);
/// A look that the stop finds on its way gets so long: what it takes it should know of.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// What is on its way when the process stops gets so long.
const GRACE: Duration = Duration::from_secs(2);
/// And this is left for giving the rest back.
const LAST_WORD: Duration = Duration::from_millis(1_500);

/// The way to one destination.
#[derive(Debug)]
pub(super) struct Line {
    context: Arc<Context>,
    destination: Destination,
    transport: Arc<Transport>,
    timeout: Duration,
    look_every: Duration,
    places: usize,
}

/// What is on its way, and what ended and is not settled.
#[derive(Default)]
struct Flight {
    tries: JoinSet<(Held, Settlement)>,
    held: HashMap<Uuid, Held>,
    ended: Vec<(Held, Settlement)>,
}

impl Flight {
    /// A try that panicked is left to its claim's end.
    fn land(&mut self, landed: Result<(Held, Settlement), JoinError>) {
        match landed {
            Ok((held, how)) => {
                self.held.remove(&held.id);
                self.ended.push((held, how));
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a try panicked");
            }
        }
    }

    /// Those that ended at the same time are settled together.
    fn land_all(&mut self) {
        while let Some(landed) = self.tries.try_join_next() {
            self.land(landed);
        }
    }
}

impl Line {
    pub(super) fn new(
        context: &Arc<Context>,
        destination: Destination,
        transport: Transport,
    ) -> Self {
        let config = &context.config.notifications;
        Self {
            context: Arc::clone(context),
            destination,
            transport: Arc::new(transport),
            timeout: config.timeout,
            look_every: config.look_every,
            places: usize::from(config.concurrency),
        }
    }

    pub(super) fn destination(&self) -> Destination {
        self.destination
    }

    /// Goes on until told to stop. Between two looks it sleeps: until something ends here, until
    /// somebody wakes it, or for about [`NotificationsConfig::look_every`].
    pub(super) async fn run(self, stopping: &CancellationToken) {
        let mut flight = Flight::default();
        let mut measure_at = Instant::now();
        let wake = self.context.wake.of(self.destination);
        let stopped = async {
            stopping.cancelled().await;
            tokio::time::sleep(LAST_LOOK).await;
        };
        tokio::pin!(stopped);
        while !stopping.is_cancelled() {
            tokio::select! {
                biased;
                () = &mut stopped => break,
                () = self.look(&mut flight) => {}
            }
            if Instant::now() >= measure_at {
                measure_at = Instant::now() + MEASURE_EVERY;
                let _ = stopping.run_until_cancelled(self.measure()).await;
            }
            // Nothing to tell any more, or not settled: both are for the next look.
            if !flight.ended.is_empty() {
                continue;
            }
            let jitter = rand::rng().random_range(0.8..1.2);
            tokio::select! {
                Some(landed) = flight.tries.join_next() => flight.land(landed),
                () = wake.notified() => {}
                () = tokio::time::sleep(self.look_every.mul_f64(jitter)) => {}
                () = stopping.cancelled() => {}
            }
            flight.land_all();
        }
        self.finish(flight).await;
    }

    /// Gives what is on its way a moment and puts the rest back.
    async fn finish(&self, mut flight: Flight) {
        let landing = async {
            while let Some(landed) = flight.tries.join_next().await {
                flight.land(landed);
            }
        };
        let _ = tokio::time::timeout(GRACE, landing).await;
        // Whether the destination got the rest nobody knows: it is told again.
        let rest = flight.held.into_values();
        flight
            .ended
            .extend(rest.map(|held| (held, Settlement::Untried)));
        if flight.ended.is_empty() {
            return;
        }
        let settling = self.settle_and_take(&flight.ended, 0);
        match tokio::time::timeout(LAST_WORD, settling).await {
            Ok(Ok((settled, _))) => self.count(settled),
            _ => tracing::warn!(
                destination = %self.destination,
                "notifications not settled; their claims will run out"
            ),
        }
    }

    /// Settles what ended, takes what is due and sends it off. What cannot be settled now stays for
    /// the next time, and nobody asks a database that is away again at once.
    async fn look(&self, flight: &mut Flight) {
        let free = self
            .places
            .saturating_sub(flight.tries.len() + flight.ended.len());
        let began = Instant::now();
        let looking = self.settle_and_take(&flight.ended, free);
        let taken = match tokio::time::timeout(PATIENCE, looking).await {
            Ok(Ok((settled, taken))) => {
                self.count(settled);
                flight.ended.clear();
                taken
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    destination = %self.destination,
                    error = &error as &dyn std::error::Error,
                    "the outbox was not looked at"
                );
                return tokio::time::sleep(AGAIN).await;
            }
            Err(_) => {
                tracing::warn!(destination = %self.destination, "the outbox was not looked at in time");
                return;
            }
        };
        if taken.is_empty() {
            return;
        }
        let Ok(Ok(outgoing)) = tokio::time::timeout(PATIENCE, self.read(&taken)).await else {
            tracing::warn!(destination = %self.destination, "what to tell was not read");
            let untried = taken.iter().map(|taken| (taken.held, Settlement::Untried));
            flight.ended.extend(untried);
            return tokio::time::sleep(AGAIN).await;
        };
        for (taken, outgoing) in taken.into_iter().zip(outgoing) {
            let Some(mut outgoing) = outgoing else {
                flight.ended.push((taken.held, Settlement::Void));
                continue;
            };
            let span = self.record(&taken, &mut outgoing);
            let attempt = Attempt {
                span,
                held: taken.held,
                outgoing,
                number: taken.attempts,
                timeout: self.timeout,
                begin_before: began + BEGIN_WITHIN,
            };
            flight.held.insert(taken.held.id, taken.held);
            flight.tries.spawn(attempt.run(Arc::clone(&self.transport)));
        }
    }

    /// Begins the span of a try, which the receiver then finds above its own.
    fn record(&self, taken: &Taken, outgoing: &mut Outgoing) -> Option<Span> {
        let parent = outgoing.traceparent.as_deref();
        let traces = &self.context.traces;
        let mut span = traces.span(parent, Kind::Producer, "notification")?;
        span.set("balas.destination", self.destination.as_str());
        span.set("balas.notification.id", outgoing.id.to_string());
        span.set("balas.notification.attempt", i64::from(taken.attempts));
        if let Some(id) = taken.generation_id {
            span.set("balas.generation.id", id.to_string());
        }
        outgoing.traceparent = span.traceparent();
        Some(span)
    }

    async fn settle_and_take(
        &self,
        ended: &[(Held, Settlement)],
        free: usize,
    ) -> StoreResult<(Settled, Vec<Taken>)> {
        let destination = self.destination;
        // What is lost with a crash of the database is told twice at worst.
        let mut tx = self.context.db.sweep_async().await?;
        let mut settled = Settled::default();
        if !ended.is_empty() {
            let jitter = rand::random();
            settled =
                notifications::settle(&mut tx, destination, ended, GIVE_UP_AFTER, jitter).await?;
        }
        let mut taken = Vec::new();
        if free > 0 && notifications::is_work(&mut tx, destination).await? {
            let most = i64::try_from(free).unwrap_or(i64::MAX);
            let fleet = i64::try_from(self.places).unwrap_or(i64::MAX);
            let (token, lease) = (Uuid::new_v4(), self.timeout + LEASE_MARGIN);
            taken = notifications::take(&mut tx, destination, token, most, fleet, lease).await?;
        }
        if !ended.is_empty() || !taken.is_empty() {
            tx.commit().await?;
        }
        Ok((settled, taken))
    }

    /// What the notifications say; none where there is nothing left to tell.
    async fn read(&self, taken: &[Taken]) -> StoreResult<Vec<Option<Outgoing>>> {
        // What tells of no generation has none of this id either.
        let generation = |taken: &Taken| taken.generation_id.unwrap_or_default();
        let generations: Vec<Uuid> = taken.iter().map(generation).collect();
        let mut tx = self.context.db.sweep_async().await?;
        let contents = notifications::contents(&mut tx, &generations).await?;
        let outgoing = taken.iter().zip(contents).map(|(taken, content)| {
            let body = match (&taken.stage, content) {
                (Some(stage), _) => body::stage(taken, stage),
                (None, content) => body::body(taken, &content?),
            };
            Some(Outgoing {
                id: taken.held.id,
                user_id: taken.user_id,
                kind: taken.kind,
                body,
                request_id: taken.request_id.clone(),
                traceparent: taken.traceparent.clone(),
            })
        });
        Ok(outgoing.collect())
    }

    async fn measure(&self) {
        match tokio::time::timeout(PATIENCE, self.backlog()).await {
            Ok(Ok(backlog)) => {
                let destination = self.destination.as_str();
                for (name, value) in [
                    (
                        shared::metrics::NOTIFICATION_BACKLOG,
                        backlog.undelivered as f64,
                    ),
                    (
                        shared::metrics::NOTIFICATION_OLDEST,
                        backlog.oldest_seconds.unwrap_or(0.0).max(0.0),
                    ),
                    (shared::metrics::NOTIFICATIONS_DEAD, backlog.dead as f64),
                    (
                        shared::metrics::NOTIFICATION_BREAKER,
                        f64::from(u8::from(backlog.tripped)),
                    ),
                ] {
                    metrics::gauge!(name, "destination" => destination).set(value);
                }
            }
            _ => tracing::debug!(destination = %self.destination, "the backlog was not measured"),
        }
    }

    async fn backlog(&self) -> StoreResult<Backlog> {
        let mut tx = self.context.db.sweep_async().await?;
        notifications::backlog(&mut tx, self.destination).await
    }

    fn count(&self, settled: Settled) {
        let destination = self.destination.as_str();
        for (outcome, count) in [
            ("delivered", settled.delivered),
            ("void", settled.void),
            ("retried", settled.retried),
            ("dead", settled.dead),
            ("lost", settled.lost),
        ] {
            if count > 0 {
                metrics::counter!(
                    shared::metrics::NOTIFICATIONS, "destination" => destination, "outcome" => outcome
                )
                .increment(count);
            }
        }
        if settled.dead > 0 {
            tracing::error!(
                destination,
                count = settled.dead,
                "notifications given up; they wait for an operator"
            );
        }
    }
}
