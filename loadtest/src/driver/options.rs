//! What the `loadtest` binary can be told.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::shape::{Compare, Shape};

/// Puts Balas under load and prints what it saw as Markdown.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
pub struct Arguments {
    /// What all scenarios share.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put load on.
    #[command(flatten)]
    Load(Scenario),
    /// Says whether a run was worse than another of the same scenario: exits with 1 if it was, with 2 if that cannot be said.
    Compare(Compare),
}

/// What all scenarios share.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Base URL of the API.
    #[arg(
        long,
        env = "BALAS_URL",
        default_value = "http://127.0.0.1:8080",
        global = true
    )]
    pub api: String,
    /// URL of the simulator, with or without its API path.
    #[arg(
        long,
        env = "OPENROUTER_BASE_URL",
        default_value = "http://127.0.0.1:8090",
        global = true
    )]
    pub simulator: String,
    /// Secret that the tokens of the run's users are signed with (HS256). Of a list, the first.
    #[arg(
        long,
        env = "JWT_SECRET",
        hide_env_values = true,
        default_value = "",
        global = true
    )]
    pub jwt_secret: String,
    /// Allow a target that is not this machine.
    #[arg(long, global = true)]
    pub allow_remote: bool,
    /// Directory whose disk is timed with write + fdatasync; give the one the database writes to.
    #[arg(long, env = "LOADTEST_FSYNC_DIR", default_value = ".", global = true)]
    pub fsync_dir: PathBuf,
    /// HTTP connections to the API.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=20_000), global = true)]
    pub connections: u32,
    /// Users the load is spread over; each has a token of its own.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000), global = true)]
    pub users: Option<u32>,
    /// Conversations of each user.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), global = true)]
    pub conversations: u32,
    /// Tier of the users.
    #[arg(long, default_value = "free", global = true)]
    pub tier: String,
    /// Send an `Idempotency-Key` with every message, as a careful client does.
    #[arg(long, global = true)]
    pub idempotency_keys: bool,
    /// Seed of everything random: arrivals.
    #[arg(long, default_value_t = 1, global = true)]
    pub seed: u64,
    /// No line of progress each second.
    #[arg(long, global = true)]
    pub quiet: bool,
}

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// POST messages and wait for their 202 only. Run it without workers.
    Accept(Accept),
    /// POST messages and wait on WebSockets until their replies are there.
    Chat(Chat),
    /// Hold many generations in flight and read the worker's memory.
    Inflight(Inflight),
    /// Hold many idle WebSockets and read the API's memory.
    Sockets(Sockets),
    /// Hold many streams of the simulator itself, to know that it is not the bottleneck.
    Streams(Streams),
    /// Follow a shape over time.
    #[command(flatten)]
    Shape(Shape),
}

/// How messages arrive.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// Messages per second, by schedule.
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    pub rate: f64,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub seconds: u32,
    /// How the schedule is made.
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    pub arrivals: Arrivals,
    /// Closed loop instead: so many clients, each sending its next message when the last is done.
    #[arg(long, conflicts_with_all = ["rate", "arrivals"], value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub closed: Option<u32>,
    /// The run ends after so many messages, whatever the time.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    pub most: u32,
    /// Seconds at the start that are not measured.
    #[arg(long, default_value_t = 2)]
    pub warm_up: u32,
}

/// How a schedule is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// As independent people arrive: exponential gaps.
    Poisson,
    /// Evenly spaced.
    Even,
}

/// Options of `accept`.
#[derive(Debug, Clone, Args)]
pub struct Accept {
    /// How messages arrive.
    #[command(flatten)]
    pub load: Load,
}

/// Options of `chat`.
#[derive(Debug, Clone, Args)]
pub struct Chat {
    /// How messages arrive.
    #[command(flatten)]
    pub load: Load,
    /// Directives for the simulator put into every message, e.g. `ttft=0,rate=0,tokens=20`.
    #[arg(long, default_value = "ttft=200,rate=100,tokens=40")]
    pub marker: String,
    /// Seconds to wait for replies after the last message.
    #[arg(long, default_value_t = 60)]
    pub drain: u32,
    /// Calls of free models that the account allows in a minute: the report says whether the limit was kept, and in
    /// which order people were served.
    #[arg(long)]
    pub limit: Option<u64>,
}

/// Options of `inflight`.
#[derive(Debug, Clone, Args)]
pub struct Inflight {
    /// Generations to hold in flight.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub count: u32,
    /// Process of the worker whose memory is read.
    #[arg(long)]
    pub pid: u32,
    /// Messages per second until they are all there.
    #[arg(long, default_value_t = 400.0, value_parser = rate)]
    pub rate: f64,
    /// Directives for the simulator: slow, but within the worker's own timeouts.
    #[arg(long, default_value = "ttft=1000,rate=0.5,tokens=20")]
    pub marker: String,
    /// Seconds after which it is over, however many are in flight.
    #[arg(long, default_value_t = 120)]
    pub seconds: u32,
    /// Seconds after which it is over once all are in flight; without it, when all have ended.
    #[arg(long)]
    pub hold: Option<u32>,
}

/// Options of `sockets`.
#[derive(Debug, Clone, Args)]
pub struct Sockets {
    /// WebSockets to open, each of a user of its own.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub count: u32,
    /// Process of the API whose memory is read.
    #[arg(long)]
    pub pid: u32,
    /// Connections per second while opening.
    #[arg(long, default_value_t = 500.0, value_parser = rate)]
    pub rate: f64,
    /// Seconds to hold them open: longer than two pings of the server.
    #[arg(long, default_value_t = 60)]
    pub seconds: u32,
}

/// Options of `streams`.
#[derive(Debug, Clone, Args)]
pub struct Streams {
    /// Streams to hold.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub count: u32,
    /// Requests per second while opening.
    #[arg(long, default_value_t = 1_000.0, value_parser = rate)]
    pub rate: f64,
    /// Directives put into every request.
    #[arg(long, default_value = "ttft=300,rate=1,tokens=20")]
    pub marker: String,
    /// Process of the simulator, if its memory is to be read.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Seconds after which it is over.
    #[arg(long, default_value_t = 120)]
    pub seconds: u32,
}

pub(crate) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 100_000.0 => Ok(rate),
        _ => Err("a number above 0, at most 100000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        let parsed =
            Arguments::try_parse_from(["loadtest", "accept", "--closed", "8", "--users", "3"]);
        assert_eq!(parsed.unwrap().common.users, Some(3));
        assert!(Arguments::try_parse_from(["loadtest", "accept", "--rate", "0"]).is_err());
        assert!(
            Arguments::try_parse_from(["loadtest", "accept", "--rate", "1", "--closed", "1"])
                .is_err()
        );
    }
}
