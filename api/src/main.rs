//! Entry point of the API: reads the command line and the environment, and hands over to the
//! library.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use api::app::AppState;
use api::config::{self, Config};
use api::gate::Gate;
use api::{error, openapi, serve};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use shared::clock::Clock;
use shared::config::Vars;
use shared::lifecycle::Lifecycle;
use shared::metrics;
use shared::redis::Redis;
use shared::store::{Db, DbConfig, History, ServingRole, StoreError, migrate};
use shared::telemetry::{self, LogConfig};

/// The library's default allocator keeps more memory per idle socket.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What closing the database's connections may take at the end.
const CLOSING: Duration = Duration::from_secs(1);

/// The Balas HTTP, SSE and WebSocket API.
#[derive(Debug, Parser)]
#[command(name = "balas-api", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, Debug, Default, Subcommand)]
enum Command {
    /// Serve requests (the default).
    #[default]
    Serve,
    /// Create or update the database's roles and schema. Needs a login that may create roles the
    /// first time, as MIGRATE_DATABASE_URL or DATABASE_URL.
    Migrate,
    /// Print the OpenAPI document.
    Openapi,
    /// Ask the process that listens on PORT of this machine whether it is ready; fails when it is not.
    Healthcheck,
}

fn main() -> ExitCode {
    let mut described = Vars::from_map::<String, String>([]);
    Config::from_vars(&mut described);
    let command = Arguments::command().after_long_help(described.help());
    let arguments = match Arguments::from_arg_matches(&command.get_matches()) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let outcome = match arguments.command.unwrap_or_default() {
        Command::Serve => run_serve(),
        Command::Migrate => run_migrate(),
        Command::Openapi => print_openapi(),
        Command::Healthcheck => run_healthcheck(),
    };
    outcome.unwrap_or_else(|error| {
        // Also before there is a log to write to.
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("balas-api: {error:#}\n"),
        );
        ExitCode::FAILURE
    })
}

fn run_serve() -> anyhow::Result<ExitCode> {
    let mut vars = Vars::from_process();
    let config = Config::from_vars(&mut vars);
    vars.finish()?;
    telemetry::init(&config.log);
    let runtime = runtime()?;
    let outcome = runtime.block_on(run(config));
    // What still runs has been given up; waiting for it could take for ever.
    runtime.shutdown_background();
    outcome
}

/// Needs no other variable than those of the address, so that it works wherever the process does.
fn run_healthcheck() -> anyhow::Result<ExitCode> {
    let mut vars = Vars::from_process();
    let address = config::address(&mut vars);
    vars.finish()?;
    shared::healthcheck::ask(address)?;
    Ok(ExitCode::SUCCESS)
}

async fn run(config: Config) -> anyhow::Result<ExitCode> {
    metrics::install();
    metrics::identify("balas-api", env!("CARGO_PKG_VERSION"));
    for warning in config.api.warnings() {
        tracing::warn!("{warning}");
    }
    let lifecycle = Lifecycle::new();
    lifecycle
        .stop_on_signals()
        .context("failed to listen to signals")?;
    let server = config.api.server.clone();
    let db = Db::connect_lazy(&config.db, ServingRole::Api)?;
    let redis = Redis::connect_lazy(&config.redis)?;
    let gate = Gate::new(config.api, Clock::system())?;
    let traces = gate.traces.clone();
    let view = Db::connect_lazy(&config.operator_db, ServingRole::Operator)?;
    let history = History::connect_lazy(db.clone(), config.history_db.as_ref())?;
    let state = AppState::new(
        gate,
        config.models,
        db.clone(),
        history.clone(),
        view.clone(),
        redis,
        lifecycle.clone(),
    )?;
    match db.check_role().await {
        Err(error) if !error.is_unavailable() => return Err(error).context("refused to serve"),
        Err(_) => {
            tracing::warn!("the database is away; requests are answered with 503 until it is back")
        }
        Ok(()) => {}
    }
    match view.check_role().await {
        Err(error @ StoreError::Corrupt(_)) => return Err(error).context("refused to serve"),
        Err(error) if !error.is_unavailable() => tracing::warn!(
            error = error::chain(&error),
            "operators cannot use the database and full queues are not noticed; see OPERATOR_DATABASE_URL"
        ),
        _ => {}
    }
    let listener = serve::listen(server.address)
        .with_context(|| format!("failed to listen on {}", server.address))?;
    tracing::info!(server.address = %listener.local_addr()?, "serving");
    serve::serve(listener, state).await;
    tracing::info!(
        grace_s = server.shutdown_grace.as_secs(),
        "the listener is closed; requests in flight finish"
    );
    let code = lifecycle.finished(server.shutdown_grace).await;
    // Connections that do not take part in it are cut off.
    let closed = async { tokio::join!(view.close(), db.close(), history.close()) };
    let _ = tokio::time::timeout(CLOSING, closed).await;
    let _ = tokio::task::spawn_blocking(move || traces.stop()).await;
    tracing::info!("stopped");
    Ok(code)
}

fn run_migrate() -> anyhow::Result<ExitCode> {
    let mut vars = Vars::from_process();
    let log = LogConfig::from_vars(&mut vars);
    let url = match config::migrate_url(&mut vars) {
        Some(url) => url,
        None => DbConfig::from_vars(&mut vars).url,
    };
    vars.finish()?;
    telemetry::init(&log);
    runtime()?.block_on(migrate::run(&url))?;
    tracing::info!("the schema is up to date");
    Ok(ExitCode::SUCCESS)
}

fn print_openapi() -> anyhow::Result<ExitCode> {
    std::io::Write::write_all(&mut std::io::stdout(), openapi::text().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")
}
