//! Rate limits as clients see them.

use std::fmt::Display;
use std::time::Duration;

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};
use shared::limits::{Limit, Verdict, check, peek};

use crate::app::AppState;
use crate::config::LimitConfig;
use crate::error::{Code, Problem, Result};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const MINUTE: Duration = Duration::from_mins(1);

/// What is left of a limit after this request; nothing is known while Redis is away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget(Option<(Limit, Verdict)>);

/// Messages and regenerations of one user.
#[must_use]
pub fn messages(limits: &LimitConfig) -> Limit {
    Limit {
        name: "messages",
        count: limits.messages_per_hour,
        period: HOUR,
    }
}

/// New conversations of one user.
#[must_use]
pub fn conversations(limits: &LimitConfig) -> Limit {
    Limit {
        name: "conversations",
        count: limits.conversations_per_day,
        period: DAY,
    }
}

/// Assessments of one user that the archive is asked about: as many as they may have conversations of.
#[must_use]
pub fn assessments(limits: &LimitConfig) -> Limit {
    Limit {
        name: "assessments",
        count: limits.conversations_per_day,
        period: DAY,
    }
}

/// Requests of one address that showed no valid credentials.
#[must_use]
pub fn strangers(limits: &LimitConfig) -> Limit {
    Limit {
        name: "strangers",
        count: limits.unauthenticated_per_minute,
        period: MINUTE,
    }
}

/// The limit that a route counts against, by person.
#[must_use]
pub fn of_route(method: &str, route: &str) -> Option<fn(&LimitConfig) -> Limit> {
    let limit = match (method, route.strip_prefix("/api/chat/")?) {
        (
            "POST",
            "conversations"
            | "conversations/from-assessment"
            | "assessment/{assessment_id}/initialize",
        ) => conversations,
        (
            "POST",
            "conversations/{conversation_id}/messages"
            | "conversations/{conversation_id}/messages/{message_id}/regenerate"
            | "support/chat",
        ) => messages,
        _ => return None,
    };
    Some(limit)
}

/// Counts one request of `who`.
///
/// # Errors
/// `rate_limited` when there were too many. While Redis is away everybody passes: a limit protects
/// the service, and a refusal would break it.
pub async fn count(app: &AppState, limit: Limit, who: impl Display) -> Result<Budget> {
    let verdict = match check(&app.redis, &limit, who).await {
        Ok(verdict) => verdict,
        Err(failure) => {
            tracing::debug!(limit = limit.name, %failure, "a limit was not checked");
            return Ok(Budget(None));
        }
    };
    let budget = Budget(Some((limit, verdict)));
    if verdict.allowed {
        return Ok(budget);
    }
    let detail = format!(
        "at most {} {} in {} s",
        limit.count,
        limit.name,
        limit.period.as_secs()
    );
    let problem = Problem::new(Code::RateLimited, detail).with_header(
        http::header::RETRY_AFTER,
        seconds(verdict.retry_after).max(1),
    );
    Err(budget.on(problem))
}

/// What `who` has left, for an answer that does not count.
pub async fn left(app: &AppState, limit: Limit, who: impl Display) -> Budget {
    let verdict = peek(&app.redis, &limit, who).await.ok();
    Budget(verdict.map(|verdict| (limit, verdict)))
}

impl Budget {
    /// Tells the client.
    pub fn write(self, response: &mut Response) {
        let headers: HeaderMap = self.headers().collect();
        response.headers_mut().extend(headers);
    }

    /// Tells the client in a refusal.
    #[must_use]
    pub fn on(self, problem: Problem) -> Problem {
        self.headers().fold(problem, |problem, (name, value)| {
            problem.with_header(name, value)
        })
    }

    fn headers(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.0.into_iter().flat_map(|(limit, verdict)| {
            let policy = format!("{};w={}", limit.count, limit.period.as_secs());
            [
                ("ratelimit-limit", HeaderValue::from(limit.count)),
                ("ratelimit-remaining", HeaderValue::from(verdict.remaining)),
                ("ratelimit-reset", HeaderValue::from(seconds(verdict.reset))),
                (
                    "ratelimit-policy",
                    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("")),
                ),
            ]
            .map(|(name, value)| (HeaderName::from_static(name), value))
        })
    }
}

/// Whole seconds, rounded up: a client that waits so long does not come too early.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
