//! `balas-worker`: makes the replies.

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use shared::clock::Clock;
use shared::config::Vars;
use shared::lifecycle::Lifecycle;
use worker::config::WorkerConfig;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Claims generations, asks the upstream and stores the replies. Configured by environment
/// variables only.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {}

fn main() -> anyhow::Result<ExitCode> {
    let mut described = Vars::from_map::<String, String>([]);
    WorkerConfig::from_vars(&mut described);
    let matches = Arguments::command()
        .after_long_help(described.help())
        .get_matches();
    Arguments::from_arg_matches(&matches)?;
    let mut vars = Vars::from_process();
    let config = WorkerConfig::from_vars(&mut vars);
    vars.finish()?;
    shared::telemetry::init(&config.log);
    shared::metrics::install();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let lifecycle = Lifecycle::new();
        lifecycle.stop_on_signals()?;
        worker::run::run(config, Clock::system(), lifecycle).await
    })
}
