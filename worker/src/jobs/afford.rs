//! Budgets of calls beside a reply: those that cost something are made while there is room for them.

use std::time::Duration;

use shared::id;
use shared::models::Model;
use shared::store::budgets;
use shared::store::generations::Claim;
use shared::store::{StoreError, StoreResult};
use uuid::Uuid;

use crate::context::Context;

/// What is reserved for such a call; nothing where nothing has to be.
#[derive(Debug)]
pub(super) struct Held(Option<Uuid>);

/// The models of `chain` that may be called in the name of a claim, with so many tokens to read: all of them, while
/// the budgets have room for the dearest, which is then reserved for at most `longest`; the free ones otherwise.
pub(super) async fn hold(
    context: &Context,
    claim: &Claim,
    chain: Vec<Model>,
    prompt_tokens: u32,
    longest: Duration,
) -> StoreResult<(Vec<Model>, Held)> {
    let config = &context.config.budgets;
    let models = &context.config.upstream.models;
    let credits = config
        .is_on()
        .then(|| config.estimate(models, context.upstream.prices(), &chain, prompt_tokens));
    let Some(credits) = credits.flatten() else {
        return Ok((chain, Held(None)));
    };
    let id = id::new(context.clock.now());
    let mut tx = context.db.user(claim.user_id).await?;
    let held = (id, claim.id);
    let reservation = budgets::hold(&mut tx, held, credits, &config.limits, longest).await?;
    tx.commit().await?;
    for budget in &reservation.warned {
        shared::budgets::warn(budget, budget.starts_with("user").then_some(claim.user_id));
    }
    if reservation.refused.is_some() {
        let free = chain.into_iter().filter(|model| model.free);
        return Ok((free.collect(), Held(None)));
    }
    Ok((chain, Held(Some(id))))
}

/// The calls have been made and booked. What cannot be let go now ends by itself.
pub(super) async fn let_go(context: &Context, claim: &Claim, held: Held) {
    let Held(Some(id)) = held else { return };
    let let_go = async {
        let mut tx = context.db.user(claim.user_id).await?;
        budgets::let_go(&mut tx, id).await?;
        tx.commit().await
    };
    let let_go: Result<(), StoreError> = let_go.await;
    if let Err(error) = let_go {
        let error = &error as &dyn std::error::Error;
        tracing::info!(generation.id = %claim.id, error, "a reservation is held for longer");
    }
}
