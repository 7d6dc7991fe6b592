//! Having the spending counted, and giving back what is reserved of budgets for generations that have ended.

use std::sync::Arc;
use std::time::Duration;

use shared::store::{StoreResult, budgets, maintenance};
use uuid::Uuid;

use crate::context::Context;
use crate::turns;

/// Reservations looked at in one round. A budget knows of an end some rounds late at worst, and then holds
/// more than it must and never less.
const LOOKED_AT: i32 = 2_000;
/// Between two rounds, while budgets are set; without them, between two looks whether something is left.
const ROUND: Duration = Duration::from_secs(1);
/// Between two looks for budgets that are nearly used, in rounds.
const WARNINGS: u32 = 10;
const WITHOUT: Duration = Duration::from_mins(1);
/// Between two times that the counting is asked for, in rounds: somebody may have switched it off.
const ASSURED: u32 = 60;
/// Costs are asked for about 17 hours long; a call that is older is not waited for.
const UNKNOWN: Duration = Duration::from_hours(20);

/// Has the counting go on where this worker has budgets, and gives back for ever.
pub async fn watch_budgets(context: Arc<Context>) {
    let on = context.config.budgets.is_on();
    let (mut after, mut round, mut is_switched) = (None, 0_u32, false);
    loop {
        if !is_switched || round.is_multiple_of(ASSURED) {
            is_switched = match switch(&context, on).await {
                Ok(()) => true,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::info!(
                        error,
                        on,
                        "the counting of what is spent is not switched yet"
                    );
                    false
                }
            };
        }
        if on
            && round.is_multiple_of(WARNINGS)
            && turns::is_ours(&context, "budget-warnings", ROUND * (WARNINGS - 3)).await
            && let Err(error) = warn(&context).await
        {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "nobody was told of budgets that are nearly used");
        }
        round = round.wrapping_add(1);
        match release(&context, after).await {
            Ok(next) => after = next,
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "nothing was given back to budgets"
            ),
        }
        let pause = if on || after.is_some() || !is_switched {
            ROUND
        } else {
            WITHOUT
        };
        tokio::time::sleep(pause.mul_f64(0.8 + rand::random::<f64>() * 0.4)).await;
    }
}

async fn switch(context: &Context, on: bool) -> StoreResult<()> {
    let mut tx = context.db.sweep().await?;
    let changed = budgets::switch(&mut tx, on).await?;
    budgets::open_totals(&mut tx, &context.config.budgets.limits).await?;
    tx.commit().await?;
    if changed {
        tracing::info!(on, "the counting of what is spent was switched");
    }
    Ok(())
}

/// Tells of budgets that are nearly used: a cost may be far above what was reserved, or come late.
async fn warn(context: &Context) -> StoreResult<()> {
    let mut tx = context.db.sweep().await?;
    let nearly = budgets::used_up_to_warn(&mut tx, &context.config.budgets.limits).await?;
    tx.commit().await?;
    for (budget, person) in nearly {
        shared::budgets::warn(&budget, person);
    }
    Ok(())
}

/// One round; where another worker is at it, the next one begins anew.
async fn release(context: &Context, after: Option<Uuid>) -> StoreResult<Option<Uuid>> {
    let mut tx = context.db.sweep().await?;
    if !maintenance::try_lock(&mut tx, "budgets").await? {
        return Ok(None);
    }
    let patience = context.config.costs_are_asked().then_some(UNKNOWN);
    let (next, released) =
        budgets::release(&mut tx, after, LOOKED_AT, patience.unwrap_or_default()).await?;
    tx.commit().await?;
    if released > 0 {
        tracing::debug!(released, "given back to budgets");
    }
    Ok(next)
}
