//! What may be spent: reserved with the generation that may spend it.

use rust_decimal::Decimal;
use shared::budgets::WhenExhausted;
use shared::domain::{Generation, Tier};
use shared::models::Model;
use shared::store::UserTx;
use shared::store::budgets::{self, Exhausted};

use crate::app::AppState;
use crate::error::{Code, Problem, Result};

/// What is to be reserved for a generation over this chain, in credits; none where nobody set a budget, or
/// all of its models are free.
pub(crate) fn estimate(app: &AppState, chain: &[Model]) -> Option<Decimal> {
    app.operator.reckoning.estimate(&app.models, chain)
}

/// Reserves `credits` for a generation that was accepted in this transaction, or has it made by free models
/// where that is what an operator wants. The last thing to be done before the commit.
///
/// # Errors
/// `budget_exhausted`; then nothing may be committed.
pub(crate) async fn reserve(
    app: &AppState,
    tx: &mut UserTx,
    generation: &mut Generation,
    chain: &[Model],
    credits: Decimal,
) -> Result<()> {
    let config = &app.gate.config.budgets;
    let reservation = budgets::reserve(tx, generation.id, credits, &config.limits).await?;
    let Some(exhausted) = reservation.refused else {
        reservation
            .warned
            .iter()
            .for_each(|budget| warn(tx, budget));
        return Ok(());
    };
    let free = free_models(app, chain);
    let refuse = config.when_exhausted == WhenExhausted::Refuse || free.is_empty();
    metrics::counter!(
        shared::metrics::BUDGET_EXHAUSTED,
        "scope" => exhausted.scope.clone(), "period" => exhausted.period.clone(),
        "outcome" => if refuse { "refused" } else { "free_model" }
    )
    .increment(1);
    if refuse {
        return Err(problem(app, &exhausted));
    }
    reservation
        .warned
        .iter()
        .for_each(|budget| warn(tx, budget));
    budgets::use_models(tx, generation.id, &free).await?;
    if let Some(first) = shared::models::likely_first(&free) {
        generation.model.clone_from(&first.name);
        generation.is_free_model = true;
    }
    Ok(())
}

/// The free models of the chain, or those that everybody may use.
fn free_models(app: &AppState, chain: &[Model]) -> Vec<Model> {
    let free: Vec<Model> = chain.iter().filter(|model| model.free).cloned().collect();
    if free.is_empty() {
        return app.models.chain_for(Tier::Free, None);
    }
    free
}

/// Said once a period: the row remembers it, if this is committed.
fn warn(tx: &UserTx, budget: &str) {
    shared::budgets::warn(budget, budget.starts_with("user").then(|| tx.user_id()));
}

fn problem(app: &AppState, exhausted: &Exhausted) -> Problem {
    let whose = match exhausted.scope.as_str() {
        "user" => "your budget",
        _ => "the service's budget",
    };
    let until = shared::domain::timestamp::format(exhausted.resets_at);
    let detail = format!(
        "{whose} for this {} is used up until {until}",
        exhausted.period
    );
    let wait = (exhausted.resets_at - app.gate.clock.now()).whole_seconds();
    Problem::new(Code::BudgetExhausted, detail)
        .until(exhausted.resets_at)
        .with_header(http::header::RETRY_AFTER, wait.max(1) + 1)
}
