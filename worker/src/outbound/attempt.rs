//! One try.

use std::sync::Arc;
use std::time::Duration;

use shared::store::notifications::{Failure, Held, Settlement};
use shared::traces::Span;
use tokio::time::Instant;

use super::{Outgoing, Refusal, Transport};

/// The longest pause after the first try, in seconds; it doubles with each.
const FIRST_WAIT: f64 = 5.0;
/// The longest of all.
const LONGEST_WAIT: f64 = 3_600.0;
/// Even the luckiest draw waits so long.
const SHORTEST_WAIT: f64 = 1.0;

/// A notification on its way.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) held: Held,
    pub(super) outgoing: Outgoing,
    /// The number of this try.
    pub(super) number: i32,
    /// How long it may take.
    pub(super) timeout: Duration,
    /// Begun later than this, it might outlive its claim.
    pub(super) begin_before: Instant,
    /// Recorded where somebody does.
    pub(super) span: Option<Span>,
}

impl Attempt {
    /// Tries once. A process that stood still since it took the notification does not try: another
    /// may have it by now.
    pub(super) async fn run(mut self, transport: Arc<Transport>) -> (Held, Settlement) {
        if Instant::now() >= self.begin_before {
            return (self.held, Settlement::Untried);
        }
        let sent = tokio::time::timeout(self.timeout, transport.send(&self.outgoing)).await;
        let refusal = match sent {
            Ok(Ok(())) => {
                if let Some(span) = self.span.take() {
                    span.end();
                }
                tracing::debug!(
                    notification.id = %self.outgoing.id,
                    request.id = self.outgoing.request_id,
                    attempt = self.number,
                    "notification delivered"
                );
                return (self.held, Settlement::Delivered);
            }
            Ok(Err(refusal)) => refusal,
            Err(_) => Refusal::of("timeout"),
        };
        tracing::info!(
            notification.id = %self.outgoing.id,
            user.id = %self.outgoing.user_id,
            request.id = self.outgoing.request_id,
            attempt = self.number,
            error = refusal.error,
            "notification not delivered"
        );
        if let Some(mut span) = self.span.take() {
            span.fail(refusal.error.clone());
            span.end();
        }
        let failure = failure(refusal, self.number, rand::random());
        (self.held, Settlement::Failed(failure))
    }
}

fn failure(refusal: Refusal, number: i32, random: f64) -> Failure {
    let wait = wait(number, random);
    Failure {
        wait: refusal.retry_after.map_or(wait, |asked| asked.max(wait)),
        pause: refusal.retry_after,
        error: refusal.error,
        gone: refusal.gone,
    }
}

/// Exponential with full jitter: anything up to a ceiling that doubles from try to try.
fn wait(number: i32, random: f64) -> Duration {
    let doublings = number.saturating_sub(1).clamp(0, 20);
    let ceiling = (FIRST_WAIT * 2_f64.powi(doublings)).min(LONGEST_WAIT);
    Duration::from_secs_f64((ceiling * random).max(SHORTEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour_and_are_spread() {
        let ceilings: Vec<u64> = (1..=12).map(|number| wait(number, 1.0).as_secs()).collect();
        assert_eq!(
            ceilings,
            [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600]
        );
        assert_eq!(wait(8, 0.5).as_secs(), 320);
        assert_eq!(wait(1, 0.0).as_secs(), 1);
        assert_eq!(wait(i32::MAX, 1.0).as_secs(), 3_600);
        assert_eq!(wait(i32::MIN, 1.0).as_secs(), 5);
    }

    #[test]
    fn nobody_comes_back_before_the_asked_time() {
        let asking = |seconds| Refusal {
            retry_after: Some(Duration::from_secs(seconds)),
            ..Refusal::of("status 429")
        };
        let long = failure(asking(600), 1, 1.0);
        assert_eq!(
            (long.wait.as_secs(), long.pause.unwrap().as_secs()),
            (600, 600)
        );
        // The destination may be tried again sooner than this one notification.
        let short = failure(asking(2), 1, 1.0);
        assert_eq!(
            (short.wait.as_secs(), short.pause.unwrap().as_secs()),
            (5, 2)
        );
    }
}
