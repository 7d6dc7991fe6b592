//! One test's database and Redis, and the API's and the worker's parts played by their store calls.

#![allow(
    dead_code,
    reason = "each test binary uses its own part of the harness"
)]

pub(crate) mod proxy;

use std::time::Duration;

use shared::clock::Clock;
use shared::domain::{
    ContentType, ContextType, FailureCode, Generation, Message, Parked, Priority, Usage,
    safe_tokens,
};
use shared::id;
use shared::models::Model;
use shared::redis::Redis;
use shared::store::generations::{
    self, Accepted, Claim, Claimer, Concurrency, Finish, Finished, Handover, History, HistoryOf,
    NewGeneration, NewMessage, Regenerated,
};
use shared::store::ledger::{CallEnded, CallStarted};
use shared::store::{Db, ServingRole, StoreResult, conversations};
use shared::testing::{Session, TestEnv};
use time::OffsetDateTime;
use tokio::sync::Mutex;
use uuid::Uuid;

/// A test that waits longer than this for something has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// A lease that no test outlives.
pub(crate) const LEASE: Duration = Duration::from_mins(10);

/// Nobody of the name is waited for, and nothing comes back late.
pub(crate) const HANDOVER: Handover = Handover {
    called_at: OffsetDateTime::UNIX_EPOCH,
    wait: Duration::ZERO,
    stagger: Duration::ZERO,
};

pub(crate) struct World {
    pub(crate) env: TestEnv,
    pub(crate) clock: Clock,
    /// The database as the API sees it.
    pub(crate) api: Db,
    /// The database as a worker sees it.
    pub(crate) worker: Db,
    pub(crate) redis: Redis,
    pub(crate) user: Uuid,
    superuser: Mutex<Session>,
}

/// A message that was accepted.
pub(crate) struct Sent {
    pub(crate) message: Message,
    pub(crate) generation: Generation,
    pub(crate) is_head: bool,
    pub(crate) parked: Option<Parked>,
}

pub(crate) fn chain() -> Vec<Model> {
    ["test/first:free", "test/second:free"]
        .map(|name| Model::new(name.to_owned(), true))
        .into()
}

pub(crate) fn usage() -> Usage {
    Usage {
        model: "test/first:free".to_owned(),
        prompt_tokens: 20,
        completion_tokens: 10,
        total_tokens: 30,
        cached_tokens: 0,
        reasoning_tokens: 0,
        cost_credits: None,
        is_free_model: true,
        processing_time_ms: 1_200,
    }
}

/// The same for a reply of this text.
pub(crate) fn usage_of(content: &str) -> Usage {
    Usage {
        completion_tokens: i32::try_from(safe_tokens(content)).unwrap(),
        ..usage()
    }
}

/// A new generation that waits in the standard queue.
pub(crate) fn new_generation(chain: &[Model]) -> NewGeneration<'_> {
    NewGeneration {
        priority: Priority::Standard,
        chain,
        stream: true,
        deadline: Duration::from_mins(10),
        max_attempts: 5,
        request_id: None,
        traceparent: None,
    }
}

pub(crate) fn text(conversation_id: Uuid, content: &str) -> NewMessage<'_> {
    NewMessage {
        conversation_id,
        content,
        content_type: ContentType::Text,
        attachments: &[],
        parent_message_id: None,
    }
}

