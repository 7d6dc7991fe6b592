//! Faults of the model behind the workers.

use super::{Dice, Outcome, Stage};

impl Stage {
    /// The model does as `directives` say to every reply for some seconds.
    pub(super) async fn model_rule(
        &mut self,
        dice: &mut Dice,
        directives: &str,
    ) -> anyhow::Result<Outcome> {
        let time = dice.millis(3_000..7_000);
        let rule = self.simulator.script(directives);
        tokio::time::sleep(time).await;
        self.simulator.remove_rule(rule);
        Ok(Outcome::Done(format!("for {time:?}")))
    }

    pub(super) async fn model_gone(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let time = dice.millis(3_000..7_000);
        self.simulator.go_dark().await;
        tokio::time::sleep(time).await;
        self.simulator.come_back().await;
        Ok(Outcome::Done(format!("for {time:?}")))
    }
}
