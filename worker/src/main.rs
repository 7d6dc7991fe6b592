//! `balas-worker`: makes the replies.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use shared::clock::Clock;
use shared::config::Vars;
use shared::lifecycle::Lifecycle;
use worker::admin::{Admin, AdminConfig};
use worker::config::WorkerConfig;

/// Claims generations, asks the upstream and stores the replies. Configured by environment
/// variables only.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work (the default).
    Run,
    /// Look at queues, workers and dead letters, and act on them. Reads DATABASE_URL, REDIS_URL,
    /// RABBITMQ_URL and the models' variables.
    Admin(Admin),
    /// Ask the worker that listens on HEALTH_ADDRESS of this machine whether it is ready; fails when it is not.
    Healthcheck,
}

fn main() -> anyhow::Result<ExitCode> {
    let mut described = Vars::from_map::<String, String>([]);
    WorkerConfig::from_vars(&mut described);
    let matches = Arguments::command()
        .after_long_help(described.help())
        .get_matches();
    match Arguments::from_arg_matches(&matches)?.command {
        None | Some(Command::Run) => run(),
        Some(Command::Admin(admin)) => run_admin(admin),
        Some(Command::Healthcheck) => run_healthcheck(),
    }
}

/// Needs no other variable than that of the address, so that it works wherever the worker does.
fn run_healthcheck() -> anyhow::Result<ExitCode> {
    let mut vars = Vars::from_process();
    let address = worker::config::health_address(&mut vars);
    vars.finish()?;
    let address = address.context("HEALTH_ADDRESS is not set, so nobody can be asked")?;
    shared::healthcheck::ask(address)?;
    Ok(ExitCode::SUCCESS)
}

fn run_admin(admin: Admin) -> anyhow::Result<ExitCode> {
    let mut vars = Vars::from_process();
    let config = AdminConfig::from_vars(&mut vars);
    vars.finish()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(worker::admin::run(config, admin, Clock::system()))?;
    std::io::Write::write_all(&mut std::io::stdout(), outcome.text.as_bytes())?;
    Ok(outcome.code)
}

fn run() -> anyhow::Result<ExitCode> {
    let mut vars = Vars::from_process();
    let config = WorkerConfig::from_vars(&mut vars);
    vars.finish()?;
    shared::telemetry::init(&config.log);
    shared::metrics::install();
    shared::metrics::identify("balas-worker", env!("CARGO_PKG_VERSION"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.stop_on_signals()?;
        // The runtime that the watchdog found stuck would not let `main` return.
        let leave = |code: u8| std::process::exit(code.into());
        worker::run::run_watched(config, Clock::system(), lifecycle, leave).await
    });
    // What still runs has been given up; waiting for it could take for ever.
    runtime.shutdown_background();
    outcome
}
