//! Learning what the account may still do: by asking the upstream, one worker for all, and by what
//! other workers were refused.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shared::clock::Clock;
use shared::redis::RedisFailure;
use shared::store::{StoreResult, fleet};
use shared::upstreams::Credits;

use super::Pacing;
use super::report::report;
use crate::context::Context;
use crate::upstream::{Account, account};

/// Between two looks at what others were refused.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Between two counts of the workers that live, and two questions whose turn it is, in looks.
const SLOWLY: u32 = 10;
/// Between two reports for operators, in looks.
const REPORTS: u32 = 5;

/// Looks for ever.
pub async fn watch_account(context: Arc<Context>) {
    let mut looks = 0_u32;
    let mut shown = Vec::new();
    loop {
        context.pacing.look(&mut shown).await;
        if looks.is_multiple_of(SLOWLY) {
            ask(&context).await;
            match living(&context).await {
                Ok(workers) => context.pacing.fleet(workers),
                Err(error) => tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "workers not counted"
                ),
            }
        }
        if looks.is_multiple_of(REPORTS)
            && let Err(failure) = report(&context).await
        {
            tracing::debug!(%failure, "operators are not told of the upstream");
        }
        looks = looks.wrapping_add(1);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn living(context: &Context) -> StoreResult<u32> {
    let mut tx = context.db.sweep().await?;
    let living = fleet::living(&mut tx).await?;
    Ok(u32::try_from(living).unwrap_or(1))
}

/// Asks the upstream, if it is time and nobody else does.
async fn ask(context: &Context) {
    let every = context.config.pacing.refresh;
    if every.is_zero() {
        return;
    }
    match context.pacing.turn(every).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(failure) => return tracing::debug!(%failure, "the account is not looked at"),
    }
    match account(&context.upstream).await {
        Ok(account) => context.pacing.learn(&account, &context.clock).await,
        Err(error) => tracing::info!(error, "the account is not known"),
    }
}

impl Pacing {
    /// Whether it is this worker's turn to ask, which comes once in `every`.
    async fn turn(&self, every: Duration) -> Result<bool, RedisFailure> {
        let mut command = redis::cmd("SET");
        command
            .arg(self.redis.key("pacing:asked"))
            .arg(1)
            .arg("NX")
            .arg("PX")
            .arg(u64::try_from(every.as_millis()).unwrap_or(u64::MAX));
        let set: Option<String> = self.redis.command(&command).await?;
        Ok(set.is_some())
    }

    async fn learn(&self, account: &Account, clock: &Clock) {
        metrics::gauge!(shared::metrics::ACCOUNT_READ).set(clock.now().unix_timestamp() as f64);
        if let Some(left) = account.free_calls_left {
            metrics::gauge!(shared::metrics::FREE_CALLS_LEFT).set(f64::from(left));
            if left == 0 {
                tracing::warn!("no free calls are left today");
            }
            if let Err(failure) = self.free.bucket.left_today(&self.redis, left).await {
                tracing::debug!(%failure, "the fleet was not told what is left of the day");
            }
        }
        if let Some(credits) = account.credits_left {
            let shown = rust_decimal::prelude::ToPrimitive::to_f64(&credits);
            metrics::gauge!(shared::metrics::CREDITS_LEFT).set(shown.unwrap_or(0.0));
            let mut known = self.credits.lock().unwrap_or_else(PoisonError::into_inner);
            *known = Some(Credits {
                left: credits,
                read_at: clock.now(),
            });
        }
    }
}
