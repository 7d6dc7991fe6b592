//! Everything a newcomer runs: the private servers, the whole of Balas on localhost, the tests.
//!
//! Kept to a few dependencies on purpose: the first command a newcomer types waits for this crate.

mod cargo;
mod env;
mod instance;
mod interrupt;
mod ledger;
mod ports;
mod process;
mod project;
mod servers;
mod sqlx;
mod ui;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    env::Env,
    interrupt::{Interrupt, Interrupted},
    project::Project,
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
    /// Make `.sqlx` from the migrations and the statements in `shared`, or check that it is current
    Sqlx {
        /// Only compare; fail when `.sqlx` is out of date
        #[arg(long)]
        check: bool,
        /// Print the URL of the migrated database and leave it running until Ctrl-C
        #[arg(long)]
        keep: bool,
    },
}

fn main() -> ExitCode {
    match act(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
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

fn act(cli: Cli) -> anyhow::Result<()> {
    // The servers' own user must be able to read what we unpack; secrets get their mode explicitly.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let project = Project::open(Env::read(), Interrupt::install()?)?;
    match cli.command {
        Action::Sqlx { check, keep } => sqlx::run(&project, sqlx::Options { check, keep }),
    }
}
