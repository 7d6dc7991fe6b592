//! What operators do, through the API or from a terminal: look at queues, workers and dead letters,
//! pause and resume, replay and discard.
//!
//! Each act is committed, with its line in the trail, before anybody is told.

mod notifications;
mod stats;
mod usage;

pub use notifications::{Fate, Notifications, SettledNotification};
pub use stats::Stats;
pub use usage::UsageReport;

use uuid::Uuid;

use crate::budgets::{Reckoning, WhenExhausted};
use crate::clock::Clock;
use crate::domain::{
    DeadLetter, DeadLetterCount, FailureCode, FleetWorker, GenerationKind, Priority, Queue,
};
use crate::models::{MAX_NAME_BYTES, Model, ModelsConfig, likely_first};
use crate::redis::{Redis, RedisFailure};
use crate::store::audit::Actor;
use crate::store::dead_letters::{self, Filter, Refused, Replayed};
use crate::store::{Db, StoreResult, UserTx, budgets, fleet, queues};
use crate::{id, push, queue};

/// The most dead letters that one request may settle.
pub const MOST_AT_ONCE: i64 = 1_000;

/// An operator's tools.
#[derive(Clone, Debug)]
pub struct Operator {
    /// The database as `balas_operator`.
    pub view: Db,
    /// The database as a role that acts for people.
    pub people: Db,
    /// Redis.
    pub redis: Redis,
    /// Which models cost nothing, and whether any other may be used.
    pub models: ModelsConfig,
    /// What a replay may cost.
    pub reckoning: Reckoning,
    /// Tells the time.
    pub clock: Clock,
}

/// Which dead letters to settle: those named, or the oldest of a reason.
#[derive(Clone, Debug)]
pub enum Selection {
    /// These.
    Ids(Vec<Uuid>),
    /// Those that have this in common.
    Like {
        /// The reason.
        error_code: FailureCode,
        /// What they were to make, where not everything is meant.
        kind: Option<GenerationKind>,
        /// Only those accepted after this one.
        after: Option<Uuid>,
        /// At most so many.
        limit: i64,
    },
}

/// What became of a selection.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// Those that were settled, each with the generation that was queued for it.
    pub done: Vec<(Uuid, Option<Uuid>)>,
    /// Those that were left as they are.
    pub refused: Vec<(Uuid, Refused)>,
    /// Where to go on, when there may be more.
    pub next_after: Option<Uuid>,
}

/// What to do with a dead letter.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Try again, this model first.
    Replay(Option<Model>),
    /// Leave it at that.
    Discard,
}

