//! `/internal/stats`: how the fleet does, in figures.

use std::collections::BTreeMap;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use shared::domain::{Spending, day};
use shared::figures::{Figure, Sum, Times};
use shared::operator::Stats;
use shared::store::learning::questions::Outcomes;
use shared::store::usage::together;
use utoipa::{IntoParams, ToSchema};

use crate::app::AppState;
use crate::error::{Checks, Result};
use crate::extract::{Internal, Query};

/// The most days that are told of.
const MOST_DAYS: u16 = 90;

/// Of which days.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct StatsQuery {
    /// How many days, today included.
    #[serde(default = "week")]
    #[param(minimum = 1, maximum = 90, default = 7, required = false)]
    days: u16,
}

fn week() -> u16 {
    7
}

/// The figures of the whole fleet, by UTC days.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct StatsBody {
    /// The first day.
    #[schema(format = Date)]
    from: String,
    /// The last day, today.
    #[schema(format = Date)]
    to: String,
    /// Replies that were asked for and ended, the help desk's included: from acceptance to the end. Those that
    /// were cancelled are left out.
    requests: Counted,
    /// The help desk's alone.
    support: Counted,
    /// Calls of the embedding provider.
    embedding: Counted,
    /// Vectors of questions that were remembered.
    embedding_cache: Cache,
    /// Searches of the knowledge base.
    search: Searches,
    /// How far the help desk gets without people.
    outcomes: OutcomesBody,
    /// What calls of models took, as in the usage report.
    cost: Cost,
}

/// How many there were, how many failed, and how long they took.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Counted {
    count: i64,
    failed: i64,
    /// The share that failed, 0 to 1; null where there were none.
    error_rate: Option<f64>,
    #[serde(flatten)]
    times: Times,
}

/// Questions whose vectors were wanted.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Cache {
    hits: i64,
    misses: i64,
    /// The share of hits, 0 to 1; null where nothing was wanted.
    hit_rate: Option<f64>,
    /// Vectors that the workers which live remember now.
    entries: i64,
    /// What they take.
    bytes: i64,
}

/// Searches of the knowledge base, without the time their questions' vectors took.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Searches {
    count: i64,
    /// Those by words only.
    degraded: i64,
    #[serde(flatten)]
    times: Times,
}

/// What became of the help desk's conversations. One is over a day after its last question; who comes back
/// later has reopened it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct OutcomesBody {
    questions: i64,
    /// Questions that the knowledge base answered, or that needed no entry.
    answered: i64,
    rated_up: i64,
    rated_down: i64,
    sessions: i64,
    /// May still go on.
    open: i64,
    /// A person should have taken over, or did.
    handed_over: i64,
    /// Somebody came back.
    reopened: i64,
    /// Ended with an answer that nobody complained about, without hand-over and without coming back.
    deflected: i64,
    /// The share of the conversations that are over which were deflected, 0 to 1; null where none is over.
    deflection_rate: Option<f64>,
    /// Only the newest 100,000 questions were looked at.
    truncated: bool,
}

/// Credits, to the last digit.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct Cost {
    total: Spending,
    by_operation: BTreeMap<String, Spending>,
    by_model: BTreeMap<String, Spending>,
    by_operation_and_model: Vec<OperationCost>,
}

/// What the calls of a model for an operation took.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct OperationCost {
    /// `completion`, `title`, `embedding` and so on.
    operation: String,
    model: String,
    #[serde(flatten)]
    spending: Spending,
}

/// The figures of the whole fleet: requests, errors, times, cache, deflection and cost. What the processes
/// count is a few seconds late, and a process that is killed takes its last seconds with it; cost is from the
/// ledger and exact.
#[utoipa::path(
    get, path = "/internal/stats", operation_id = "read_stats", tag = "internal", params(StatsQuery),
    responses((status = 200, body = StatsBody))
)]
pub(in crate::routes) async fn read(
    State(app): State<AppState>,
    _: Internal,
    Query(query): Query<StatsQuery>,
) -> Result<axum::Json<StatsBody>> {
    let mut checks = Checks::default();
    checks.require(
        (1..=MOST_DAYS).contains(&query.days),
        "days",
        "must be a number between 1 and 90",
    );
    checks.finish()?;
    let stats = app.stats.of(&app.operator, query.days).await?;
    Ok(axum::Json(StatsBody::new(&stats)))
}

impl StatsBody {
    fn new(stats: &Stats) -> Self {
        let sum = |figure: Figure| stats.figures.get(&figure).cloned().unwrap_or_default();
        let support = sum(Figure::SupportReply);
        let mut requests = sum(Figure::Reply);
        requests.add(&support);
        let (search, cache) = (sum(Figure::Search), sum(Figure::EmbeddingCache));
        Self {
            from: day(stats.from),
            to: day(stats.to),
            requests: Counted::new(&requests),
            support: Counted::new(&support),
            embedding: Counted::new(&sum(Figure::Embedding)),
            embedding_cache: Cache {
                hits: cache.calls - cache.failed,
                misses: cache.failed,
                hit_rate: cache.failure_rate().map(|missed| 1.0 - missed),
                entries: stats.cache.entries,
                bytes: stats.cache.bytes,
            },
            search: Searches {
                count: search.calls,
                degraded: search.failed,
                times: search.times(),
            },
            outcomes: OutcomesBody::new(&stats.outcomes),
            cost: Cost::new(stats),
        }
    }
}

impl Counted {
    fn new(sum: &Sum) -> Self {
        Self {
            count: sum.calls,
            failed: sum.failed,
            error_rate: sum.failure_rate(),
            times: sum.times(),
        }
    }
}

impl OutcomesBody {
    fn new(of: &Outcomes) -> Self {
        let over = of.sessions - of.open;
        let rate = (over > 0).then(|| of.deflected as f64 / over as f64);
        Self {
            questions: of.questions,
            answered: of.answered,
            rated_up: of.rated_up,
            rated_down: of.rated_down,
            sessions: of.sessions,
            open: of.open,
            handed_over: of.handed_over,
            reopened: of.reopened,
            deflected: of.deflected,
            deflection_rate: rate.map(|rate| (rate * 10_000.0).round() / 10_000.0),
            truncated: of.truncated,
        }
    }
}

impl Cost {
    fn new(stats: &Stats) -> Self {
        let by = |name: fn(&shared::store::usage::Part) -> &String| {
            let names: std::collections::BTreeSet<_> = stats.parts.iter().map(name).collect();
            let sum = |of: &String| {
                together(
                    stats
                        .parts
                        .iter()
                        .filter(|part| name(part) == of)
                        .map(|part| &part.spending),
                )
            };
            names
                .into_iter()
                .map(|of| (of.clone(), sum(of)))
                .collect::<BTreeMap<_, _>>()
        };
        Self {
            total: together(stats.parts.iter().map(|part| &part.spending)),
            by_operation: by(|part| &part.operation),
            by_model: by(|part| &part.model),
            by_operation_and_model: stats
                .parts
                .iter()
                .map(|part| OperationCost {
                    operation: part.operation.clone(),
                    model: part.model.clone(),
                    spending: part.spending,
                })
                .collect(),
        }
    }
}
