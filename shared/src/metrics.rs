//! Every metric of Balas, declared in one place: name, help and unit.
//!
//! The values of every label are few and known: routes and not paths, models that were asked for (an operator
//! lists those) and not what an upstream or a client calls them, classes of errors and not their texts.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $kind:ident $constant:ident = $name:literal $([$($bucket:literal),+])?;)+) => {
        $($(#[doc = $help])+ pub const $constant: &str = $name;)+

        fn describe() {
            $(describe_one!($kind, $constant, concat!($($help),+).trim());)+
        }

        fn with_buckets(builder: PrometheusBuilder) -> PrometheusBuilder {
            [$($((Matcher::Full($name.to_owned()), &[$($bucket),+][..]),)?)+]
                .into_iter()
                .fold(builder, |builder, (matcher, buckets)| match builder.set_buckets_for_metric(matcher, buckets) {
                    Ok(builder) => builder,
                    Err(error) => unreachable!("the buckets are not empty: {error}"),
                })
        }

        /// The names of all metrics.
        pub const ALL: &[&str] = &[$($name),+];
    };
}

macro_rules! describe_one {
    (counter, $name:expr, $help:expr) => {
        metrics::describe_counter!($name, $help)
    };
    (gauge, $name:expr, $help:expr) => {
        metrics::describe_gauge!($name, $help)
    };
    (histogram, $name:expr, $help:expr) => {
        metrics::describe_histogram!($name, $help)
    };
}

