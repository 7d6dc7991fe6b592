//! Faults of Postgres and Redis.

use std::time::Duration;

use anyhow::Context;
use shared::testing::Session;

use super::{Dice, Outcome, Stage};

/// How long each may be away in one piece.
const REDIS_AWAY: Duration = Duration::from_secs(15);
const POSTGRES_AWAY: Duration = Duration::from_secs(20);

fn done(what: impl Into<String>) -> anyhow::Result<Outcome> {
    Ok(Outcome::Done(what.into()))
}

impl Stage {
    pub(super) async fn kill_redis(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let away = dice.millis(0..2_000);
        self.fleet.redis.crash().await;
        tokio::time::sleep(away).await;
        self.fleet.redis.start().await?;
        done(format!("away for {away:?}, back on its data"))
    }

    pub(super) async fn empty_redis(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let away = dice.millis(0..2_000);
        self.fleet.redis.crash().await;
        self.fleet.redis.forget()?;
        tokio::time::sleep(away).await;
        self.fleet.redis.start().await?;
        done(format!("away for {away:?}, back with nothing"))
    }

    pub(super) async fn truncate_redis(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let away = dice.millis(0..1_000);
        let bytes = dice.one_of(&[1, 40, 400, 4_000]);
        self.fleet.redis.crash().await;
        let lost = self.fleet.redis.truncate(bytes)?;
        tokio::time::sleep(away).await;
        self.fleet.redis.start().await?;
        done(format!("its last {lost} bytes lost, away for {away:?}"))
    }

    pub(super) async fn flush_redis(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let times = dice.one_of(&[1, 3, 6]);
        for _ in 0..times {
            self.fleet.redis.redis(redis::cmd("FLUSHALL")).await?;
            tokio::time::sleep(dice.millis(100..700)).await;
        }
        done(format!("{times} times"))
    }

    pub(super) async fn pause_redis(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let time = dice.millis(1_000..5_000);
        let mut pause = redis::cmd("CLIENT");
        pause.arg("PAUSE").arg(time.as_millis() as u64).arg("ALL");
        self.fleet.redis.redis(pause).await?;
        tokio::time::sleep(time).await;
        done(format!("for {time:?}"))
    }

    pub(super) async fn redis_down(&mut self) -> anyhow::Result<Outcome> {
        self.fleet.redis.shut_down().await;
        tokio::time::sleep(REDIS_AWAY).await;
        self.fleet.redis.start().await?;
        done(format!("for {REDIS_AWAY:?}"))
    }

    pub(super) async fn fill_redis(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let time = dice.millis(3_000..9_000);
        let limit = |bytes: u64| {
            let mut set = redis::cmd("CONFIG");
            set.arg("SET").arg("maxmemory").arg(bytes);
            set
        };
        self.fleet.redis.redis(limit(1)).await?;
        tokio::time::sleep(time).await;
        // 0 is no limit.
        self.fleet.redis.redis(limit(0)).await?;
        done(format!("for {time:?}"))
    }

    pub(super) async fn crash_postgres(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let away = dice.millis(0..2_000);
        self.fleet.postgres.crash().await;
        tokio::time::sleep(away).await;
        self.fleet.postgres.start().await?;
        done(format!("away for {away:?} and its recovery"))
    }

    pub(super) async fn restart_postgres(&mut self) -> anyhow::Result<Outcome> {
        self.fleet.postgres.shut_down().await;
        self.fleet.postgres.start().await?;
        done("at once")
    }

    pub(super) async fn postgres_down(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let crash = dice.yes();
        if crash {
            self.fleet.postgres.crash().await;
        } else {
            self.fleet.postgres.shut_down().await;
        }
        tokio::time::sleep(POSTGRES_AWAY).await;
        self.fleet.postgres.start().await?;
        let how = if crash { "a crash" } else { "a stop" };
        done(format!("for {POSTGRES_AWAY:?} after {how}"))
    }

    pub(super) async fn postgres_read_only(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let time = dice.millis(2_000..6_000);
        self.read_only(true).await?;
        tokio::time::sleep(time).await;
        self.read_only(false).await?;
        done(format!("for {time:?}"))
    }

    pub(super) async fn fill_postgres(&mut self, dice: &mut Dice) -> anyhow::Result<Outcome> {
        let time = dice.millis(3_000..10_000);
        let Some(disk) = &self.fleet.disk else {
            return Ok(Outcome::Skipped("only root can mount a disk"));
        };
        let used = disk.fill()?;
        tokio::time::sleep(time).await;
        disk.free()?;
        let megabytes = used >> 20;
        done(format!("for {time:?}, with {megabytes} MiB of tables"))
    }

    async fn read_only(&self, on: bool) -> anyhow::Result<()> {
        let refused = |refused| anyhow::anyhow!("Postgres refused: {refused:?}");
        let mut session = Session::open(self.fleet.postgres.url())
            .await
            .map_err(refused)
            .context("failed to make Postgres read-only")?;
        // This very session must stay able to change its mind.
        for statement in [
            "SET default_transaction_read_only = off".to_owned(),
            format!(
                "ALTER SYSTEM SET default_transaction_read_only = {}",
                if on { "on" } else { "off" }
            ),
            "SELECT pg_reload_conf()".to_owned(),
        ] {
            session.run(&statement).await.map_err(refused)?;
        }
        Ok(())
    }
}
