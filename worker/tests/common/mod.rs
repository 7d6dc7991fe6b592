//! A fleet in one test: real Postgres and Redis, the simulator as upstream, workers that can be
//! killed. The API's part is played by its store calls.

#![allow(
    dead_code,
    reason = "each test binary uses its own part of the harness"
)]

use std::time::Duration;

use loadtest::simulator::Simulator;
use shared::clock::Clock;
use shared::config::Vars;
use shared::domain::{
    ContentType, ContextType, Generation, GenerationStatus, Message, Parked, Priority,
};
use shared::lifecycle::Lifecycle;
use shared::models::Model;
use shared::redis::{Redis, RedisFailure};
use shared::store::generations::{self, Accepted, Concurrency, NewGeneration, NewMessage};
use shared::store::{Db, ServingRole, conversations};
use shared::testing::TestEnv;
use shared::{id, push};
use uuid::Uuid;
use worker::config::WorkerConfig;

/// A test that waits longer than this for something has failed.
const PATIENCE: Duration = Duration::from_secs(45);

pub(crate) struct Fleet {
    pub(crate) env: TestEnv,
    pub(crate) simulator: Simulator,
    pub(crate) clock: Clock,
    /// The database as the API sees it.
    pub(crate) api: Db,
    pub(crate) redis: Redis,
    pub(crate) user: Uuid,
}

/// A worker on threads of its own, so that it can die as a process does.
pub(crate) struct TestWorker {
    runtime: Option<tokio::runtime::Runtime>,
    lifecycle: Lifecycle,
    done: Option<tokio::task::JoinHandle<()>>,
}

impl TestWorker {
    /// Ends every task of the worker at once: nothing is flushed, released or closed in order.
    pub(crate) fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// SIGTERM.
    pub(crate) fn stop(&self) {
        self.lifecycle.stop();
    }

