//! The clocks of one call: first token, idle, total, and the silence after which the person is
//! told that it takes a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::error::CallError;
use super::{ErrorClass, Progress, Timeouts};

/// Tells when the upstream last sent anything, comments included. The reader of the bytes and the
/// watch share it.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    origin: Instant,
    millis: Arc<AtomicU64>,
}

impl Pulse {
    /// Something came.
    pub(super) fn beat(&self) {
        let millis = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.origin + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

/// Guards every wait of one call.
#[derive(Debug)]
pub(super) struct Watch {
    timeouts: Timeouts,
    pulse: Pulse,
    started: Instant,
    has_token: bool,
    /// When the person is told; `None` once they were, until more text comes.
    quiet_at: Option<Instant>,
    /// Set once the reply ended: how long what follows it may take.
    finish_by: Option<Instant>,
}

/// How long the usage may lag behind the end of the reply. It comes in the same burst or not at
/// all, and the person is waiting.
const AFTER_FINISH: Duration = Duration::from_secs(3);

impl Watch {
    /// Starts all clocks.
    pub(super) fn start(timeouts: Timeouts) -> Self {
        let started = Instant::now();
        let pulse = Pulse {
            origin: started,
            millis: Arc::default(),
        };
        Self {
            timeouts,
            pulse,
            started,
            has_token: false,
            quiet_at: Some(started + timeouts.interim_after),
            finish_by: None,
        }
    }

    /// The pulse for the reader of the bytes.
    pub(super) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// The model gave a sign of working: from now on silence is idle time.
    pub(super) fn token(&mut self) {
        self.has_token = true;
    }

    /// Text came.
    pub(super) fn text(&mut self) {
        self.quiet_at = Some(Instant::now() + self.timeouts.interim_after);
    }

    /// The reply ended; only its usage may still come.
    pub(super) fn finished(&mut self) {
        self.quiet_at = None;
        self.finish_by = Some(Instant::now() + AFTER_FINISH);
    }

    /// Waits for `future` as long as the clocks allow.
    pub(super) async fn wait<F, P>(
        &mut self,
        progress: &mut P,
        future: F,
    ) -> Result<F::Output, CallError>
    where
        F: Future,
        P: Progress,
    {
        tokio::pin!(future);
        loop {
            let (deadline, limit) = self.deadline();
            // A stream that always has more never lets the timer run; the clock decides then.
            if limit == Limit::Total && deadline <= Instant::now() {
                return Err(limit.exceeded());
            }
            let until = self
                .quiet_at
                .map_or(deadline, |quiet_at| quiet_at.min(deadline));
            if let Ok(output) = timeout_at(until, &mut future).await {
                return Ok(output);
            }
            let now = Instant::now();
            if self.quiet_at.is_some_and(|quiet_at| quiet_at <= now) {
                self.quiet_at = None;
                progress.quiet().await;
            } else if let (deadline, limit) = self.deadline()
                && deadline <= now
            {
                return Err(limit.exceeded());
            }
        }
    }

    /// The clock that runs out first.
    fn deadline(&self) -> (Instant, Limit) {
        let patience = match self.finish_by {
            Some(finish_by) => (finish_by, Limit::Finish),
            None if self.has_token => (self.pulse.last() + self.timeouts.idle, Limit::Idle),
            None => (self.started + self.timeouts.first_token, Limit::FirstToken),
        };
        let total = (self.started + self.timeouts.total, Limit::Total);
        if patience.0 <= total.0 {
            patience
        } else {
            total
        }
    }
}

/// Which clock ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    FirstToken,
    Idle,
    Finish,
    Total,
}

impl Limit {
    fn exceeded(self) -> CallError {
        let detail = match self {
            Self::FirstToken => "no token came in time",
            Self::Idle => "the stream went silent",
            Self::Finish => "the stream did not end after the reply",
            Self::Total => "the call took too long",
        };
        CallError::of(ErrorClass::Timeout, detail)
    }
}
