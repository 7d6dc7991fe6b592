//! Writing the end of an attempt, whatever the database does meanwhile.

use std::time::Duration;

use rand::RngExt as _;
use shared::store::StoreResult;
use shared::store::generations::Claim;
use tokio::time::Instant;

/// A finished text is kept in memory for as long as this while the database is away; then the lease
/// has long run out and somebody else owns the row.
const PATIENCE: Duration = Duration::from_mins(10);

/// Runs `write` until it succeeds, with back-off while the database is away. None when it cannot
/// succeed: the statement itself fails, or patience is over.
pub(super) async fn until_stored<T, W>(claim: &Claim, write: impl Fn() -> W) -> Option<T>
where
    W: Future<Output = StoreResult<T>>,
{
    let give_up_at = Instant::now() + PATIENCE;
    let mut pause_ms = 50_u64;
    loop {
        match write().await {
            Ok(done) => return Some(done),
            Err(error)
                if (error.is_unavailable() || error.is_conflict())
                    && Instant::now() < give_up_at =>
            {
                tracing::warn!(
                    generation.id = %claim.id,
                    error = &error as &dyn std::error::Error,
                    "outcome not stored yet"
                );
                let jittered = rand::rng().random_range(pause_ms / 2..=pause_ms);
                tokio::time::sleep(Duration::from_millis(jittered)).await;
                pause_ms = (pause_ms * 2).min(2_000);
            }
            Err(error) => {
                tracing::error!(
                    generation.id = %claim.id,
                    error = &error as &dyn std::error::Error,
                    "outcome cannot be stored; the lease will run out"
                );
                return None;
            }
        }
    }
}