    /// Waits for a stopped worker to end.
    pub(crate) async fn ended(mut self) {
        let done = self.done.take().unwrap();
        tokio::time::timeout(PATIENCE, done)
            .await
            .expect("the worker ends")
            .unwrap();
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for TestWorker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Fleet {
    pub(crate) async fn new() -> Self {
        Self::of(TestEnv::new().await).await
    }

    /// One on servers of the test's choice.
    pub(crate) async fn of(env: TestEnv) -> Self {
        Self {
            api: env.db(ServingRole::Api),
            redis: env.redis(),
            simulator: Simulator::start().await,
            clock: Clock::system(),
            user: Uuid::new_v4(),
            env,
        }
    }

    pub(crate) fn worker(&self, name: &str) -> TestWorker {
        self.worker_with(name, &[])
    }

    /// The environment of a worker.
    pub(crate) fn settings(
        &self,
        name: &str,
        settings: &[(&'static str, &str)],
    ) -> Vec<(&'static str, String)> {
        let redis = self.env.redis_config();
        let defaults = [
            ("DATABASE_URL", self.env.database_url().to_owned()),
            (
                "REDIS_URL",
                secrecy::ExposeSecret::expose_secret(&redis.url).to_owned(),
            ),
            ("REDIS_KEY_PREFIX", redis.prefix.clone()),
            ("OPENROUTER_BASE_URL", self.simulator.base_url()),
            ("OPENROUTER_API_KEY", "test-key".to_owned()),
            ("WORKER_NAME", name.to_owned()),
            ("WORKER_CONCURRENCY", "16".to_owned()),
            ("DB_POOL_MIN", "0".to_owned()),
            ("DB_POOL_MAX", "8".to_owned()),
            ("LEASE_SECONDS", "3".to_owned()),
            ("LEASE_RENEW_SECONDS", "0.5".to_owned()),
            ("RECONCILE_SECONDS", "0.3".to_owned()),
            ("QUEUE_BLOCK_SECONDS", "0.3".to_owned()),
            // Rules of the simulator that count calls would count these as well.
            ("MODELS_REFRESH", "0".to_owned()),
            ("ACCOUNT_REFRESH", "0".to_owned()),
            ("COST_REFRESH", "0".to_owned()),
            ("FREE_MODEL_RATE_LIMIT_PER_MINUTE", "0".to_owned()),
            // One connection to a broker less, where it only takes notifications.
            ("INBOUND_ENABLED", "false".to_owned()),
        ];
        let given = settings
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        defaults.into_iter().chain(given).collect()
    }

    pub(crate) fn config(&self, name: &str, settings: &[(&'static str, &str)]) -> WorkerConfig {
        let mut vars = Vars::from_map(self.settings(name, settings));
        let config = WorkerConfig::from_vars(&mut vars);
        vars.finish().unwrap();
        config
    }

    pub(crate) fn worker_with(&self, name: &str, settings: &[(&'static str, &str)]) -> TestWorker {
        let config = self.config(name, settings);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let lifecycle = Lifecycle::new();
        let (clock, stop) = (self.clock.clone(), lifecycle.clone());
        let done = runtime.spawn(async move {
            worker::run::run(config, clock, stop).await.unwrap();
        });
        TestWorker {
            runtime: Some(runtime),
            lifecycle,
            done: Some(done),
        }
    }

    pub(crate) async fn conversation(&self) -> Uuid {
        self.conversation_of(self.user).await
    }

    pub(crate) async fn conversation_of(&self, user: Uuid) -> Uuid {
        let mut tx = self.api.user(user).await.unwrap();
        let new = conversations::NewConversation {
            id: id::new(self.clock.now()),
            title: None,
            context_type: ContextType::General,
            context_data: &serde_json::json!({}),
            metadata: &serde_json::json!({}),
        };
        let conversation = conversations::create(&mut tx, &new).await.unwrap();
        tx.commit().await.unwrap();
        conversation.id
    }

    /// Commits a message and its generation, and pushes it.
    pub(crate) async fn send(&self, conversation_id: Uuid, content: &str) -> Generation {
        self.send_as(self.user, conversation_id, content).await
    }

    pub(crate) async fn send_as(
        &self,
        user: Uuid,
        conversation_id: Uuid,
        content: &str,
    ) -> Generation {
        self.send_in(Priority::Standard, user, conversation_id, content)
            .await
    }

    /// Like [`Fleet::send_as`], into this queue.
    pub(crate) async fn send_in(
        &self,
        queue: Priority,
        user: Uuid,
        conversation_id: Uuid,
        content: &str,
    ) -> Generation {
        let (generation, parked) = self.commit_in(queue, user, conversation_id, content).await;
        // A busy machine may answer too late. Told again, Redis refuses the event that it has, and a
        // second id in the list is harmless.
        self.until(async || {
            let mut announced = generation.clone();
            let (redis, clock) = (&self.redis, &self.clock);
            let told = shared::queue::announce(redis, clock, user, queue, &mut announced, parked);
            match told.await {
                Ok(()) | Err(RedisFailure::Command(_)) => Some(announced),
                Err(RedisFailure::Timeout | RedisFailure::BackingOff) => None,
            }
        })
        .await
    }

    /// Commits a message and its generation, and dies before the push.
    pub(crate) async fn commit(
        &self,
        user: Uuid,
        conversation_id: Uuid,
        content: &str,
    ) -> (Generation, Option<Parked>) {
        self.commit_in(Priority::Standard, user, conversation_id, content)
            .await
    }

    async fn commit_in(
        &self,
        queue: Priority,
        user: Uuid,
        conversation_id: Uuid,
        content: &str,
    ) -> (Generation, Option<Parked>) {
        let chain = [
            Model::new("test/first:free".to_owned(), true),
            Model::new("test/second:free".to_owned(), true),
        ];
        let message = NewMessage {
            conversation_id,
            content,
            content_type: ContentType::Text,
            attachments: &[],
            parent_message_id: None,
        };
        let generation = NewGeneration {
            priority: queue,
            chain: &chain,
            stream: true,
            deadline: Duration::from_mins(10),
            max_attempts: 5,
            request_id: Some("request-1"),
            traceparent: None,
        };
        let mut tx = self.api.user(user).await.unwrap();
        let accepted = generations::accept(
            &mut tx,
            &self.clock,
            &message,
            &generation,
            Concurrency::Enqueue,
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        match accepted {
            Accepted::Stored {
                generation, parked, ..
            } => (*generation, parked),
            other => panic!("not accepted: {other:?}"),
        }
    }

    pub(crate) async fn generation(&self, id: Uuid) -> Generation {
        let mut tx = self.api.user(self.user).await.unwrap();
        generations::find_with_reply(&mut tx, id)
            .await
            .unwrap()
            .expect("the generation exists")
    }

    /// Waits until the generation has ended.
    pub(crate) async fn ended(&self, id: Uuid) -> Generation {
        self.until(async || {
            let generation = self.generation(id).await;
            generation.status.is_terminal().then_some(generation)
        })
        .await
    }

    /// Waits until a model call about `content` has begun and sent something.
    pub(crate) async fn streaming(&self, id: Uuid) {
        self.until(async || {
            let text = push::text_so_far(&self.redis, id).await.unwrap_or_default();
            (!text.is_empty()).then_some(())
        })
        .await;
    }

    pub(crate) async fn until<T>(&self, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "waited {PATIENCE:?} in vain"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn messages(&self, conversation_id: Uuid) -> Vec<Message> {
        let mut tx = self.api.user(self.user).await.unwrap();
        let newest = shared::store::messages::Cursor::Newest;
        shared::store::messages::list(&mut tx, conversation_id, newest, 200)
            .await
            .unwrap()
            .0
    }

    /// Every promise that can be read from the tables, whatever the test did.
    pub(crate) async fn check_invariants(&self) {
        let zero = |what: &'static str, sql: &'static str| async move {
            let count = self.env.value(sql).await.unwrap();
            assert_eq!(count, "0", "{what}");
        };
        zero(
            "a message has two live replies",
            "SELECT count(*) FROM (SELECT parent_message_id FROM chat.messages WHERE sender_type = 'assistant'
               AND superseded_by IS NULL AND parent_message_id IS NOT NULL GROUP BY 1 HAVING count(*) > 1) x",
        )
        .await;
        zero(
            "a completed generation has no reply or usage, or two of them",
            "SELECT count(*) FROM chat.generations g WHERE g.status IN ('completed', 'incomplete') AND g.kind <> 'title'
               AND ((SELECT count(*) FROM chat.messages m WHERE m.id = g.assistant_message_id) <> 1
                 OR (SELECT count(*) FROM chat.usage_tracking u WHERE u.generation_id = g.id
                       AND u.operation = 'completion' AND NOT u.wasted) <> 1)",
        )
        .await;
        zero(
            "a reply stands without a completed generation",
            "SELECT count(*) FROM chat.messages m WHERE m.sender_type = 'assistant' AND NOT EXISTS (
               SELECT FROM chat.generations g WHERE g.assistant_message_id = m.id)",
        )
        .await;
        zero(
            "a later message of a conversation was answered before an earlier one",
            "SELECT count(*) FROM chat.generations a JOIN chat.generations b
               ON a.conversation_id = b.conversation_id AND a.id < b.id AND a.kind <> 'title' AND b.kind <> 'title'
             WHERE a.finished_at > b.started_at",
        )
        .await;
        zero(
            "a conversation's count is wrong",
            "SELECT count(*) FROM chat.conversations c WHERE c.message_count <>
               (SELECT count(*) FROM chat.messages m WHERE m.conversation_id = c.id)",
        )
        .await;
    }
}

pub(crate) fn is_completed(generation: &Generation) -> bool {
    generation.status == GenerationStatus::Completed
}
