//! Looking at the table all the time: how much is left to do, and whether a claim outlives its lease.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shared::testing::Session;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fault::Fault;
use crate::weather::Weather;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);
/// A look that takes longer shows a machine, or a database, that stands still.
const LOOK_WITHIN: Duration = Duration::from_secs(10);
/// I5: a claim may outlive its lease by so much, ...
const OVERDUE: Duration = Duration::from_secs(2);
/// ... not counting what the workers wait after an outage before they take leases away: 5 s
/// (ARCHITECTURE.md), and the time to find out that it is over.
const AFTER_OUTAGE: Duration = Duration::from_secs(7);
/// Delays of this process's own looks excuse as much delay of the workers: it is the same machine.
const REMEMBERED: Duration = Duration::from_secs(15);

const OVERDUE_CLAIMS: &str = "SELECT id::text, worker_id, (extract(epoch FROM clock_timestamp() - lease_until) * 1000)::bigint::text
    FROM chat.generations WHERE status = 'in_progress' AND lease_until < clock_timestamp() - interval '1 second'
    ORDER BY lease_until LIMIT 3";
const BACKLOG: &str = "SELECT count(*)::text, count(*) FILTER (WHERE kind <> 'title')::text,
    (SELECT count(*) FROM chat.notifications)::text FROM chat.generations WHERE status IN ('queued', 'in_progress')";

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    looks: AtomicU64,
    backlog: AtomicU64,
    replies_left: AtomicU64,
    untold: AtomicU64,
    /// By generation: how it was when it was worst.
    breaches: Mutex<BTreeMap<String, Overdue>>,
}

/// A claim that outlives its lease by more than it may.
#[derive(Debug, Clone)]
struct Overdue {
    excess: Duration,
    text: String,
}

/// How long the machine stood still lately, as far as this process can tell.
#[derive(Debug, Default)]
struct Stalls(Vec<(Instant, Duration)>);

impl Stalls {
    fn note(&mut self, now: Instant, stall: Duration) {
        self.0.retain(|(at, _)| now - *at < REMEMBERED);
        self.0.push((now, stall));
    }

    fn sum(&self) -> Duration {
        self.0.iter().map(|(_, stall)| *stall).sum()
    }
}

/// How much later than it may a claim is, when it is `late` behind its lease, somebody could look for
/// lost work for the last `swept_for`, and the machine stood still for `stalled`.
fn excess(late: Duration, swept_for: Option<Duration>, stalled: Duration) -> Duration {
    let watched = swept_for.map_or(Duration::ZERO, |time| time.saturating_sub(AFTER_OUTAGE));
    late.min(watched).saturating_sub(OVERDUE + stalled)
}

impl Monitor {
    /// Looks until `stop`, past all proxies.
    pub(crate) fn watch(url: String, weather: Arc<Weather>, stop: CancellationToken) -> Arc<Self> {
        let monitor = Arc::new(Self::default());
        let watching = Arc::clone(&monitor);
        crate::task::spawn(async move {
            let mut session = None;
            let mut stalls = Stalls::default();
            while stop
                .run_until_cancelled(watching.step(&url, &weather, &mut session, &mut stalls))
                .await
                .is_some()
            {}
        });
        monitor
    }

    async fn step(
        &self,
        url: &str,
        weather: &Weather,
        session: &mut Option<Session>,
        stalls: &mut Stalls,
    ) {
        let before = Instant::now();
        tokio::time::sleep(EVERY).await;
        let look = tokio::time::timeout(LOOK_WITHIN, Self::look(url, session));
        let (overdue, backlog) = match look.await {
            Ok(Some(seen)) => seen,
            // Postgres is away; this is what it is like for the workers as well.
            Ok(None) | Err(_) => {
                *session = None;
                return;
            }
        };
        stalls.note(Instant::now(), before.elapsed().saturating_sub(EVERY));
        self.looks.fetch_add(1, Ordering::Relaxed);
        let number = |text: &Option<String>| -> u64 {
            text.as_deref().unwrap_or_default().parse().unwrap_or(0)
        };
        if let Some(row) = backlog.first() {
            self.backlog.store(number(&row[0]), Ordering::Relaxed);
            self.replies_left.store(number(&row[1]), Ordering::Relaxed);
            self.untold.store(number(&row[2]), Ordering::Relaxed);
        }
        for row in overdue {
            let late = Duration::from_millis(number(&row[2]));
            let excess = excess(late, weather.swept_for(Instant::now()), stalls.sum());
            if excess.is_zero() {
                continue;
            }
            let id = row[0].clone().unwrap_or_default();
            let text = format!(
                "generation {id} of {} is in progress {} ms after its lease ran out, under {}",
                row[1].as_deref().unwrap_or_default(),
                late.as_millis(),
                weather.now().map_or("no fault", Fault::name),
            );
            let mut breaches = self.breaches.lock().unwrap_or_else(PoisonError::into_inner);
            let known = breaches.get(&id).map(|known| known.excess);
            if known.is_none_or(|known| known < excess) {
                breaches.insert(id, Overdue { excess, text });
            }
        }
    }

    async fn look(url: &str, session: &mut Option<Session>) -> Option<(Rows, Rows)> {
        if session.is_none() {
            *session = Session::open(url).await.ok();
        }
        let session = session.as_mut()?;
        let overdue = session.rows(OVERDUE_CLAIMS).await.ok()?;
        let backlog = session.rows(BACKLOG).await.ok()?;
        Some((overdue, backlog))
    }

    /// Generations of any kind that have not ended.
    pub(crate) fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Those of them that somebody waits for.
    pub(crate) fn replies_left(&self) -> u64 {
        self.replies_left.load(Ordering::Relaxed)
    }

    /// Notifications that are not delivered.
    pub(crate) fn untold(&self) -> u64 {
        self.untold.load(Ordering::Relaxed)
    }

    /// Whether nothing is left to do, and nothing to tell.
    pub(crate) fn is_quiet(&self) -> bool {
        self.backlog() == 0 && self.untold() == 0
    }

    /// How often it looked.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    /// Claims that outlived their lease by more than they may.
    pub(crate) fn breaches(&self) -> Vec<String> {
        let breaches = self.breaches.lock().unwrap_or_else(PoisonError::into_inner);
        breaches
            .values()
            .map(|overdue| overdue.text.clone())
            .collect()
    }
}

type Rows = Vec<Vec<Option<String>>>;

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_claim_may_outlive_its_lease_by_two_seconds_of_sight() {
        let none = Duration::ZERO;
        assert_eq!(excess(s(2), Some(Duration::MAX), none), none);
        assert_eq!(excess(s(3), Some(Duration::MAX), none), s(1));
        assert_eq!(excess(s(60), None, none), none, "nobody can look");
        assert_eq!(
            excess(s(60), Some(s(9)), none),
            none,
            "the outage is just over"
        );
        assert_eq!(excess(s(60), Some(s(12)), none), s(3));
        assert_eq!(
            excess(s(5), Some(Duration::MAX), s(2)),
            s(1),
            "the machine stood still"
        );
    }

    #[test]
    fn stalls_are_forgotten() {
        let mut stalls = Stalls::default();
        let start = Instant::now();
        stalls.note(start, s(3));
        stalls.note(start + s(10), s(1));
        assert_eq!(stalls.sum(), s(4));
        stalls.note(start + s(20), s(0));
        assert_eq!(stalls.sum(), s(1));
    }
}
