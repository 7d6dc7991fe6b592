//! One generation that is being written, and API replicas that read it.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use shared::domain::{Event, EventType, Priority};
use shared::id::EventId;
use shared::push::{Ended, Follow, Hub, LogWriter, PushedEvent, write_terminal};
use shared::redis::{Redis, RedisConfig};
use shared::store::generations::{Claim, Finished};
use shared::testing::RedisUser;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::common::proxy::{self, Listening};
use crate::common::{World, in_time};

/// An API replica: its own connections to Redis and its own hub.
pub(crate) struct Replica {
    pub(crate) redis: Redis,
    pub(crate) hub: Hub,
    _task: JoinSet<()>,
}

impl Replica {
    pub(crate) fn new(world: &World) -> Self {
        Self::at(world, None)
    }

    /// A replica whose subscription connection shows in Redis's list of clients by the number of a
    /// database. Publishing does not heed it, and nothing else goes through that connection.
    pub(crate) fn marked(world: &World, database: u8) -> Self {
        Self::at(world, Some(database))
    }

    /// A replica whose commands may not read logs, until that is lifted. Its subscription is as any.
    pub(crate) async fn barred_from_logs(world: &World) -> (Self, RedisUser) {
        let barred = world.env.redis_user(&["-xrange"]).await;
        let mut config = world.env.redis_config();
        config.url = barred.url();
        let mut replica = Self::at(world, None);
        replica.redis = Redis::connect_lazy(&config).unwrap();
        (replica, barred)
    }

    /// A replica whose subscriptions reach Redis only while they are not `held`.
    pub(crate) async fn behind(world: &World, held: watch::Receiver<bool>) -> (Self, Listening) {
        let mut config = world.env.redis_config();
        let url = config.url.expose_secret().to_owned();
        let link = proxy::holding(proxy::server_of(&url), held).await;
        config.url = proxy::url_at(&url, link.address).into();
        (Self::with(world, &config), link)
    }

    fn at(world: &World, database: Option<u8>) -> Self {
        let mut config = world.env.redis_config();
        if let Some(database) = database {
            let mut url = config.url.expose_secret().to_owned();
            let authority = url.find("://").unwrap() + 3;
            let path = url[authority..].find('/');
            url.truncate(path.map_or(url.len(), |path| authority + path));
            config.url = format!("{url}/{database}").into();
        }
        Self::with(world, &config)
    }

    fn with(world: &World, config: &RedisConfig) -> Self {
        let (hub, run) = Hub::new(Redis::connect_lazy(config).unwrap());
        let mut task = JoinSet::new();
        task.spawn(run);
        Self {
            redis: world.env.redis(),
            hub,
            _task: task,
        }
    }

    pub(crate) async fn follow(&self, world: &World, id: Uuid, after: Option<EventId>) -> Follow {
        Follow::new(
            world.api.clone(),
            self.redis.clone(),
            &self.hub,
            world.user,
            id,
            after,
        )
        .await
    }

    /// Every event from `after` to the end.
    pub(crate) async fn read(
        &self,
        world: &World,
        id: Uuid,
        after: Option<EventId>,
    ) -> Vec<Arc<PushedEvent>> {
        let mut follow = self.follow(world, id, after).await;
        rest(&mut follow).await
    }
}

/// Every event from where the follower is to the end.
pub(crate) async fn rest(follow: &mut Follow) -> Vec<Arc<PushedEvent>> {
    in_time("the stream ends", async {
        let mut events = Vec::new();
        while let Some(event) = follow.next().await.unwrap() {
            events.push(event);
        }
        events
    })
    .await
}

pub(crate) fn ids(events: &[Arc<PushedEvent>]) -> Vec<EventId> {
    events.iter().map(|event| event.id).collect()
}

/// The text of a delta.
pub(crate) fn delta(number: usize) -> serde_json::Value {
    serde_json::json!({ "text": format!("{number} ") })
}

