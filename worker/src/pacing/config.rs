//! What an operator sets about limits of the upstream's account.

use std::time::Duration;

use shared::config::Vars;

use super::Limit;

/// The limits that the fleet keeps to.
#[derive(Clone, Copy, Debug)]
pub struct PacingConfig {
    /// For all free models together; none where nobody limits them.
    pub free: Option<Limit>,
    /// For all other models together.
    pub paid: Option<Limit>,
    /// Who would wait longer gets a model of the other kind, where there is one.
    pub max_wait: Duration,
    /// How long a model that fails again and again is left alone the first time.
    pub breaker_rest: Duration,
    /// How often the account is looked at; zero is never.
    pub refresh: Duration,
}

impl PacingConfig {
    /// Reads the variables; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let mut limit =
            |name, default, help| Limit::per_minute(vars.within(name, default, (0, 100_000), help));
        Self {
            free: limit(
                "FREE_MODEL_RATE_LIMIT_PER_MINUTE",
                20,
                "calls of free models that the upstream allows the account in any minute; 0 is no limit",
            ),
            paid: limit(
                "PAID_MODEL_RATE_LIMIT_PER_MINUTE",
                0,
                "the same for models that cost something",
            ),
            max_wait: vars.seconds(
                "MAX_PACE_WAIT",
                "15",
                "who would wait longer for a free model gets a paid one, if they may, seconds",
            ),
            breaker_rest: vars.seconds(
                "BREAKER_REST",
                "2",
                "a model that failed five times in a row is left alone for so long, then tried by one call; \
                 twice that after each failure, up to 5, seconds",
            ),
            refresh: vars.seconds(
                "ACCOUNT_REFRESH",
                "60",
                "how often GET /key and /credits are asked, by one worker for all, seconds, not below 10; 0 is never",
            ),
        }
    }
}
