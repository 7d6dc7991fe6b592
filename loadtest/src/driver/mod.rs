//! The load driver behind the `loadtest` binary.
//!
//! Load is open-loop: messages leave by a schedule that does not wait for answers, and a latency
//! counts from the moment its message was *meant* to leave. A server that stalls for a second
//! therefore shows that second in the numbers of everybody who would have come meanwhile, which
//! is what coordinated omission hides. Closed-loop runs (`--closed`) find the most that goes
//! through; their latencies describe the queue, not the service.

mod accept;
mod chat;
mod conditions;
mod estimates;
mod feed;
mod http;
mod inflight;
mod limit;
mod measure;
mod messages;
mod options;
mod pace;
mod process;
mod report;
mod shape;
mod simulator_log;
mod sockets;
mod streams;
mod target;
mod token;
mod tracker;
mod world;

pub use conditions::{Conditions, Fdatasync};
pub use measure::Summary;
pub use options::{Arguments, Arrivals, Command, Common, Load, Scenario};
pub use process::{Memory, memory};
pub use report::Report;
pub use shape::{
    Bucket, Compare, Comparison, Counts, Curve, FORMAT, Mark, Rate, Record, Shape, Verdict, compare,
};
pub use token::Signer;

/// Runs the scenario that was asked for and returns what it found.
///
/// # Errors
/// The target is not allowed or not there, or the set-up of the scenario failed. Failures under
/// load are not errors: they are counted in the report.
pub async fn run(common: &Common, scenario: &Scenario) -> anyhow::Result<Report> {
    let mut report = match scenario {
        Scenario::Accept(options) => accept::run(common, options).await,
        Scenario::Chat(options) => chat::run(common, options).await,
        Scenario::Inflight(options) => inflight::run(common, options).await,
        Scenario::Sockets(options) => sockets::run(common, options).await,
        Scenario::Streams(options) => return streams::run(common, options).await,
        Scenario::Shape(shape) => shape::run(common, shape).await,
    }?;
    report.figure("version of the API", version(common).await);
    Ok(report)
}

/// What the API says about itself; a run without that is still a run.
async fn version(common: &Common) -> String {
    #[derive(serde::Deserialize)]
    struct Health {
        version: String,
    }
    let Ok(target) = target::Target::resolve(&common.api, common.allow_remote).await else {
        return "unknown".to_owned();
    };
    let health = http::Connection::new(target)
        .get_json::<Health>("/health")
        .await;
    health.map_or_else(|_| "unknown".to_owned(), |health| health.version)
}