/// A generation that a worker has claimed.
pub(crate) struct Stage {
    pub(crate) world: Arc<World>,
    pub(crate) claim: Claim,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::of(Arc::new(World::new().await)).await
    }

    /// Another generation of the same world.
    pub(crate) async fn of(world: Arc<World>) -> Self {
        let conversation = world.conversation().await;
        let mut sent = world.send(conversation, "hello").await;
        shared::queue::announce(
            &world.redis,
            &world.clock,
            world.user,
            Priority::Standard,
            &mut sent.generation,
            None,
        )
        .await
        .unwrap();
        let claim = world.claim_one(sent.generation.id).await;
        Self { world, claim }
    }

    pub(crate) fn id(&self) -> Uuid {
        self.claim.id
    }

    pub(crate) fn writer(&self) -> LogWriter {
        self.writer_of(&self.claim)
    }

    pub(crate) fn writer_of(&self, claim: &Claim) -> LogWriter {
        LogWriter::new(
            self.world.redis.clone(),
            self.world.clock.clone(),
            claim.user_id,
            claim.conversation_id,
            claim.id,
            u32::try_from(claim.attempt).unwrap(),
        )
    }

    pub(crate) fn event_id(&self, attempt: u32, seq: u32) -> EventId {
        EventId {
            generation_id: self.id(),
            attempt,
            seq,
        }
    }

    /// The lease runs out and another worker claims it.
    pub(crate) async fn next_attempt(&self) -> Claim {
        let world = &self.world;
        world
            .execute("UPDATE chat.generations SET lease_until = now() - interval '1 second' WHERE status = 'in_progress'")
            .await;
        let mut tx = world.worker.sweep().await.unwrap();
        shared::store::generations::expired_leases(&mut tx, 10, std::time::Duration::ZERO)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        world.claim_one(self.id()).await
    }

    /// Stores the reply of a claim. Returns the terminal event.
    pub(crate) async fn store(&self, claim: &Claim, content: &str) -> Event {
        let Finished::Stored { message, .. } = self.world.finish(claim, content).await else {
            panic!("the claim is ours");
        };
        let usage = crate::common::usage_of(content);
        let ended = Ended::Completed {
            status: shared::domain::GenerationStatus::Completed,
            message: Some(&message),
            usage: Some(&usage),
        };
        let attempt = u32::try_from(claim.attempt).unwrap();
        ended.event(
            claim.id,
            claim.conversation_id,
            attempt,
            self.world.clock.now(),
        )
    }

    /// Cancels it as a replica does. Returns the terminal event.
    pub(crate) async fn cancel(&self) -> Event {
        let world = &self.world;
        let mut tx = world.api.user(world.user).await.unwrap();
        let cancelled = shared::store::generations::cancel(&mut tx, self.id(), Some("so far"))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let shared::store::generations::Cancelled::Done(row, _) = cancelled else {
            panic!("it had ended");
        };
        let event = shared::push::terminal_event(&row.generation).unwrap();
        write_terminal(&world.redis, world.user, &event)
            .await
            .unwrap();
        event
    }

    /// The whole life of a reply with so many deltas.
    pub(crate) async fn write_all(&self, deltas: usize, pause: Duration) {
        let mut writer = self.writer();
        writer
            .write(EventType::InProgress, &serde_json::json!({ "attempt": 1 }))
            .await;
        for number in 0..deltas {
            writer.write(EventType::Delta, &delta(number)).await;
            tokio::time::sleep(pause).await;
        }
        let terminal = self.store(&self.claim, "the reply").await;
        writer.end(&terminal, []).await.unwrap();
    }

    /// What the log holds.
    pub(crate) async fn log(&self) -> Vec<EventId> {
        let events = shared::push::read_log(&self.world.redis, self.id(), None)
            .await
            .unwrap();
        events.iter().map(|event| event.id).collect()
    }
}
