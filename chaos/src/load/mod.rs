//! The load: people who send several messages in each of their conversations, wait for replies, now
//! and then send twice, follow a stream, change their mind or want another reply, and never give up on
//! a request.

mod api;
mod ledger;
mod socket;
mod stream;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use loadtest::driver::Signer;
use loadtest::simulator::Simulator;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[cfg(test)]
pub(crate) use self::api::Refusal;
pub(crate) use self::api::{Answers, Api, http_client};
pub(crate) use self::ledger::{Acknowledged, Books, Conversation, Ledger, Request};
pub(crate) use self::stream::Seen;

/// People, and conversations of each.
const USERS: usize = 6;
const CONVERSATIONS: usize = 4;
/// Messages of a conversation that wait for their replies at the same time.
const DEPTH: usize = 3;
/// One in so many messages is sent to both replicas at once, cancelled, or followed.
const TWICE: u32 = 20;
const CANCELLED: u32 = 25;
const FOLLOWED: u32 = 6;
/// One in so many is sent with `Prefer: wait`, by clients that want the reply with the answer.
const WAITED: u32 = 12;
const WAIT: &str = "wait=3";
/// To one in so many replies another one is wanted.
const REGENERATED: u32 = 7;
/// Conversations that a burst makes at the same time.
const BURST: usize = 32;
/// How long a request may go on being repeated once everything is healed.
const LAST_CHANCE: Duration = Duration::from_secs(90);

/// Everybody who sends.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) api: Api,
    pub(crate) ledger: Ledger,
    simulator: Arc<Simulator>,
    signer: Signer,
    /// No new messages; what was sent is still repeated.
    quiet: CancellationToken,
    /// When repeating ends, once that is known.
    give_up: Mutex<Option<Instant>>,
    streams: Mutex<Vec<(usize, Seen)>>,
    people: tokio::sync::Mutex<JoinSet<()>>,
    refused: Mutex<Vec<String>>,
    seed: u64,
}

/// What is wanted.
#[derive(Debug, Clone, Copy)]
enum Wish {
    /// A message is sent.
    Message,
    /// Another one for this reply.
    Another(Uuid),
}

