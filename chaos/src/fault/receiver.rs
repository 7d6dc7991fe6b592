//! Faults of the notification service.

use std::time::Duration;

use tokio::time::Instant;

use super::{Dice, Outcome, Stage};
use crate::receiver::Mood;

/// Long enough for the fleet to leave it alone for some time.
const AWAY: std::ops::Range<u64> = 4_000..12_000;
/// After an earlier fault the fleet may leave it alone for longer than a mood lasts.
const PATIENCE: Duration = Duration::from_secs(60);

impl Stage {
    pub(super) async fn receiver_down(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let time = dice.millis(AWAY);
        self.receiver.go_down().await;
        tokio::time::sleep(time).await;
        self.receiver.come_back().await?;
        Ok(Outcome::Done(format!("for {time:?}")))
    }

    /// Every request for some seconds gets the answer of this mood, and at least one does.
    pub(super) async fn receiver_is(
        &mut self,
        dice: &mut Dice,
        mood: Mood,
    ) -> anyhow::Result<Outcome> {
        let time: Duration = dice.millis(AWAY);
        let before = self.receiver.count();
        self.receiver.set(mood);
        tokio::time::sleep(time).await;
        let give_up_at = Instant::now() + PATIENCE;
        while self.receiver.count() == before && Instant::now() < give_up_at {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.receiver.set(Mood::Usual);
        match self.receiver.count() - before {
            0 => Ok(Outcome::Missed("nothing was told".to_owned())),
            count => Ok(Outcome::Done(format!("to {count} requests in {time:?}"))),
        }
    }
}