pub(crate) fn claimer(worker_id: &str, lease: Duration) -> Claimer<'_> {
    Claimer {
        worker_id,
        lease,
        history_tokens: 1_000,
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::of(TestEnv::new().await, None).await
    }

    /// Where at most so many generations of one person are active.
    pub(crate) async fn with_places(places: i64) -> Self {
        Self::of(TestEnv::new().await, Some(places)).await
    }

    async fn of(env: TestEnv, places: Option<i64>) -> Self {
        let mut config = env.db_config();
        config.places = places.unwrap_or(config.places);
        let db = |role| Db::connect_lazy(&config, role).unwrap();
        Self {
            api: db(ServingRole::Api),
            worker: db(ServingRole::Worker),
            redis: env.redis(),
            clock: Clock::system(),
            user: Uuid::new_v4(),
            superuser: Mutex::new(env.session().await),
            env,
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

    /// Accepts a message and commits, whatever came of it.
    pub(crate) async fn accept(
        &self,
        user: Uuid,
        message: &NewMessage<'_>,
        generation: &NewGeneration<'_>,
        concurrency: Concurrency,
    ) -> StoreResult<Accepted> {
        let mut tx = self.api.user(user).await?;
        let accepted =
            generations::accept(&mut tx, &self.clock, message, generation, concurrency).await?;
        tx.commit().await?;
        Ok(accepted)
    }

    pub(crate) async fn send(&self, conversation_id: Uuid, content: &str) -> Sent {
        self.send_as(self.user, &text(conversation_id, content))
            .await
    }

    pub(crate) async fn send_as(&self, user: Uuid, message: &NewMessage<'_>) -> Sent {
        let chain = chain();
        let accepted = self
            .accept(user, message, &new_generation(&chain), Concurrency::Enqueue)
            .await
            .unwrap();
        match accepted {
            Accepted::Stored {
                user_message,
                generation,
                is_head,
                parked,
            } => Sent {
                message: *user_message,
                generation: *generation,
                is_head,
                parked,
            },
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// Asks for another answer to the message that `reply_id` answers.
    pub(crate) async fn regenerate(&self, conversation_id: Uuid, reply_id: Uuid) -> Generation {
        let chain = chain();
        let mut tx = self.api.user(self.user).await.unwrap();
        let regenerated = generations::regenerate(
            &mut tx,
            &self.clock,
            conversation_id,
            reply_id,
            &new_generation(&chain),
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        match regenerated {
            Regenerated::Queued { generation, .. } => *generation,
            other => panic!("not queued: {other:?}"),
        }
    }

    /// Claims those of `ids` that can be claimed.
    pub(crate) async fn claim(&self, ids: &[Uuid]) -> Vec<Claim> {
        self.claim_for("worker/boot", ids).await
    }

    pub(crate) async fn claim_for(&self, worker_id: &str, ids: &[Uuid]) -> Vec<Claim> {
        let mut tx = self.worker.sweep_statement().await.unwrap();
        let claims = generations::claim(&mut tx, ids, &claimer(worker_id, LEASE))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        claims
    }

    /// Claims one that can be claimed.
    pub(crate) async fn claim_one(&self, id: Uuid) -> Claim {
        let mut claims = self.claim(&[id]).await;
        assert_eq!(claims.len(), 1, "{id} cannot be claimed");
        claims.remove(0)
    }

    pub(crate) async fn finish(&self, claim: &Claim, content: &str) -> Finished {
        self.finish_with(claim.id, claim.token, content, false)
            .await
    }

    /// As a worker does it: together with others, and alone where that did not store it.
    pub(crate) async fn finish_with(
        &self,
        id: Uuid,
        token: Uuid,
        content: &str,
        incomplete: bool,
    ) -> Finished {
        let finish = self.finishing(id, token, content, incomplete);
        let mut tx = self.worker.sweep_statement().await.unwrap();
        let together = generations::finish_many(&mut tx, &[&finish]).await.unwrap();
        drop(tx);
        if let Some(finished) = together.into_iter().next().unwrap() {
            return finished;
        }
        let mut tx = self.worker.sweep().await.unwrap();
        let finished = generations::finish(&mut tx, &finish).await.unwrap();
        tx.commit().await.unwrap();
        finished
    }

    pub(crate) fn finishing(
        &self,
        id: Uuid,
        token: Uuid,
        content: &str,
        incomplete: bool,
    ) -> Finish {
        let now = self.clock.now();
        let reply_id = id::new_after(now, Some(id));
        Finish {
            id,
            token,
            reply_id,
            usage_id: id::new(now),
            title_generation_id: id::new_after(now, Some(reply_id)),
            content: content.to_owned(),
            incomplete,
            usage: usage_of(content),
            context: None,
            first_token_ms_ago: Some(100),
            metadata: serde_json::json!({}),
            call: Some(self.call(id)),
        }
    }

    /// The upstream call that gave a generation its reply.
    fn call(&self, generation_id: Uuid) -> CallEnded {
        let now = self.clock.now();
        CallEnded {
            started: CallStarted {
                id: id::new(now),
                generation_id,
                attempt: 1,
                operation: "completion",
                key_label: "key".to_owned(),
                model_asked: "test/first:free".to_owned(),
                upstream_id: Some("gen-1".to_owned()),
                started_at: now,
            },
            model_served: Some("test/first:free".to_owned()),
            outcome: "completed",
            prompt_tokens: Some(20),
            completion_tokens: Some(10),
            cost_credits: None,
            usage: None,
            wasted: false,
            first_token_at: Some(now),
            finished_at: now,
        }
    }

    /// Claims the generation and stores a reply. Returns the reply.
    pub(crate) async fn reply(&self, id: Uuid, content: &str) -> Message {
        let claim = self.claim_one(id).await;
        match self.finish(&claim, content).await {
            Finished::Stored { message, .. } => *message,
            Finished::Fenced => panic!("{id} was fenced"),
        }
    }

    /// Claims the generation and gives it up.
    pub(crate) async fn fail(&self, id: Uuid) {
        let claim = self.claim_one(id).await;
        let mut tx = self.worker.user(claim.user_id).await.unwrap();
        let code = FailureCode::UpstreamExhausted;
        let failed = generations::fail(&mut tx, id, claim.token, code, "no model answered").await;
        assert!(matches!(failed, Ok(generations::Failed::Stored(_))));
        tx.commit().await.unwrap();
    }

    pub(crate) async fn history(
        &self,
        conversation_id: Uuid,
        user_message_id: Uuid,
        budget: i64,
    ) -> History {
        let of = HistoryOf {
            user_id: self.user,
            conversation_id,
            user_message_id,
        };
        let mut tx = self.worker.sweep().await.unwrap();
        let mut histories = generations::histories(&mut tx, &[of], budget)
            .await
            .unwrap();
        assert_eq!(histories.len(), 1);
        histories.remove(0)
    }

    /// The generation with its reply.
    pub(crate) async fn generation(&self, id: Uuid) -> Generation {
        let mut tx = self.api.user(self.user).await.unwrap();
        generations::find_with_reply(&mut tx, id)
            .await
            .unwrap()
            .unwrap()
    }

    /// The value of a query as superuser, as text; empty for NULL.
    pub(crate) async fn value(&self, sql: &str) -> String {
        let query = format!("SELECT ({sql})::text");
        let mut rows = self.superuser.lock().await.rows(&query).await.unwrap();
        rows.remove(0).remove(0).unwrap_or_default()
    }

    /// Runs a statement as superuser.
    pub(crate) async fn execute(&self, sql: &str) -> u64 {
        self.superuser.lock().await.run(sql).await.unwrap()
    }
}

/// Waits until `probe` finds something.
pub(crate) async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        let in_time = tokio::time::Instant::now() < deadline;
        assert!(in_time, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Ends a test that hangs.
pub(crate) async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("waited {PATIENCE:?} in vain until {what}"),
    }
}