impl Load {
    pub(crate) fn new(
        fronts: Vec<String>,
        jwt_secret: &str,
        simulator: Arc<Simulator>,
        seed: u64,
    ) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            api: Api::new(fronts)?,
            ledger: Ledger::default(),
            simulator,
            signer: Signer::new(jwt_secret, "free")?,
            quiet: CancellationToken::new(),
            give_up: Mutex::default(),
            streams: Mutex::default(),
            people: tokio::sync::Mutex::default(),
            refused: Mutex::default(),
            seed,
        }))
    }

    /// Makes the people's conversations and lets them talk.
    pub(crate) async fn begin(self: &Arc<Self>) -> anyhow::Result<()> {
        let mut people = self.people.lock().await;
        for user in 0..USERS {
            let authorization: Arc<str> = self.signer.new_user()?.into();
            for number in 0..CONVERSATIONS {
                let conversation = self.converse(Arc::clone(&authorization)).await?;
                let dice = StdRng::seed_from_u64(self.seed ^ (user * 1_000 + number) as u64);
                people.spawn(Arc::clone(self).talk(conversation, dice));
            }
        }
        Ok(())
    }

    /// Ends the talking and waits until every request has an answer or its last chance is gone.
    /// Returns what went wrong.
    pub(crate) async fn end(&self) -> Vec<String> {
        self.quiet.cancel();
        *self.give_up() = Some(Instant::now() + LAST_CHANCE);
        let mut people = self.people.lock().await;
        while let Some(ended) = people.join_next().await {
            if let Err(error) = ended {
                self.refuse(format!("a client of the suite died: {error}"));
            }
        }
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.clone()
    }

    fn give_up(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.give_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, what: String) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.push(what);
    }

    /// What the followed streams have shown, by the number of the message.
    pub(crate) fn streams(&self) -> Vec<(usize, Seen)> {
        self.streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The reply that the model gives to a message.
    pub(crate) fn expected(&self, question: &str) -> String {
        self.simulator.expected_reply(question)
    }

    /// Makes a conversation.
    async fn converse(&self, authorization: Arc<str>) -> anyhow::Result<usize> {
        let key = Uuid::new_v4().to_string();
        let make = |turn| {
            let path = "/api/chat/conversations";
            self.api
                .request(turn, Method::POST, path, &authorization)
                .header("idempotency-key", &key)
                .json(&json!({}))
        };
        let give_up = *self.give_up();
        let answer = self
            .api
            .until_answered("POST conversation", give_up, make)
            .await;
        let id = answer
            .as_ref()
            .and_then(|answer| id(&answer.body["id"]))
            .with_context(|| format!("no conversation could be made: {answer:?}"))?;
        Ok(self
            .ledger
            .add_conversation(Conversation { id, authorization }))
    }

    /// One conversation for as long as the run lasts.
    async fn talk(self: Arc<Self>, conversation: usize, mut dice: StdRng) {
        let mut waiting = VecDeque::new();
        let mut followers = JoinSet::new();
        // The reply that came last: its message, and its id.
        let mut reply = None;
        while !self.quiet.is_cancelled() {
            let regenerated = reply.take().filter(|_| dice.random_ratio(1, REGENERATED));
            let (number, wish) = match regenerated {
                Some((number, reply)) => (self.ledger.ask_again(number), Wish::Another(reply)),
                None => (self.ledger.ask(conversation, ""), Wish::Message),
            };
            let twice = dice.random_ratio(1, TWICE);
            let waits = dice.random_ratio(1, WAITED);
            let Some(acknowledged) = self.post(number, wish, twice, waits).await else {
                break;
            };
            if dice.random_ratio(1, FOLLOWED) {
                let by_socket = dice.random();
                let this = Arc::clone(&self);
                followers.spawn(this.follow(number, acknowledged.generation, by_socket));
            }
            if dice.random_ratio(1, CANCELLED) {
                self.pause(dice.random_range(0..600)).await;
                self.cancel(number, acknowledged.generation).await;
            }
            waiting.push_back((number, acknowledged.generation));
            if waiting.len() >= DEPTH
                && let Some((number, generation)) = waiting.pop_front()
            {
                let answer = self.wait_for(number, generation).await;
                reply = answer.map(|reply| (number, reply));
            }
            self.pause(dice.random_range(0..300)).await;
        }
        while followers.join_next().await.is_some() {}
    }

    async fn pause(&self, millis: u64) {
        let pause = tokio::time::sleep(Duration::from_millis(millis));
        let _ = self.quiet.run_until_cancelled(pause).await;
    }

    /// Sends a wish until it is acknowledged. None when it was refused or the time is over.
    async fn post(
        &self,
        number: usize,
        wish: Wish,
        twice: bool,
        waits: bool,
    ) -> Option<Acknowledged> {
        let request = self.ledger.request(number);
        let conversation = self.ledger.conversation(request.conversation);
        let messages = format!("/api/chat/conversations/{}/messages", conversation.id);
        let (what, path, body) = match wish {
            Wish::Message => (
                "POST message",
                messages,
                json!({"content": request.question}),
            ),
            Wish::Another(reply) => (
                "POST regenerate",
                format!("{messages}/{reply}/regenerate"),
                json!({}),
            ),
        };
        let mut prefer = HeaderMap::new();
        if waits {
            prefer.insert("prefer", HeaderValue::from_static(WAIT));
        }
        let make = |turn| {
            self.api
                .request(turn, Method::POST, &path, &conversation.authorization)
                .header("idempotency-key", &request.key)
                .header("x-request-id", &request.key)
                .headers(prefer.clone())
                .json(&body)
        };
        if twice {
            // Both at once; whatever they answer, the acknowledgement has to be the same.
            let turn = self.api.turn();
            let both = tokio::join!(
                self.api.once(what, make(turn)),
                self.api.once(what, make(turn + 1))
            );
            for answer in [both.0, both.1].into_iter().flatten() {
                self.note(number, answer.status, &answer.body);
            }
        }
        loop {
            let give_up = *self.give_up();
            // Looked at again and again: whether there is an end is known later.
            let until = Instant::now() + Duration::from_secs(5);
            let until = give_up.map_or(until, |at| at.min(until));
            let answer = self.api.until_answered(what, Some(until), make).await;
            match answer {
                Some(answer) => {
                    let noted = self.note(number, answer.status, &answer.body);
                    if noted.is_none() {
                        let status = answer.status;
                        self.refuse(format!(
                            "message {number} was refused: {status} {}",
                            answer.body
                        ));
                    }
                    return noted;
                }
                None if give_up.is_some_and(|at| Instant::now() >= at) => {
                    self.refuse(format!("message {number} was never answered"));
                    return None;
                }
                None => {}
            }
        }
    }

    /// Notes an acknowledgement.
    fn note(&self, number: usize, status: StatusCode, body: &Value) -> Option<Acknowledged> {
        match status {
            StatusCode::ACCEPTED => {}
            // With the reply, where it ended with one.
            StatusCode::OK => {
                let reply = [&body["assistant_message"], &body["new_message"]]
                    .into_iter()
                    .find_map(|message| message["content"].as_str());
                let expected = self.expected(&self.ledger.request(number).question);
                if reply.is_some_and(|reply| reply != expected) {
                    self.refuse(format!("message {number} was answered with another reply"));
                }
            }
            _ => return None,
        }
        let acknowledged = Acknowledged {
            generation: id(&body["generation"]["id"])?,
            // A wish for another reply has no message of its own.
            message: id(&body["user_message"]["id"])
                .or_else(|| id(&body["generation"]["user_message_id"]))?,
        };
        self.ledger.acknowledge(number, acknowledged);
        Some(acknowledged)
    }

    async fn cancel(&self, number: usize, generation: Uuid) {
        let request = self.ledger.request(number);
        let conversation = self.ledger.conversation(request.conversation);
        let path = format!("/api/chat/generations/{generation}/cancel");
        let make = |turn| {
            self.api
                .request(turn, Method::POST, &path, &conversation.authorization)
        };
        let turn = self.api.turn();
        // Once: an answer that was lost leaves open who ended it.
        if let Some(answer) = self.api.once("POST cancel", make(turn)).await {
            match (answer.status, answer.code()) {
                (StatusCode::OK, _) => self.ledger.cancelled(number),
                (StatusCode::CONFLICT, "generation_ended")
                | (StatusCode::SERVICE_UNAVAILABLE, _) => {}
                (status, _) => self.refuse(format!(
                    "cancelling message {number} was refused: {status} {}",
                    answer.body
                )),
            }
        }
    }

    /// Long-polls until the reply is there and returns its id; none when there is none, or the run is
    /// over.
    async fn wait_for(&self, number: usize, generation: Uuid) -> Option<Uuid> {
        let request = self.ledger.request(number);
        let conversation = self.ledger.conversation(request.conversation);
        let path = format!("/api/chat/generations/{generation}?wait=5");
        while !self.quiet.is_cancelled() {
            let turn = self.api.turn();
            let asked = self
                .api
                .request(turn, Method::GET, &path, &conversation.authorization);
            let answer = self
                .quiet
                .run_until_cancelled(self.api.once("GET generation", asked))
                .await;
            let body = answer.flatten().map(|answer| answer.body);
            let body = body.unwrap_or_default();
            match body["status"].as_str() {
                Some("queued" | "in_progress") => {}
                Some(_) => return id(&body["assistant_message"]["id"]),
                None => self.pause(150).await,
            }
        }
        None
    }

    async fn follow(self: Arc<Self>, number: usize, generation: Uuid, by_socket: bool) {
        let request = self.ledger.request(number);
        let conversation = self.ledger.conversation(request.conversation);
        let expected = self.expected(&request.question);
        let over = || self.give_up().is_some_and(|at| Instant::now() >= at);
        let seen = if by_socket {
            socket::follow(&self.api, &conversation, generation, &expected, over).await
        } else {
            stream::follow(&self.api, &conversation, generation, &expected, over).await
        };
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.push((number, seen));
    }

    /// Sends one message in a conversation of its own and returns its number. `marker` tells the model
    /// how to answer it.
    pub(crate) async fn probe(&self, marker: &str) -> anyhow::Result<usize> {
        let conversation = self.converse(self.signer.new_user()?.into()).await?;
        let number = self.ledger.ask(conversation, marker);
        self.post(number, Wish::Message, false, false)
            .await
            .context("a probe was not accepted")?;
        Ok(number)
    }

    /// Sends `count` messages in as many conversations, as fast as they are taken.
    pub(crate) async fn burst(self: &Arc<Self>, count: usize, marker: &str) -> anyhow::Result<()> {
        let authorization: Arc<str> = self.signer.new_user()?.into();
        let left = Arc::new(AtomicUsize::new(count));
        let mut senders = JoinSet::new();
        for _ in 0..BURST.min(count) {
            let (this, left) = (Arc::clone(self), Arc::clone(&left));
            let (authorization, marker) = (Arc::clone(&authorization), marker.to_owned());
            senders.spawn(async move {
                let take = |left: usize| left.checked_sub(1);
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                    .is_ok()
                {
                    let conversation = this.converse(Arc::clone(&authorization)).await?;
                    let number = this.ledger.ask(conversation, &marker);
                    if this
                        .post(number, Wish::Message, false, false)
                        .await
                        .is_none()
                    {
                        bail!("a message of a burst was not accepted");
                    }
                }
                Ok(())
            });
        }
        while let Some(ended) = senders.join_next().await {
            ended.context("a client of the suite died")??;
        }
        Ok(())
    }
}

fn id(value: &Value) -> Option<Uuid> {
    value.as_str()?.parse().ok()
}

/// Reads the events of a message that has ended once more, from the first on.
pub(crate) async fn follow_again(load: &Load, number: usize, generation: Uuid) -> Seen {
    let request = load.ledger.request(number);
    let conversation = load.ledger.conversation(request.conversation);
    let expected = load.expected(&request.question);
    let give_up = Instant::now() + LAST_CHANCE;
    let over = || Instant::now() >= give_up;
    stream::follow(&load.api, &conversation, generation, &expected, over).await
}
