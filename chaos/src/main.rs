//! The fault suite: real processes, a load of conversations, faults drawn from a seed, and an external
//! ledger of every acknowledged request and every call of the model. After healing it judges what
//! Balas promises. `cargo xtask chaos` prepares the servers and runs it.

mod check;
mod fault;
mod fleet;
mod load;
mod monitor;
mod proxy;
mod receiver;
mod report;
mod run;
mod schedule;
mod task;
mod weather;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use loadtest::clock::unix_micros;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::fault::Fault;
use crate::run::Options;

/// Breaks everything that can break while messages come in, then checks what Balas promises.
#[derive(Debug, Parser)]
#[command(name = "chaos", version)]
struct Arguments {
    /// Prints the faults and what they do.
    #[arg(long, exclusive = true)]
    list: bool,
    /// Decides the order of the faults; another one each time without it.
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults go on.
    #[arg(long, default_value_t = 2.0, value_parser = minutes)]
    minutes: f64,
    /// Only this fault, again and again.
    #[arg(long, value_parser = fault)]
    fault: Option<Fault>,
    /// Replies that are in flight when everybody is killed; thousands in a run of ten minutes or more.
    #[arg(long)]
    crowd: Option<usize>,
    #[command(flatten)]
    parts: Option<PartArguments>,
}

/// What `cargo xtask chaos` has prepared.
#[derive(Debug, Clone, clap::Args)]
struct PartArguments {
    /// The program `balas-api`.
    #[arg(long)]
    api: PathBuf,
    /// The program `balas-worker`.
    #[arg(long)]
    worker: PathBuf,
    /// Folder for the logs.
    #[arg(long)]
    logs: PathBuf,
    /// File in which every child is noted.
    #[arg(long)]
    children: PathBuf,
    /// File that says how Postgres is started.
    #[arg(long)]
    postgres: PathBuf,
    /// File that says how Redis is started.
    #[arg(long)]
    redis: PathBuf,
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    redis_url: String,
    #[arg(long, env = "JWT_SECRET", hide_env_values = true)]
    jwt_secret: String,
}

fn fault(name: &str) -> Result<Fault, String> {
    Fault::named(name).ok_or_else(|| "no such fault; --list shows all".to_owned())
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.0..=24.0 * 60.0).contains(&minutes) => Ok(minutes),
        _ => Err("a number of minutes, at most a day".to_owned()),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.list {
        report::list();
        return Ok(ExitCode::SUCCESS);
    }
    let parts = arguments
        .parts
        .context("run this as `cargo xtask chaos`, which prepares the servers")?;
    let options = Options {
        seed: arguments.seed.unwrap_or_else(|| unix_micros() % 1_000_000),
        minutes: arguments.minutes,
        only: arguments.fault,
        crowd: arguments.crowd,
        api: parts.api,
        worker: parts.worker,
        logs: parts.logs,
        children: parts.children,
        postgres: parts.postgres,
        redis: parts.redis,
        database_url: parts.database_url,
        redis_url: parts.redis_url,
        jwt_secret: parts.jwt_secret,
    };
    fleet::stand_apart();
    loadtest::limits::raise_open_files().context("failed to raise the limit of open files")?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?
        .block_on(go(&options))
}

async fn go(options: &Options) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let stopping = stop.clone();
    task::spawn(async move {
        if let [Ok(interrupt), Ok(terminate)] = &mut signals {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            stopping.cancel();
        }
    });
    match run::run(options, &stop).await? {
        Some(true) => Ok(ExitCode::SUCCESS),
        Some(false) => {
            let only = options
                .only
                .map_or(String::new(), |fault| format!(" --fault {}", fault.name()));
            let crowd = options
                .crowd
                .map_or(String::new(), |crowd| format!(" --crowd {crowd}"));
            report::line(&format!(
                "\na promise was broken; again with: cargo xtask chaos --seed {} --minutes {}{only}{crowd}",
                options.seed, options.minutes
            ));
            Ok(ExitCode::FAILURE)
        }
        None => {
            report::line("stopped");
            Ok(ExitCode::from(130))
        }
    }
}
