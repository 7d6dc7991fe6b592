//! How well a model judges messages, beside the patterns of [`crate::intents`]: what is asked and how the answer is
//! read are the worker's own. `cargo xtask eval --judge` measures `SUPPORT_CLASSIFIER_MODEL` with the provider and
//! the key of the environment, which costs some 84 short calls.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shared::clock::Clock;
use shared::config::Vars;
use shared::desk::{self, Judge, Judgement, Patterns};
use shared::models::Model;
use uuid::Uuid;
use worker::prompt;
use worker::upstream::{
    Call, CallRecord, Client, ErrorClass, Outcome, Progress, Unlimited, UpstreamConfig, run,
};

use crate::intents::{judged, share};

/// As long as a worker waits.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longer than a busy machine is late.
const FOR_EVER: Duration = Duration::from_secs(120);

struct ByModel {
    client: Client,
    model: Model,
    /// Messages of which the model said something of use; the others were judged by patterns.
    useful: AtomicUsize,
    patience: Duration,
}

impl ByModel {
    fn new(mut vars: Vars, model: &str, patience: Duration) -> Self {
        let config = UpstreamConfig::from_vars(&mut vars);
        vars.finish().unwrap();
        Self {
            model: config.models.model(model),
            client: Client::new(config, Clock::system()).unwrap(),
            useful: AtomicUsize::new(0),
            patience,
        }
    }
}

/// Nobody follows.
struct Quiet;

impl Progress for Quiet {
    async fn calling(&mut self, _: &Model, _: &str) {}
    async fn accepted(&mut self, _: &str) {}
    async fn text(&mut self, _: &str) {}
    async fn quiet(&mut self) {}
    async fn call_ended(&mut self, _: CallRecord) {}
    async fn retrying(&mut self, _: &Model, _: ErrorClass, _: &Model, _: Duration) {}
}

impl Judge for ByModel {
    async fn judge(&self, message: &str) -> Judgement {
        let offline = Patterns.judge(message).await;
        let call = Call {
            messages: prompt::build_judgement(message),
            max_tokens: prompt::JUDGEMENT_MAX_TOKENS,
            temperature: 0.0,
            user: "evaluation".to_owned(),
            session_id: Uuid::nil(),
            request_id: None,
            traceparent: None,
            round: 2,
            is_last_round: true,
            time_left: self.patience,
        };
        let chain = [self.model.clone()];
        let mut quiet = Quiet;
        let running = run(&self.client, &chain, &call, &Unlimited, &mut quiet);
        let said = match tokio::time::timeout(self.patience, running).await {
            Ok(Outcome::Completed(answer)) => desk::said(&answer.text, offline),
            _ => None,
        };
        if said.is_some() {
            self.useful.fetch_add(1, Ordering::Relaxed);
        }
        said.unwrap_or(offline)
    }
}

#[tokio::test]
#[ignore = "it asks a provider: cargo xtask eval --judge"]
async fn how_well_a_model_judges() {
    let mut vars = Vars::from_process();
    let model: Option<String> = vars.optional("SUPPORT_CLASSIFIER_MODEL", "the model to measure");
    let model = model.expect("SUPPORT_CLASSIFIER_MODEL names the model");
    let judge = ByModel::new(vars, &model, PATIENCE);
    let halves = judged(&judge).await;
    let useful = judge.useful.load(Ordering::Relaxed);
    println!("{model} said something of use of {useful} messages; the patterns judged the others");
    for (name, half) in ["dev", "test"].iter().zip(&halves) {
        println!(
            "{name}: {} messages, intent {:.2}, mood {:.2}",
            half.all,
            share(half.intent, half),
            share(half.mood, half)
        );
    }
}

/// A provider that calls everything a furious complaint.
fn complains() -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let said = r#"{"intent":"complaint","sentiment":-0.9,"wants_person":false}"#;
    let said = serde_json::Value::from(said).to_string();
    let body =
        include_str!("../../../api/tests/it/fixtures/judgement.json").replace("\"CONTENT\"", &said);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.ends_with(b"}") {
                let read = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
                if read == 0 {
                    break;
                }
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
            let length = body.len();
            let answer = format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    url
}

/// What is measured is what the model says: one that always says the same is right as often as that is so.
#[tokio::test]
async fn a_model_is_measured_by_what_it_says() {
    let url = complains();
    let vars = Vars::from_map([
        ("OPENROUTER_BASE_URL", url.as_str()),
        ("OPENROUTER_API_KEY", "sk-test"),
    ]);
    let judge = ByModel::new(vars, "judge/model", FOR_EVER);
    let halves = judged(&judge).await;
    let all: u32 = halves.iter().map(|half| half.all).sum();
    assert_eq!((all, judge.useful.load(Ordering::Relaxed)), (84, 84));
    let complaints: u32 = halves.iter().map(|half| half.intent).sum();
    assert_eq!(complaints, 12, "a seventh of the messages are complaints");
}
