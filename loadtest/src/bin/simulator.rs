//! The upstream simulator as a process of its own.

use std::io::Write;
use std::net::SocketAddr;

use clap::Parser;
use loadtest::simulator::{Settings, Simulator};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A scriptable double of OpenRouter and of OpenAI-compatible embedding services.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "SIMULATOR_LISTEN", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Milliseconds before the headers.
    #[arg(long, env = "SIMULATOR_TTFB_MS", default_value_t = 0)]
    ttfb_ms: u64,
    /// Milliseconds from the headers to the first token.
    #[arg(long, env = "SIMULATOR_TTFT_MS", default_value_t = 300)]
    ttft_ms: u64,
    /// Tokens per second; 0 sends everything at once.
    #[arg(long, env = "SIMULATOR_RATE", default_value_t = 40.0)]
    rate: f64,
    /// Length of a reply in tokens: a number or a range.
    #[arg(long, env = "SIMULATOR_TOKENS", default_value = "60-120", value_parser = tokens)]
    tokens: (u32, u32),
    /// Tokens per chunk.
    #[arg(long, env = "SIMULATOR_CHUNK", default_value_t = 1)]
    chunk: u32,
    /// Milliseconds between `: OPENROUTER PROCESSING` comments while nothing else is sent; 0 sends none.
    #[arg(long, env = "SIMULATOR_PROCESSING_MS", default_value_t = 200)]
    processing_ms: u64,
    /// Chunks per second of all streams together; beyond it chunks carry more tokens each.
    #[arg(long, env = "SIMULATOR_CHUNKS_PER_SECOND", default_value_t = 20_000)]
    chunks_per_second: u32,
    /// Calls to free models allowed in any 60 seconds; 0 is no limit.
    #[arg(long, env = "SIMULATOR_FREE_PER_MINUTE", default_value_t = 0)]
    free_per_minute: u32,
    /// Calls to free models allowed since the start; 0 is no limit.
    #[arg(long, env = "SIMULATOR_FREE_PER_DAY", default_value_t = 0)]
    free_per_day: u32,
    /// Calls remembered for `/sim/calls`.
    #[arg(long, env = "SIMULATOR_REMEMBERED_CALLS", default_value_t = 200_000)]
    remembered_calls: usize,
    /// Worker threads; 0 takes one per core.
    #[arg(long, env = "SIMULATOR_THREADS", default_value_t = 0)]
    threads: usize,
}

fn tokens(text: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| {
        text.trim()
            .parse::<u32>()
            .map_err(|error| format!("{text:?}: {error}"))
    };
    let (least, most) = match text.split_once('-') {
        Some((least, most)) => (number(least)?, number(most)?),
        None => (number(text)?, number(text)?),
    };
    if least > most {
        Err(format!("{least} is more than {most}"))
    } else {
        Ok((least, most))
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    anyhow::ensure!(
        arguments.rate.is_finite() && arguments.rate >= 0.0,
        "--rate must be 0 or more"
    );
    if let Err(error) = loadtest::limits::raise_open_files() {
        tracing::warn!(error = %error, "failed to raise the limit of open files");
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if arguments.threads > 0 {
        runtime.worker_threads(arguments.threads);
    }
    runtime.enable_all().build()?.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let settings = Settings {
        ttfb_ms: arguments.ttfb_ms,
        ttft_ms: arguments.ttft_ms,
        rate: arguments.rate,
        tokens_min: arguments.tokens.0,
        tokens_max: arguments.tokens.1,
        chunk: arguments.chunk,
        processing_ms: arguments.processing_ms,
        chunks_per_second: arguments.chunks_per_second,
        free_per_minute: arguments.free_per_minute,
        free_per_day: arguments.free_per_day,
        remembered_calls: arguments.remembered_calls,
        ..Settings::default()
    };
    let simulator = Simulator::start_with(arguments.listen, settings).await?;
    // The first line is a contract: whoever starts the process reads the URL from it.
    let mut out = std::io::stdout();
    writeln!(out, "simulator listening on {}", simulator.base_url())?;
    out.flush()?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        served = simulator.serve() => served?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
