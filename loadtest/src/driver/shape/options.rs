//! What the shaped scenarios can be told.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::driver::options::{Arrivals, rate};

/// The scenarios that follow a shape over time and leave a report that one can look at.
#[derive(Debug, Clone, Subcommand)]
pub enum Shape {
    /// The same rate all the time.
    Steady(Steady),
    /// A rate that grows evenly: up to where is it held?
    Ramp(Ramp),
    /// A steady rate and many messages at once: how long until they are worked off?
    Burst(Burst),
    /// All WebSockets are cut at once, come back, and resume what they missed.
    ReconnectStorm(ReconnectStorm),
    /// Replies that are told for half a minute; every text is compared with what was stored.
    LongStreams(LongStreams),
    /// One person sends more than all others: do they notice?
    NoisyNeighbour(NoisyNeighbour),
}

impl Shape {
    /// What every shape has.
    #[must_use]
    pub const fn common(&self) -> &Shared {
        match self {
            Self::Steady(options) => &options.shared,
            Self::Ramp(options) => &options.shared,
            Self::Burst(options) => &options.shared,
            Self::ReconnectStorm(options) => &options.shared,
            Self::LongStreams(options) => &options.shared,
            Self::NoisyNeighbour(options) => &options.shared,
        }
    }

    /// Where the record goes, without an ending.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let name = match self {
            Self::Steady(_) => "steady",
            Self::Ramp(_) => "ramp",
            Self::Burst(_) => "burst",
            Self::ReconnectStorm(_) => "reconnect-storm",
            Self::LongStreams(_) => "long-streams",
            Self::NoisyNeighbour(_) => "noisy-neighbour",
        };
        let given = self.common().out.clone();
        given.unwrap_or_else(|| PathBuf::from(format!("loadtest-{name}")))
    }
}

/// What all shapes share.
#[derive(Debug, Clone, Args)]
pub struct Shared {
    /// Writes PATH.json, which `compare` reads, and PATH.html, a page for people. [default: loadtest-SCENARIO]
    #[arg(long, value_name = "PATH")]
    pub out: Option<PathBuf>,
    /// How the schedule is made.
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    pub arrivals: Arrivals,
    /// Directives for the simulator put into every message, instead of the scenario's own.
    #[arg(long)]
    pub marker: Option<String>,
    /// The model is not the simulator: messages carry no directives, and nobody is asked for calls.
    #[arg(long, conflicts_with = "marker")]
    pub real_model: bool,
    /// Seconds at the start that the percentiles leave out.
    #[arg(long, default_value_t = 2)]
    pub warm_up: u32,
    /// Seconds to wait for replies after the last message.
    #[arg(long, default_value_t = 60)]
    pub drain: u32,
    /// Milliseconds within which 99 of 100 first texts must come for a rate to count as held.
    #[arg(long, default_value_t = 2_000)]
    pub within: u32,
}

/// Options of `steady`.
#[derive(Debug, Clone, Args)]
pub struct Steady {
    /// What all shapes share.
    #[command(flatten)]
    pub shared: Shared,
    /// Messages per second.
    #[arg(long, default_value_t = 20.0, value_parser = rate)]
    pub rate: f64,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
}

/// Options of `ramp`.
#[derive(Debug, Clone, Args)]
pub struct Ramp {
    /// What all shapes share.
    #[command(flatten)]
    pub shared: Shared,
    /// Messages per second at the beginning.
    #[arg(long, default_value_t = 1.0, value_parser = rate)]
    pub from: f64,
    /// Messages per second at the end.
    #[arg(long, default_value_t = 200.0, value_parser = rate)]
    pub rate: f64,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
}

/// Options of `burst`.
#[derive(Debug, Clone, Args)]
pub struct Burst {
    /// What all shapes share.
    #[command(flatten)]
    pub shared: Shared,
    /// Messages per second between the bursts.
    #[arg(long, default_value_t = 10.0, value_parser = rate)]
    pub rate: f64,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Messages of a burst; they leave within half a second.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub size: u32,
    /// Seconds from one burst to the next.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..=3_600))]
    pub every: u32,
}

/// Options of `reconnect-storm`.
#[derive(Debug, Clone, Args)]
pub struct ReconnectStorm {
    /// What all shapes share.
    #[command(flatten)]
    pub shared: Shared,
    /// Messages per second.
    #[arg(long, default_value_t = 20.0, value_parser = rate)]
    pub rate: f64,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// How often all sockets are cut.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub storms: u32,
}

/// Options of `long-streams`.
#[derive(Debug, Clone, Args)]
pub struct LongStreams {
    /// What all shapes share.
    #[command(flatten)]
    pub shared: Shared,
    /// Replies begun per second.
    #[arg(long, default_value_t = 5.0, value_parser = rate)]
    pub rate: f64,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
}

/// Options of `noisy-neighbour`.
#[derive(Debug, Clone, Args)]
pub struct NoisyNeighbour {
    /// What all shapes share.
    #[command(flatten)]
    pub shared: Shared,
    /// Messages per second of the others.
    #[arg(long, default_value_t = 10.0, value_parser = rate)]
    pub rate: f64,
    /// For how long, in seconds; the noise lasts a third of it.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(3..=86_400))]
    pub seconds: u32,
    /// Messages per second of the neighbour.
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    pub noise: f64,
    /// Conversations of the neighbour.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub neighbour_conversations: u32,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(subcommand)]
        shape: Shape,
    }

    impl Burst {
        pub(crate) fn for_tests() -> Self {
            match Line::parse_from(["loadtest", "burst"]).shape {
                Shape::Burst(options) => options,
                other => unreachable!("{other:?}"),
            }
        }
    }

    impl NoisyNeighbour {
        pub(crate) fn for_tests() -> Self {
            match Line::parse_from(["loadtest", "noisy-neighbour"]).shape {
                Shape::NoisyNeighbour(options) => options,
                other => unreachable!("{other:?}"),
            }
        }
    }
}
