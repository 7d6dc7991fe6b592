//! A client, a simulator, and a listener that writes down what it hears.

use std::time::Duration;

use loadtest::simulator::Simulator;
use shared::clock::Clock;
use shared::config::Vars;
use shared::models::Model;
use uuid::Uuid;
use worker::upstream::{
    Answer, Call, CallRecord, ChatMessage, ChatRole, Client, ErrorClass, Outcome, Progress,
    Referee, Unlimited, UpstreamConfig, run,
};

pub(crate) const A: &str = "sim/a:free";
pub(crate) const B: &str = "sim/b:free";
pub(crate) const C: &str = "sim/c";

/// What a generation heard, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Calling(String),
    Accepted(String),
    Text(String),
    Quiet,
    Ended(Option<ErrorClass>),
    Retrying(String, ErrorClass, String),
}

/// Writes down what a generation would hear.
#[derive(Default)]
pub(crate) struct Listener {
    pub(crate) heard: Vec<Heard>,
    pub(crate) records: Vec<CallRecord>,
    /// The client has no key, whose label is then `none`.
    pub(crate) keyless: bool,
}

impl Listener {
    /// The text as a client shows it: void after each retry.
    pub(crate) fn shown(&self) -> String {
        let mut shown = String::new();
        for heard in &self.heard {
            match heard {
                Heard::Text(piece) => shown.push_str(piece),
                Heard::Retrying(..) => shown.clear(),
                _ => {}
            }
        }
        shown
    }

    pub(crate) fn count(&self, wanted: &Heard) -> usize {
        self.heard.iter().filter(|heard| *heard == wanted).count()
    }

    pub(crate) fn retried(&self) -> usize {
        self.heard
            .iter()
            .filter(|heard| matches!(heard, Heard::Retrying(..)))
            .count()
    }
}

impl Progress for Listener {
    async fn calling(&mut self, model: &Model, key_label: &str) {
        let expected = if self.keyless { 4 } else { 8 };
        assert_eq!(
            key_label.len(),
            expected,
            "a label and not a key: {key_label}"
        );
        self.heard.push(Heard::Calling(model.name.clone()));
    }

    async fn accepted(&mut self, upstream_id: &str) {
        self.heard.push(Heard::Accepted(upstream_id.to_owned()));
    }

    async fn text(&mut self, piece: &str) {
        assert!(!piece.is_empty());
        self.heard.push(Heard::Text(piece.to_owned()));
    }

    async fn quiet(&mut self) {
        self.heard.push(Heard::Quiet);
    }

    async fn call_ended(&mut self, record: CallRecord) {
        self.heard.push(Heard::Ended(record.error));
        self.records.push(record);
    }

    async fn retrying(&mut self, model: &Model, reason: ErrorClass, next: &Model, delay: Duration) {
        assert!(
            delay <= Duration::from_millis(2_200),
            "{delay:?} holds a worker too long"
        );
        self.heard.push(Heard::Retrying(
            model.name.clone(),
            reason,
            next.name.clone(),
        ));
    }
}

/// A client with these variables besides the base URL and a key.
pub(crate) fn client(base_url: &str, pairs: &[(&str, &str)]) -> Client {
    let defaults = [
        ("OPENROUTER_BASE_URL", base_url),
        ("OPENROUTER_API_KEY", "sk-test"),
    ];
    let mut vars = Vars::from_map(defaults.iter().chain(pairs).copied());
    let config = UpstreamConfig::from_vars(&mut vars);
    vars.finish().unwrap();
    Client::new(config, Clock::system()).unwrap()
}

pub(crate) fn models(names: &[&str]) -> Vec<Model> {
    let model = |name: &&str| Model::new((*name).to_owned(), name.ends_with(":free"));
    names.iter().map(model).collect()
}

/// A prompt with some history, so that it can be cut.
pub(crate) fn call(question: &str) -> Call {
    Call {
        messages: vec![
            ChatMessage::text(ChatRole::System, "You are a test."),
            ChatMessage::text(ChatRole::User, "first"),
            ChatMessage::text(ChatRole::Assistant, "one"),
            ChatMessage::text(ChatRole::User, "second"),
            ChatMessage::text(ChatRole::Assistant, "two"),
            ChatMessage::text(ChatRole::User, question),
        ],
        max_tokens: 1_000,
        temperature: 0.7,
        user: "user-hash".to_owned(),
        session_id: Uuid::from_u128(7),
        request_id: Some("request-1".to_owned()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        round: 1,
        is_last_round: false,
        time_left: Duration::from_mins(10),
    }
}

/// What became of one run.
pub(crate) struct Ran {
    pub(crate) outcome: Outcome,
    pub(crate) listener: Listener,
}

impl Ran {
    pub(crate) fn answer(&self) -> &Answer {
        match &self.outcome {
            Outcome::Completed(answer) => answer,
            other => panic!("no answer: {other:?}"),
        }
    }

    /// The outcome in a word or two.
    pub(crate) fn end(&self) -> String {
        match &self.outcome {
            Outcome::Completed(answer) if answer.incomplete => "incomplete".to_owned(),
            Outcome::Completed(_) => "completed".to_owned(),
            // In tens of seconds, as up to a tenth is added to what the upstream said; a reset is
            // a moment, so what is left until then may be a little less.
            Outcome::PutBack { after, .. } => {
                format!("put back {}", (after.as_secs() + 1) / 10 * 10)
            }
            Outcome::Paced { after, .. } => format!("paced {}", after.as_secs()),
            Outcome::Again { after, .. } => {
                assert!(*after <= Duration::from_secs(3), "{after:?}");
                "again".to_owned()
            }
            Outcome::Failed { code, .. } => code.to_string(),
        }
    }

    /// What the log would say about the last failure.
    pub(crate) fn detail(&self) -> &str {
        match &self.outcome {
            Outcome::Completed(_) | Outcome::Paced { .. } => panic!("no failure"),
            Outcome::PutBack { detail, .. }
            | Outcome::Again { detail, .. }
            | Outcome::Failed { detail, .. } => detail,
        }
    }
}

/// Runs one generation.
pub(crate) async fn generate(client: &Client, chain: &[&str], question: &str) -> Ran {
    generate_by(client, chain, &call(question), &Unlimited).await
}

/// Runs one generation under the eyes of a referee.
pub(crate) async fn generate_by(
    client: &Client,
    chain: &[&str],
    call: &Call,
    referee: &impl Referee,
) -> Ran {
    let mut listener = Listener::default();
    let outcome = run(client, &models(chain), call, referee, &mut listener).await;
    Ran { outcome, listener }
}

/// Runs one generation against a simulator of its own that does `script` to every call.
pub(crate) async fn scripted(
    script: &str,
    chain: &[&str],
    pairs: &[(&str, &str)],
) -> (Ran, Simulator) {
    let simulator = Simulator::start().await;
    if !script.is_empty() {
        simulator.script(script);
    }
    let client = client(&simulator.base_url(), pairs);
    let ran = generate(&client, chain, "How are you?").await;
    (ran, simulator)
}

/// The models that were called, by the last letter that tells them apart.
pub(crate) fn called(simulator: &Simulator) -> String {
    let letter = |model: &str| {
        model
            .trim_start_matches("sim/")
            .chars()
            .next()
            .unwrap_or('?')
    };
    simulator
        .calls()
        .iter()
        .map(|call| letter(&call.model))
        .collect()
}

/// Bounds a wait for something that must happen; it is no measure of time.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .expect("it never happened")
}
