//! Everything a newcomer runs: the private servers, the whole of Balas on localhost, the tests.
//!
//! Kept to a few dependencies on purpose: the first command a newcomer types waits for this crate.

mod cargo;
mod chaos;
mod clock;
mod env;
mod files;
mod http;
mod instance;
mod interrupt;
mod ledger;
mod ports;
mod process;
mod project;
mod secrets;
mod servers;
mod services;
mod sqlx;
mod test;
mod token;
mod ui;
mod up;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use uuid::Uuid;

use crate::{
    cargo::Profile,
    env::Env,
    interrupt::{Interrupt, Interrupted},
    project::Project,
    secrets::Secrets,
    token::{Claims, Role, Tier},
};

/// Run, test and inspect Balas on this machine.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Start everything: servers, api, workers, and the model simulator unless OPENROUTER_API_KEY is set
    ///
    /// DATABASE_URL, REDIS_URL, RABBITMQ_URL and OPENROUTER_BASE_URL name servers to use instead of
    /// private ones; PORT, JWT_SECRET and every variable of the processes themselves work as usual.
    Up {
        /// How many worker processes to start
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=64))]
        workers: u16,
        /// Build with optimisations, as for measuring
        #[arg(long)]
        release: bool,
        /// Start what was built last
        #[arg(long, conflicts_with = "release")]
        no_build: bool,
        /// Start a private RabbitMQ as well
        #[arg(long)]
        rabbitmq: bool,
        /// Load the sample of a help desk's entries into the knowledge base
        #[arg(long)]
        sample: bool,
        /// Run this command against a fresh stack instead of waiting for Ctrl-C, then stop and delete
        /// the data. It finds BALAS_URL, BALAS_TOKEN and the variables of the processes
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Start only the private servers and print their URLs
    Services {
        /// Start a private RabbitMQ as well
        #[arg(long)]
        rabbitmq: bool,
    },
    /// Run the tests on private servers
    Test {
        /// Test names to run and further arguments for the test runner
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Measure how well the help desk finds what is asked for, and print the table of docs/evaluation.md
    Eval {
        /// Measure how long a search takes, instead: 10,000 and 30,000 texts, with and without an index
        #[arg(long)]
        speed: bool,
        /// Measure how well SUPPORT_CLASSIFIER_MODEL judges messages, instead, with the environment's provider and key
        #[arg(long, conflicts_with = "speed")]
        judge: bool,
    },
    /// Break everything that can break while messages come in, then check what Balas promises
    Chaos {
        /// What decides the order of the faults; any number, and the one of a failed run replays it
        #[arg(long)]
        seed: Option<u64>,
        /// How long faults go on; healing and checking come on top
        #[arg(long, default_value_t = 2.0)]
        minutes: f64,
        /// Only this fault, again and again
        #[arg(long)]
        fault: Option<String>,
        /// Replies in flight when everybody is killed: 2000 in a run of ten minutes or more
        #[arg(long)]
        crowd: Option<u32>,
        /// Print the faults and what they do
        #[arg(long)]
        list: bool,
        /// Build with optimisations
        #[arg(long)]
        release: bool,
        /// Start what was built last
        #[arg(long)]
        no_build: bool,
    },
    /// Print a user token
    Token {
        /// The user's id
        #[arg(long)]
        user: Uuid,
        /// What the user has paid for
        #[arg(long, default_value = "free")]
        tier: Tier,
        /// What the user may do
        #[arg(long, default_value = "user")]
        role: Role,
        /// How long the token is good for: a number and s, m, h or d
        #[arg(long, default_value = "24h", value_parser = token::parse_ttl)]
        ttl: Duration,
    },
    /// Delete the data and logs of `up` and `services`
    Reset,
    /// Make `.sqlx` from the migrations and the statements in `shared`, or check that it is current
    Sqlx {
        /// Only compare; fail when `.sqlx` is out of date
        #[arg(long)]
        check: bool,
        /// Compile the whole workspace instead of `shared` alone
        #[arg(long)]
        workspace: bool,
        /// Print the URL of the migrated database and leave it running until Ctrl-C
        #[arg(long)]
        keep: bool,
    },
}

/// The evaluation is a test like any other; its output is what is wanted here.
const EVALUATION: [&str; 5] = ["-p", "balas-worker", "--test", "evaluation", "--no-capture"];

fn main() -> ExitCode {
    match act(Cli::parse()) {
        Ok(code) => code,
        Err(error) => match error.downcast_ref::<Interrupted>() {
            // What a shell reports for a program ended by a signal.
            Some(Interrupted(signal)) => {
                ExitCode::from(u8::try_from(128 + *signal as i32).unwrap_or(1))
            }
            None => {
                ui::error(&format!("{error:#}"));
                ExitCode::FAILURE
            }
        },
    }
}

fn act(cli: Cli) -> anyhow::Result<ExitCode> {
    // The servers' own user must be able to read what we unpack; secrets get their mode explicitly.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let project = Project::open(Env::read(), Interrupt::install()?)?;
    match cli.command {
        Action::Up {
            workers,
            release,
            no_build,
            rabbitmq,
            sample,
            command,
        } => {
            let profile = if release {
                Profile::Release
            } else {
                Profile::Debug
            };
            let options = up::Options {
                workers,
                profile,
                build: !no_build,
                rabbitmq,
                sample,
                command,
            };
            let lent = !options.command.is_empty();
            let outcome = up::run(&project, &options);
            if lent {
                outcome
            } else {
                until_stopped(outcome)
            }
        }
        Action::Services { rabbitmq } => {
            until_stopped(services::run(&project, rabbitmq).map(|()| ExitCode::SUCCESS))
        }
        Action::Test { args } => test::run(&project, &args),
        Action::Eval { speed, judge } => {
            let which = match (speed, judge) {
                (true, _) => &["--run-ignored", "only", "how_long_a_search_takes"][..],
                (_, true) => &["--run-ignored", "only", "how_well_a_model_judges"],
                _ => &[],
            };
            let arguments = EVALUATION.iter().chain(which);
            let arguments: Vec<String> = arguments.map(|argument| (*argument).to_owned()).collect();
            test::run(&project, &arguments)
        }
        Action::Chaos {
            seed,
            minutes,
            fault,
            crowd,
            list,
            release,
            no_build,
        } => {
            let options = chaos::Options {
                seed,
                minutes,
                fault,
                crowd,
                list,
                profile: if release {
                    Profile::Release
                } else {
                    Profile::Debug
                },
                build: !no_build,
            };
            chaos::run(&project, &options)
        }
        Action::Token {
            user,
            tier,
            role,
            ttl,
        } => {
            let issued_at = clock::unix_seconds();
            let claims = Claims {
                user,
                tier,
                role,
                issued_at,
                expires_at: issued_at + ttl.as_secs(),
            };
            ui::result(&token::sign(&claims, &Secrets::load(&project)?.jwt)?);
            Ok(ExitCode::SUCCESS)
        }
        Action::Reset => services::reset(&project).map(|()| ExitCode::SUCCESS),
        Action::Sqlx {
            check,
            workspace,
            keep,
        } => {
            let options = sqlx::Options {
                check,
                workspace,
                keep,
            };
            sqlx::run(&project, options).map(|()| ExitCode::SUCCESS)
        }
    }
}

/// For commands that run until they are stopped, being stopped is success.
fn until_stopped(outcome: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match outcome {
        Err(error) if error.is::<Interrupted>() => Ok(ExitCode::SUCCESS),
        outcome => outcome,
    }
}