metrics! {
    /// Time from request to response, in seconds, by method, route and status_code.
    histogram HTTP_REQUEST_DURATION = "http_request_duration_seconds"
        [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0];
    /// 1, by service and version.
    gauge BUILD_INFO = "balas_build_info";
    /// Calls of the upstream by model and status (completed, or the class of the error).
    counter OPENROUTER_REQUESTS = "openrouter_requests_total";
    /// Tokens by model and type (prompt, completion).
    counter TOKEN_USAGE = "token_usage_total";
    /// Credits that the upstream says were spent, in millionths, by model, operation (completion, title, …) and wasted
    /// (true: nobody got anything for them).
    counter UPSTREAM_COST = "upstream_cost_micro_credits_total";
    /// Questions to the upstream about costs that were unknown, by outcome (settled, not_yet, failed, given_up).
    counter COST_QUESTIONS = "cost_questions_total";
    /// Budgets of which four fifths were used, once a period, by scope (user, total) and period (day, month).
    counter BUDGET_WARNINGS = "budget_warnings_total";
    /// Requests that met a budget that is used up, by scope, period and outcome (refused, free_model).
    counter BUDGET_EXHAUSTED = "budget_exhausted_total";
    /// People and models that took far more than before, once a day each, by about (user, model) and unit
    /// (credits, tokens).
    counter USAGE_ANOMALIES = "usage_anomalies_total";
    /// Calls of free models by model, user_tier (free, premium; background for titles) and success (true, false).
    counter FREE_REQUESTS = "free_model_requests_total";
    /// Time that calls of free models took until they ended well, in seconds, by model.
    histogram FREE_RESPONSE_TIME = "free_model_response_time_seconds"
        [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 45.0, 90.0];
    /// Calls of free models that failed by model and error_type.
    counter FREE_ERRORS = "free_model_errors_total";
    /// Conversations in which something was asked for in the last five minutes; counted up to the newest 100,000
    /// generations. The same on every API process: take the largest.
    gauge CONVERSATIONS_ACTIVE = "conversations_active";
    /// Queued generations that are not parked, by priority. The same on every process: take the largest.
    gauge QUEUE_DEPTH = "generation_queue_depth";
    /// Queued generations that wait for their turn or for a place of their person, by priority. The same on every
    /// process: take the largest.
    gauge PARKED = "generation_parked";
    /// How long the generation that is due for longest has been, in seconds, by priority. The same on every process:
    /// take the largest.
    gauge OLDEST_WAIT = "generation_oldest_wait_seconds";
    /// Whether operators have paused the queue, by priority: 1 or 0. The same on every process: take the largest.
    gauge QUEUE_PAUSED = "generation_queue_paused";
    /// How long ago the queues were measured, in seconds; more than a few where no worker lives.
    gauge QUEUE_MEASURED_AGE = "generation_queue_measured_age_seconds";
    /// Workers that live and take work. The same on every process: take the largest.
    gauge WORKERS = "fleet_workers";
    /// Requests that were refused because the queue is full, by priority.
    counter OVERLOADED = "overloaded_total";
    /// Time from acceptance to the start of the first attempt, in seconds.
    histogram PICKUP = "generation_pickup_seconds"
        [0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0, 600.0];
    /// Time from the call to the first token, in seconds, by model.
    histogram TIME_TO_FIRST_TOKEN = "generation_time_to_first_token_seconds"
        [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 20.0];
    /// How long calls were told to wait for the account's limit, in seconds, by kind (free or paid).
    histogram PACING_WAIT = "pacing_wait_seconds"
        [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 300.0];
    /// Upstream calls by key (the start of its SHA-256) and status.
    counter KEY_REQUESTS = "upstream_key_requests_total";
    /// Whether a model is left alone: 0 closed, 1 open, 2 half open, by model and kind of error.
    gauge BREAKER_STATE = "breaker_state";
    /// Calls of free models that the upstream still allows today.
    gauge FREE_CALLS_LEFT = "free_model_calls_left";
    /// Credits bought less credits used, as this worker read them last.
    gauge CREDITS_LEFT = "upstream_credits_left";
    /// When this worker last read the account, in seconds since 1970: one worker at a time does, so an old
    /// reading says nothing.
    gauge ACCOUNT_READ = "upstream_account_read_timestamp_seconds";
    /// Time from start to end of an attempt, in seconds, by model (the first of its chain) and outcome (completed,
    /// failed, put_back, fenced, lost, drained).
    histogram GENERATION_DURATION = "generation_duration_seconds"
        [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 45.0, 90.0];
    /// Generations this worker runs right now.
    gauge IN_FLIGHT = "generations_in_flight";
    /// Ends of attempts by outcome (completed, failed, put_back, fenced, lost, drained).
    counter ATTEMPTS = "generation_attempts_total";
    /// Leases that ran out.
    counter LEASE_EXPIRED = "lease_expired_total";
    /// What the sweeps repaired, by action.
    counter RECONCILE_ACTIONS = "reconcile_actions_total";
    /// Generations that were given up, by kind.
    counter DEAD_LETTERS = "dead_letters_total";
    /// Ends of tries to deliver a notification, by destination and outcome (delivered, retried, dead,
    /// void: nothing left to tell, lost: the claim had run out).
    counter NOTIFICATIONS = "notifications_total";
    /// Undelivered notifications by destination, dead ones aside; counted up to 100,000.
    gauge NOTIFICATION_BACKLOG = "notification_backlog";
    /// Age of the oldest undelivered notification, in seconds, by destination.
    gauge NOTIFICATION_OLDEST = "notification_oldest_seconds";
    /// Notifications that were given up and wait for an operator, by destination.
    gauge NOTIFICATIONS_DEAD = "notifications_dead";
    /// Whether a destination failed so often that one notification at a time is tried: 1 or 0.
    gauge NOTIFICATION_BREAKER = "notification_breaker_open";
    /// Events from the broker by type and outcome (done, repeated, refused: it went to the dead-letter queue).
    counter INBOUND_EVENTS = "inbound_events_total";
    /// Whether events are being consumed from the broker: 1 or 0.
    gauge INBOUND_CONNECTED = "inbound_connected";
    /// Welcomes by how they came about (written, composed).
    counter WELCOMES = "assessment_welcomes_total";
    /// Questions to the platform's services by service (archive, auth) and outcome (answered, not_found, failed after
    /// all tries, kept: a former answer was good enough, rested: it was left alone).
    counter PLATFORM_REQUESTS = "platform_requests_total";
    /// Time of a question to one of them with all its tries, in seconds, by service.
    histogram PLATFORM_DURATION = "platform_request_duration_seconds"
        [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0, 25.0];
    /// Whether this process leaves one of them alone, as the last question left it: 0 closed, 1 open, 2 half open,
    /// by service.
    gauge PLATFORM_BREAKER = "platform_breaker_state";
    /// Calls of the embedding provider by model and status.
    counter EMBEDDING_REQUESTS = "embedding_requests_total";
    /// Time of an embedding call, in seconds, by model.
    histogram EMBEDDING_DURATION = "embedding_duration_seconds"
        [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0];
    /// Questions whose vector was remembered by the process (hit) or by the database (stored), or had to be asked for (miss).
    counter EMBEDDING_CACHE = "embedding_cache_total";
    /// Vectors of questions that the worker remembers.
    gauge EMBEDDING_CACHE_ENTRIES = "embedding_cache_entries";
    /// What they take, in bytes.
    gauge EMBEDDING_CACHE_BYTES = "embedding_cache_bytes";
    /// Time of a search without its question's vector, in seconds, by degraded (true: words only).
    histogram KNOWLEDGE_SEARCH_DURATION = "knowledge_search_duration_seconds"
        [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
    /// Turns of the help desk by intent and outcome (answered, unanswered, template, escalated).
    counter SUPPORT_TURNS = "support_turns_total";
    /// Connected clients by transport (sse, websocket).
    gauge PUSH_CONNECTIONS = "push_connections";
    /// Events that did not fit a listener's buffer.
    counter PUSH_DROPPED = "push_dropped_total";
    /// Whether a server answers this process, by dependency (database, redis): 1 or 0.
    gauge DEPENDENCY_UP = "dependency_up";
    /// How long the last answer to a sign of life took, in seconds, by dependency (database, redis).
    gauge DEPENDENCY_LATENCY = "dependency_latency_seconds";
    /// Connections of this process to Postgres by state (busy, idle).
    gauge DB_CONNECTIONS = "db_connections";
    /// Commands of Redis that failed or got no answer in time; those that were then not tried are not counted.
    counter REDIS_FAILURES = "redis_failures_total";
    /// Batches of spans that the collector of traces did not take.
    counter TRACE_FAILURES = "trace_export_failures_total";
}

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the process's recorder, once; more calls change nothing.
pub fn install() {
    HANDLE.get_or_init(|| {
        let recorder = with_buckets(PrometheusBuilder::new()).build_recorder();
        let handle = recorder.handle();
        // Fails only where a test has installed a recorder of its own.
        let _ = metrics::set_global_recorder(recorder);
        describe();
        Collector::default().describe();
        handle
    });
}

/// All metrics in the Prometheus text format; empty before [`install`].
#[must_use]
pub fn render() -> String {
    HANDLE
        .get()
        .map(|handle| {
            Collector::default().collect();
            handle.run_upkeep();
            handle.render()
        })
        .unwrap_or_default()
}

/// Says what this process is.
pub fn identify(service: &'static str, version: &'static str) {
    metrics::gauge!(BUILD_INFO, "service" => service, "version" => version).set(1.0);
}