impl Operator {
    /// How the queues are, the most urgent first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn queues(&self) -> StoreResult<Vec<Queue>> {
        let mut tx = self.view.operator().await?;
        let queues = queues::list(&mut tx).await?;
        tx.commit().await?;
        Ok(queues)
    }

    /// The workers of the last day.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn workers(&self) -> StoreResult<Vec<FleetWorker>> {
        fleet::list(&mut self.view.operator().await?).await
    }

    /// The dead letters, whether there are more, and how many there are of each reason.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn dead_letters(
        &self,
        filter: &Filter,
    ) -> StoreResult<(Vec<DeadLetter>, bool, Vec<DeadLetterCount>)> {
        let mut tx = self.view.operator().await?;
        let (letters, has_more) = dead_letters::list(&mut tx, filter).await?;
        Ok((letters, has_more, dead_letters::counts(&mut tx).await?))
    }

    /// Tells the fleet to leave a queue alone. What runs goes on, and can be cancelled like what waits;
    /// deadlines pass as ever.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pause(
        &self,
        queue: Priority,
        reason: Option<&str>,
        actor: &Actor,
    ) -> StoreResult<()> {
        let mut tx = self.view.operator().await?;
        let line = id::new(self.clock.now());
        let changed = queues::pause(&mut tx, line, queue, reason, actor).await?;
        tx.commit().await?;
        tracing::info!(queue = %queue, actor = actor.name, changed, "queue paused");
        self.tell_gates().await;
        Ok(())
    }

    /// Lets the fleet take from a queue again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resume(&self, queue: Priority, actor: &Actor) -> StoreResult<()> {
        let mut tx = self.view.operator().await?;
        let line = id::new(self.clock.now());
        let changed = queues::resume(&mut tx, line, queue, actor).await?;
        tx.commit().await?;
        tracing::info!(queue = %queue, actor = actor.name, changed, "queue resumed");
        self.tell_gates().await;
        Ok(())
    }

    async fn tell_gates(&self) {
        if let Err(failure) = push::broadcast_gates(&self.redis).await {
            tracing::debug!(%failure, "workers not told; they look by themselves");
        }
    }

    /// A model to replay onto; none when its name cannot be one, or when it costs and nobody gets a
    /// paid model.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<Model> {
        let plausible = (1..=MAX_NAME_BYTES).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_graphic());
        let model = self.models.model(name);
        (plausible && (model.free || !self.models.free_only)).then_some(model)
    }

    /// Queues the work of one dead letter again, with `first` before the models it had.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replay(
        &self,
        letter: Uuid,
        first: Option<&Model>,
        actor: &Actor,
    ) -> StoreResult<Result<Replayed, Refused>> {
        let Some(user_id) = self.owner(letter).await? else {
            return Ok(Err(Refused::NotFound));
        };
        self.replay_of(user_id, letter, first, actor).await
    }

    /// Settles one dead letter without another try.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn discard(&self, letter: Uuid, actor: &Actor) -> StoreResult<Result<(), Refused>> {
        match self.owner(letter).await? {
            Some(user_id) => self.discard_of(user_id, letter, actor).await,
            None => Ok(Err(Refused::NotFound)),
        }
    }

    /// Settles many, the oldest first, so that those of one conversation keep their order. Each is
    /// settled on its own: what was done stays done when the database fails on the way.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn settle(
        &self,
        selection: &Selection,
        verdict: &Verdict,
        actor: &Actor,
    ) -> StoreResult<Settled> {
        let mut settled = Settled::default();
        let mut tx = self.view.operator().await?;
        let letters = match selection {
            Selection::Ids(ids) => {
                let mut ids = ids.clone();
                ids.sort_unstable();
                ids.dedup();
                let letters = dead_letters::owners(&mut tx, &ids).await?;
                let known = |id: &Uuid| letters.iter().any(|(known, _)| known == id);
                let unknown = ids.iter().filter(|id| !known(id));
                settled
                    .refused
                    .extend(unknown.map(|id| (*id, Refused::NotFound)));
                letters
            }
            Selection::Like {
                error_code,
                kind,
                after,
                limit,
            } => {
                let limit = (*limit).clamp(1, MOST_AT_ONCE);
                let letters =
                    dead_letters::like(&mut tx, *error_code, *kind, *after, limit).await?;
                if i64::try_from(letters.len()) == Ok(limit) {
                    settled.next_after = letters.last().map(|(id, _)| *id);
                }
                letters
            }
        };
        drop(tx);
        for (letter, user_id) in letters {
            let outcome = match verdict {
                Verdict::Replay(first) => self
                    .replay_of(user_id, letter, first.as_ref(), actor)
                    .await?
                    .map(|replayed| Some(replayed.generation.id)),
                Verdict::Discard => self
                    .discard_of(user_id, letter, actor)
                    .await?
                    .map(|()| None),
            };
            match outcome {
                Ok(generation) => settled.done.push((letter, generation)),
                Err(refused) => settled.refused.push((letter, refused)),
            }
        }
        Ok(settled)
    }

    async fn owner(&self, letter: Uuid) -> StoreResult<Option<Uuid>> {
        let mut tx = self.view.operator().await?;
        let owners = dead_letters::owners(&mut tx, &[letter]).await?;
        Ok(owners.first().map(|(_, user_id)| *user_id))
    }

    async fn replay_of(
        &self,
        user_id: Uuid,
        letter: Uuid,
        first: Option<&Model>,
        actor: &Actor,
    ) -> StoreResult<Result<Replayed, Refused>> {
        let mut tx = self.people.user(user_id).await?;
        let mut replayed =
            match dead_letters::replay(&mut tx, &self.clock, letter, first, actor).await? {
                Ok(replayed) => replayed,
                Err(refused) => return Ok(Err(refused)),
            };
        if let Err(refused) = self.reserve(&mut tx, &mut replayed).await? {
            return Ok(Err(refused));
        }
        tx.commit().await?;
        tracing::info!(
            dead_letter.id = %letter,
            generation.id = %replayed.generation.id,
            actor = actor.name,
            "dead letter replayed"
        );
        if let Err(failure) = self.tell(user_id, &mut replayed).await {
            tracing::debug!(generation.id = %replayed.generation.id, %failure, "a replay was not announced");
        }
        Ok(Ok(replayed))
    }

    /// Reserves what a replay may cost, or has it made by the free models of its chain where that is what an operator
    /// wants; the last thing before the commit.
    async fn reserve(
        &self,
        tx: &mut UserTx,
        replayed: &mut Replayed,
    ) -> StoreResult<Result<(), Refused>> {
        let Some(credits) = self.reckoning.estimate(&self.models, &replayed.chain) else {
            return Ok(Ok(()));
        };
        let config = &self.reckoning.config;
        let generation = &mut replayed.generation;
        let reservation = budgets::reserve(tx, generation.id, credits, &config.limits).await?;
        if let Some(exhausted) = reservation.refused {
            let free = replayed.chain.iter().filter(|model| model.free);
            let free: Vec<Model> = free.cloned().collect();
            let first = likely_first(&free);
            let (Some(first), WhenExhausted::FreeModel) = (first, config.when_exhausted) else {
                let resets_at = exhausted.resets_at;
                return Ok(Err(Refused::BudgetExhausted { resets_at }));
            };
            budgets::use_models(tx, generation.id, &free).await?;
            generation.model.clone_from(&first.name);
            generation.is_free_model = true;
            replayed.chain = free;
        }
        for budget in &reservation.warned {
            let person = budget.starts_with("user").then(|| tx.user_id());
            crate::budgets::warn(budget, person);
        }
        Ok(Ok(()))
    }

    async fn tell(&self, user_id: Uuid, replayed: &mut Replayed) -> Result<(), RedisFailure> {
        let Replayed {
            generation,
            priority,
            parked,
            ..
        } = replayed;
        // Nobody follows a title.
        if generation.kind == GenerationKind::Title {
            return queue::push_back(&self.redis, [(generation.id, *priority)]).await;
        }
        let (redis, clock) = (&self.redis, &self.clock);
        queue::announce(redis, clock, user_id, *priority, generation, *parked).await
    }

    async fn discard_of(
        &self,
        user_id: Uuid,
        letter: Uuid,
        actor: &Actor,
    ) -> StoreResult<Result<(), Refused>> {
        let mut tx = self.people.user(user_id).await?;
        let discarded = dead_letters::discard(&mut tx, &self.clock, letter, actor).await?;
        if discarded.is_ok() {
            tx.commit().await?;
            tracing::info!(dead_letter.id = %letter, actor = actor.name, "dead letter discarded");
        }
        Ok(discarded)
    }
}
