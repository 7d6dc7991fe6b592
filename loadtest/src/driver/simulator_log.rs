//! What the simulator says about a run: its settings, and the calls it got.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;

use super::http::Connection;
use super::messages::Messages;
use super::options::Common;
use super::target::Target;
use crate::simulator::script::Directives;
use crate::simulator::{CallRecord, Endpoint, Settings, Stats};

/// A connection to the simulator's admin endpoints.
#[derive(Debug)]
pub(crate) struct SimulatorLog(Connection);

#[derive(Deserialize)]
struct Calls {
    calls: Vec<CallRecord>,
}

impl SimulatorLog {
    pub(crate) async fn connect(common: &Common) -> anyhow::Result<Self> {
        Ok(Self(Connection::new(
            Target::resolve(&common.simulator, common.allow_remote).await?,
        )))
    }

    pub(crate) async fn stats(&mut self) -> anyhow::Result<Stats> {
        self.0
            .get_json("/sim/stats")
            .await
            .context("failed to ask the simulator for its totals")
    }

    /// How long the model itself takes for a reply, by the settings and the marker alone: the
    /// simulator being late is load like any other.
    pub(crate) async fn model_time(&mut self, marker: &str) -> anyhow::Result<Duration> {
        let settings: Settings = self
            .0
            .get_json("/sim/settings")
            .await
            .context("failed to ask the simulator")?;
        let directives = Directives::parse(marker).context("the marker is mistyped")?;
        model_time(&settings, &directives)
    }

    /// The calls for replies to the messages of a run, by message number.
    pub(crate) async fn calls(
        &mut self,
        messages: &Messages,
    ) -> anyhow::Result<HashMap<usize, Vec<CallRecord>>> {
        let path = format!("/sim/calls?contains={}&limit=5000000", messages.run());
        let Calls { calls } = self
            .0
            .get_json(&path)
            .await
            .context("failed to read the simulator's call log")?;
        let mut by_number: HashMap<usize, Vec<CallRecord>> = HashMap::new();
        for call in calls
            .into_iter()
            .filter(|call| call.endpoint == Endpoint::Chat)
        {
            if let Some(number) = messages.number(&call.last_user_message) {
                by_number.entry(number).or_default().push(call);
            }
        }
        Ok(by_number)
    }
}

fn model_time(settings: &Settings, directives: &Directives) -> anyhow::Result<Duration> {
    let tokens = directives.tokens.unwrap_or(settings.tokens_min);
    anyhow::ensure!(
        directives.tokens.is_some() || settings.tokens_min == settings.tokens_max,
        "the length of a reply must be the same for all: put tokens=N into the marker"
    );
    let rate = directives.rate.unwrap_or(settings.rate);
    // The first token comes at once after its own delay, so one gap fewer than tokens.
    let writing = if rate > 0.0 {
        f64::from(tokens.saturating_sub(1)) / rate
    } else {
        0.0
    };
    let before = directives.ttfb_ms.unwrap_or(settings.ttfb_ms)
        + directives.ttft_ms.unwrap_or(settings.ttft_ms);
    Ok(Duration::from_millis(before) + Duration::from_secs_f64(writing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_takes_what_it_was_told() {
        let marker = Directives::parse("ttft=200,rate=100,tokens=41").unwrap();
        assert_eq!(
            model_time(&Settings::default(), &marker).unwrap(),
            Duration::from_millis(600)
        );
        let range = Settings {
            tokens_max: 99,
            ..Settings::default()
        };
        assert!(model_time(&range, &Directives::default()).is_err());
    }
}
