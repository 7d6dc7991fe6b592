//! Work that one worker of the fleet does in a while, whichever comes first.
//!
//! A lock alone would not do: each worker has a clock of its own, and would find the lock free.

use std::time::Duration;

use crate::context::Context;

/// Whether nobody in the fleet has taken this turn for so long; then it is ours. Without Redis everybody's turn it
/// is, so what is done twice must do no harm.
pub(crate) async fn is_ours(context: &Context, what: &str, period: Duration) -> bool {
    let mut command = redis::cmd("SET");
    command
        .arg(context.redis.key(format_args!("turn:{what}")))
        .arg(1)
        .arg("NX")
        .arg("PX")
        .arg(u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1));
    let taken: Result<Option<String>, _> = context.redis.command(&command).await;
    !matches!(taken, Ok(None))
}
