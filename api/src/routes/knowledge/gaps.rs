//! `/api/chat/knowledge/gaps`: what people ask and the knowledge base does not answer, or not well.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use shared::desk::gaps::{Cluster, clusters};
use shared::domain::timestamp;
use shared::store::knowledge as store;
use shared::store::learning::questions::{self, RatedEntry};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::app::AppState;
use crate::csv::Table;
use crate::error::{Checks, Code, Problem, Result};
use crate::extract::{Admin, Query};

/// Questions that are grouped, the newest.
const QUESTIONS: i64 = 2_000;
/// Groups and entries that are told of, the largest.
const GROUPS: usize = 200;
const ENTRIES: i64 = 50;
/// Examples of a group in the table.
const EXAMPLES: usize = 5;

/// What to report.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct GapsQuery {
    /// Of how many days.
    #[serde(default = "month")]
    #[param(minimum = 1, maximum = 365, default = 30, required = false)]
    days: u16,
    /// In which form.
    #[serde(default)]
    #[param(inline, required = false)]
    format: GapsFormat,
}

/// The form of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GapsFormat {
    /// An object.
    #[default]
    Json,
    /// A table of the groups, a line for each.
    Csv,
}

fn month() -> u16 {
    30
}

/// What the knowledge base lacks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Gaps {
    days: u16,
    /// Questions that were grouped: the newest 2000 at most.
    questions: usize,
    /// There were more questions, or more groups, than are told of.
    truncated: bool,
    /// Questions about the same, the largest group first; at most 200.
    gaps: Vec<GapGroup>,
    /// Entries of which answers were made that did not help, the most frequent first; at most 50.
    entries: Vec<EntryRating>,
}

/// Questions about the same. Their words are shown without addresses, links and long numbers, and whose they
/// are is not told.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GapGroup {
    /// The one that most of them resemble.
    question: String,
    count: usize,
    /// Those that were not answered.
    unanswered: usize,
    /// Those whose answer did not help.
    down_voted: usize,
    /// Conversations they were asked in.
    conversations: usize,
    /// What they are about, the most frequent first.
    intents: Vec<String>,
    /// Different ways they were asked, the newest first; at most five.
    examples: Vec<String>,
    /// When it was asked first.
    #[serde(with = "shared::domain::timestamp")]
    first_at: OffsetDateTime,
    /// When it was asked last.
    #[serde(with = "shared::domain::timestamp")]
    last_at: OffsetDateTime,
}

/// What people thought of answers that were made of an entry.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EntryRating {
    document_id: Uuid,
    menu: String,
    issue: String,
    /// Answers that helped.
    up: i64,
    /// Answers that did not.
    down: i64,
}

/// What people asked that was not answered, or whose answer they said did not help, grouped by what it is
/// about.
#[utoipa::path(
    get, path = "/api/chat/knowledge/gaps", operation_id = "report_gaps", tag = "knowledge", params(GapsQuery),
    responses(
        (status = 200, description = "The report.", content((Gaps = "application/json"), (String = "text/csv"))),
        (status = 403, description = "admin_required"),
        (status = 503, description = "knowledge_unavailable"),
    )
)]
pub(crate) async fn report(
    State(app): State<AppState>,
    Admin(admin): Admin,
    Query(query): Query<GapsQuery>,
) -> Result<Response> {
    let mut checks = Checks::default();
    checks.require(
        (1..=365).contains(&query.days),
        "days",
        "must be a number between 1 and 365",
    );
    checks.finish()?;
    let mut tx = app.db.editor(admin.id).await?;
    if !store::is_available(tx.as_user()).await? {
        return Err(Problem::of(Code::KnowledgeUnavailable));
    }
    let mut asked = questions::gaps(&mut tx, query.days, QUESTIONS + 1).await?;
    let entries = questions::rated_entries(&mut tx, query.days, ENTRIES).await?;
    drop(tx);
    let more = i64::try_from(asked.len()).unwrap_or(i64::MAX) > QUESTIONS;
    if more {
        // The oldest.
        asked.remove(0);
    }
    let mut groups = clusters(&asked);
    let truncated = more || groups.len() > GROUPS;
    groups.truncate(GROUPS);
    tracing::info!(
        questions = asked.len(),
        days = query.days,
        "an editor read what was not answered"
    );
    let report = Gaps {
        days: query.days,
        questions: asked.len(),
        truncated,
        gaps: groups.into_iter().map(GapGroup::from).collect(),
        entries: entries.into_iter().map(EntryRating::from).collect(),
    };
    Ok(match query.format {
        GapsFormat::Json => ([(CACHE_CONTROL, "no-store")], axum::Json(report)).into_response(),
        GapsFormat::Csv => {
            let headers = [
                (CONTENT_TYPE, "text/csv; charset=utf-8"),
                (CONTENT_DISPOSITION, "attachment; filename=\"gaps.csv\""),
                (CACHE_CONTROL, "no-store"),
            ];
            (headers, table(&report)).into_response()
        }
    })
}

fn table(report: &Gaps) -> String {
    let mut table = Table::new(&[
        "question",
        "count",
        "unanswered",
        "down_voted",
        "conversations",
        "intents",
        "first_at",
        "last_at",
        "example_1",
        "example_2",
        "example_3",
        "example_4",
        "example_5",
    ]);
    for gap in &report.gaps {
        let mut cells = vec![
            gap.question.clone(),
            gap.count.to_string(),
            gap.unanswered.to_string(),
            gap.down_voted.to_string(),
            gap.conversations.to_string(),
            gap.intents.join(" "),
            timestamp::format(gap.first_at),
            timestamp::format(gap.last_at),
        ];
        cells.extend(gap.examples.iter().take(EXAMPLES).cloned());
        cells.resize(8 + EXAMPLES, String::new());
        table.line(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    table.finish()
}

impl From<Cluster> for GapGroup {
    fn from(cluster: Cluster) -> Self {
        Self {
            question: cluster.question,
            count: cluster.count,
            unanswered: cluster.unanswered,
            down_voted: cluster.down_voted,
            conversations: cluster.conversations,
            intents: cluster.intents,
            examples: cluster.examples,
            first_at: cluster.first_at,
            last_at: cluster.last_at,
        }
    }
}

impl From<RatedEntry> for EntryRating {
    fn from(entry: RatedEntry) -> Self {
        Self {
            document_id: entry.document_id,
            menu: entry.menu,
            issue: entry.issue,
            up: entry.up,
            down: entry.down,
        }
    }
}
