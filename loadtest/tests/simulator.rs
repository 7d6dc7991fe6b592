//! Every behaviour of the simulator, seen by a plain HTTP client.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise, and its tasks end with its runtime"
)]

use std::sync::Once;
use std::time::{Duration, Instant};

use futures::StreamExt;
use loadtest::simulator::{CallRecord, Endpoint, Outcome, Rule, Settings, Simulator, reply_text};
use serde_json::{Value, json};

fn client() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // The client is built with TLS support even where it speaks plain HTTP.
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap();
    });
    reqwest::Client::builder().no_proxy().build().unwrap()
}

fn request(model: &str, message: &str) -> Value {
    json!({
        "model": model, "stream": true, "max_tokens": 1000, "session_id": "s1", "user": "u1",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": message}],
    })
}

async fn post(simulator: &Simulator, body: &Value) -> reqwest::Result<reqwest::Response> {
    client()
        .post(format!("{}/chat/completions", simulator.base_url()))
        .bearer_auth("k1")
        .json(body)
        .send()
        .await
}

async fn ask(simulator: &Simulator, message: &str) -> reqwest::Response {
    post(simulator, &request("openai/gpt-4o-mini", message))
        .await
        .unwrap()
}

/// What a client makes of a stream.
#[derive(Debug, Default)]
struct Seen {
    raw: Vec<u8>,
    text: String,
    chunks: usize,
    comments: usize,
    finish: Option<String>,
    usages: Vec<Value>,
    errors: Vec<Value>,
    malformed: usize,
    done: bool,
    broken: bool,
}

async fn read(response: reqwest::Response) -> Seen {
    let mut seen = Seen::default();
    let mut body = response.bytes_stream();
    while let Some(bytes) = body.next().await {
        match bytes {
            Ok(bytes) => seen.raw.extend_from_slice(&bytes),
            Err(_) => seen.broken = true,
        }
    }
    seen.parse();
    seen
}

impl Seen {
    fn parse(&mut self) {
        let raw = String::from_utf8_lossy(&self.raw).replace("\r\n", "\n");
        for line in raw.lines() {
            if line.starts_with(": ") {
                self.comments += 1;
            }
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            if data == "[DONE]" {
                self.done = true;
                continue;
            }
            let Ok(chunk) = serde_json::from_str::<Value>(data) else {
                self.malformed += 1;
                continue;
            };
            self.chunks += 1;
            let choice = &chunk["choices"][0];
            self.text
                .push_str(choice["delta"]["content"].as_str().unwrap_or_default());
            if let Some(reason) = choice["finish_reason"].as_str() {
                self.finish = Some(reason.to_owned());
            }
            if chunk["usage"].is_object() {
                self.usages.push(chunk["usage"].clone());
            }
            for error in [&chunk["error"], &choice["error"]] {
                if error.is_object() {
                    self.errors.push(error.clone());
                }
            }
        }
    }
}

async fn only_call(simulator: &Simulator, outcome: Outcome) -> CallRecord {
    let call = simulator
        .wait_for_call(|call| call.outcome == outcome)
        .await;
    assert_eq!(simulator.calls().len(), 1);
    call
}

#[tokio::test]
async fn streams_the_whole_reply_and_books_it() {
    let simulator = Simulator::start().await;
    let message = "How do I become a data engineer?";
    let response = ask(&simulator, message).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let id = response.headers()["x-generation-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let seen = read(response).await;
    assert_eq!(seen.text, reply_text(message, 24));
    assert_eq!(simulator.expected_reply(message), seen.text);
    assert_eq!(
        (seen.finish.as_deref(), seen.done, seen.broken),
        (Some("stop"), true, false)
    );
    assert_eq!(seen.usages.len(), 1);
    assert_eq!(seen.usages[0]["completion_tokens"], 24);

    let call = only_call(&simulator, Outcome::Completed).await;
    assert_eq!(
        (call.id.as_str(), call.tokens_sent, call.status),
        (id.as_str(), 24, 200)
    );
    assert_eq!(
        (
            call.session_id.as_deref(),
            call.user.as_deref(),
            call.key.as_str()
        ),
        (Some("s1"), Some("u1"), "k1")
    );
    assert_eq!(
        (call.endpoint, call.last_user_message.as_str()),
        (Endpoint::Chat, message)
    );
    assert!(call.first_token_us >= Some(call.at_us) && call.ended_us >= call.first_token_us);
    // Prompt: 2 words + 7 words + 2 × 4 + 3 = 20 tokens at 0.00000015, and 24 at 0.0000006.
    assert_eq!(
        (call.prompt_tokens, call.cost.as_deref()),
        (20, Some("0.0000174"))
    );
    assert_eq!(seen.usages[0]["cost"].as_f64(), Some(0.000_017_4));
    assert!(String::from_utf8_lossy(&seen.raw).contains(r#""cost":0.0000174,"#));

    let generation: Value = client()
        .get(format!("{}/generation?id={id}", simulator.base_url()))
        .bearer_auth("k1")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(generation["data"]["total_cost"].as_f64(), Some(0.000_017_4));
    assert_eq!(generation["data"]["tokens_completion"], 24);
    assert_eq!(simulator.stats().total.cost.to_string(), "0.0000174");
}

#[tokio::test]
async fn answers_without_a_stream() {
    let simulator = Simulator::start().await;
    let mut body = request("openai/gpt-4o-mini", "Hello");
    body["stream"] = json!(false);
    let answer: Value = post(&simulator, &body).await.unwrap().json().await.unwrap();
    assert_eq!(
        answer["choices"][0]["message"]["content"],
        reply_text("Hello", 24)
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["completion_tokens"], 24);
    only_call(&simulator, Outcome::Completed).await;
}

#[tokio::test]
async fn paces_tokens_but_keeps_the_text() {
    let simulator = Simulator::start().await;
    let message = "Go [[sim:ttft=30,rate=400,tokens=40,processing=5]]";
    let started = Instant::now();
    let seen = read(ask(&simulator, message).await).await;
    assert_eq!(seen.text, reply_text(message, 40));
    assert!(seen.comments >= 1, "no comment in 30 ms of silence");
    // The last token is due 39/400 s after the first: sooner would be too fast, later is load.
    assert!(
        started.elapsed() >= Duration::from_micros(30_000 + 97_500),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn every_named_failure_comes_in_all_three_places() {
    let simulator = Simulator::start().await;
    for name in loadtest::simulator::behaviour::Failure::names() {
        let response = ask(&simulator, &format!("x [[sim:{name}]]")).await;
        let status = response.status().as_u16();
        assert!(
            name.starts_with(&status.to_string()) || name.parse::<u16>().is_err(),
            "{name}: {status}"
        );
        assert_eq!(
            response.headers().contains_key("x-ratelimit-reset"),
            name == "429",
            "{name}"
        );
        let retry_after = ["in_flight_budget", "429_upstream", "503_retryable"].contains(&name);
        assert_eq!(
            response.headers().contains_key("retry-after"),
            retry_after,
            "{name}"
        );
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], status, "{name}");

        let seen = read(ask(&simulator, &format!("x [[sim:{name},in=chunk,at=7]]")).await).await;
        assert_eq!(seen.text, prefix("x", 7), "{name}");
        assert_eq!(
            (seen.errors[0]["code"].as_u64(), seen.finish.as_deref()),
            (Some(u64::from(status)), Some("error"))
        );
        assert!(String::from_utf8_lossy(&seen.raw).contains(r#","error":{"#));

        let seen = read(ask(&simulator, &format!("x [[sim:{name},in=finish]]")).await).await;
        assert_eq!(
            (
                seen.text.as_str(),
                seen.finish.as_deref(),
                seen.usages.len()
            ),
            ("", Some("error"), 0),
            "{name}"
        );
    }
    let stats = simulator.stats();
    assert_eq!(
        (
            stats.by_outcome[&Outcome::Failed],
            stats.total.cost.is_zero()
        ),
        (stats.calls, true)
    );
}

/// The first `tokens` tokens of the reply to `message`, by the simulator's own rule that a
/// token is a word with the space before it. (No word of these is longer than twelve letters.)
fn prefix(message: &str, tokens: usize) -> String {
    let text = reply_text(message, 24);
    let mut count = 0;
    let mut inside = false;
    for (at, character) in text.char_indices() {
        if character.is_whitespace() {
            if inside && count == tokens {
                return text[..at].to_owned();
            }
            inside = false;
        } else if !inside {
            inside = true;
            count += 1;
        }
    }
    text
}

#[tokio::test]
async fn failures_say_what_the_script_says() {
    let simulator = Simulator::start().await;
    let response = ask(
        &simulator,
        "x [[sim:status=503,retry_after=7,retryable=true,error_type=server,code=busy]]",
    )
    .await;
    assert_eq!(response.headers()["retry-after"], "7");
    let error = &response.json::<Value>().await.unwrap()["error"];
    assert_eq!(
        error["availability"],
        json!({"retryable": true, "retry_after": 7.0})
    );
    assert_eq!(
        (
            &error["metadata"]["error_type"],
            &error["metadata"]["provider_code"]
        ),
        (&json!("server"), &json!("busy"))
    );
    let bare: Value = ask(&simulator, "x [[sim:429,no_metadata]]")
        .await
        .json()
        .await
        .unwrap();
    assert!(bare["error"]["metadata"].is_null() && bare["error"]["availability"].is_null());
}

#[tokio::test]
async fn timed_failures_end() {
    let simulator = Simulator::start().await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(
            ask(
                &simulator,
                "x [[sim:status=503,times=2]] [[sim:429,times=1]]",
            )
            .await
            .status()
            .as_u16(),
        );
    }
    assert_eq!(statuses, [503, 503, 429, 200]);
}

#[tokio::test]
async fn a_hang_ends_when_the_client_leaves() {
    for (marker, tokens) in [
        ("hang", 0),
        ("hang=body", 0),
        ("hang=12", 12),
        ("hang=body,processing=5", 0),
    ] {
        let simulator = Simulator::start().await;
        let url = format!("{}/chat/completions", simulator.base_url());
        let body = request("m", &format!("x [[sim:{marker}]]"));
        let task = tokio::spawn(async move {
            let response = client()
                .post(url)
                .bearer_auth("k1")
                .json(&body)
                .send()
                .await
                .unwrap();
            read(response).await
        });
        let call = simulator
            .wait_for_call(|call| call.tokens_sent == tokens)
            .await;
        assert_eq!(call.outcome, Outcome::InProgress, "{marker}");
        task.abort();
        let call = only_call(&simulator, Outcome::Disconnected).await;
        assert_eq!(call.tokens_sent, tokens, "{marker}");
        assert_eq!(call.cost.as_deref() == Some("0"), tokens == 0, "{marker}");
    }
}

#[tokio::test]
async fn a_held_stream_goes_on_when_released() {
    let simulator = Simulator::start().await;
    let message = "x [[sim:hold=5]] [[sim:hold=9]]";
    let reading = tokio::spawn(read(ask(&simulator, message).await));
    simulator.wait_for_call(|call| call.tokens_sent == 5).await;
    simulator.release();
    simulator.wait_for_call(|call| call.tokens_sent == 9).await;
    assert!(!reading.is_finished());
    simulator.release();
    assert_eq!(reading.await.unwrap().text, reply_text("x", 24));
}

#[tokio::test]
async fn cuts_look_like_cuts() {
    let simulator = Simulator::start().await;
    for marker in ["cut=10", "drop=10"] {
        let seen = read(ask(&simulator, &format!("x [[sim:{marker}]]")).await).await;
        assert_eq!(seen.text, prefix("x", 10), "{marker}");
        assert_eq!(
            (seen.broken, seen.finish, seen.done),
            (true, None, false),
            "{marker}"
        );
    }
    for marker in ["reset_connection", "close"] {
        let error = post(&simulator, &request("m", &format!("x [[sim:{marker}]]")))
            .await
            .unwrap_err();
        assert!(
            !error.is_timeout() && !error.is_connect(),
            "{marker}: {error:?}"
        );
    }
    assert_eq!(simulator.stats().by_outcome[&Outcome::Cut], 4);
    // Half an answer that is not streamed is as broken.
    let mut body = request("m", "x [[sim:cut]]");
    body["stream"] = json!(false);
    assert!(post(&simulator, &body).await.unwrap().text().await.is_err());
}

#[tokio::test]
async fn a_cut_is_a_reset_on_the_wire() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let simulator = Simulator::start().await;
    for (marker, resets) in [
        ("cut=3", true),
        ("drop=3", false),
        ("reset_connection", true),
        ("close", false),
    ] {
        let address = simulator.origin().trim_start_matches("http://").to_owned();
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let body = request("m", &format!("x [[sim:{marker}]]")).to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer k1\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all(format!("{head}{body}").as_bytes())
            .await
            .unwrap();
        let mut received = Vec::new();
        let end = stream.read_to_end(&mut received).await;
        let was_reset = end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        assert_eq!(was_reset, resets, "{marker}");
        assert_eq!(received.is_empty(), !marker.contains('='), "{marker}");
    }
}

#[tokio::test]
async fn endings_that_are_not_endings() {
    let simulator = Simulator::start().await;
    let seen = read(ask(&simulator, "x [[sim:no_finish]]").await).await;
    assert_eq!(
        (seen.text, seen.finish, seen.broken),
        (reply_text("x", 24), None, false)
    );
    only_call(&simulator, Outcome::Cut).await;

    let seen = read(ask(&simulator, "x [[sim:no_done]]").await).await;
    assert_eq!((seen.finish.as_deref(), seen.done), (Some("stop"), false));
    let seen = read(ask(&simulator, "x [[sim:empty]]").await).await;
    assert_eq!(
        (seen.text.as_str(), seen.finish.as_deref()),
        ("", Some("stop"))
    );
    assert_eq!(seen.usages[0]["completion_tokens"], 0);
    for reason in ["length", "content_filter", "tool_calls", ""] {
        let seen = read(ask(&simulator, &format!("x [[sim:finish={reason}]]")).await).await;
        assert_eq!(seen.finish.as_deref(), Some(reason));
    }
}

#[tokio::test]
async fn max_tokens_cuts_the_reply() {
    let simulator = Simulator::start().await;
    let mut body = request("m", "x [[sim:tokens=300]]");
    body["max_tokens"] = json!(40);
    let seen = read(post(&simulator, &body).await.unwrap()).await;
    assert_eq!(
        (
            seen.finish.as_deref(),
            seen.usages[0]["completion_tokens"].as_u64()
        ),
        (Some("length"), Some(40))
    );
    assert!(reply_text("x", 300).starts_with(&seen.text));
}

#[tokio::test]
async fn usage_in_all_its_forms() {
    let simulator = Simulator::start().await;
    let seen = read(ask(&simulator, "x [[sim:duplicate_usage]]").await).await;
    assert_eq!(
        (seen.usages.len(), seen.usages[0] == seen.usages[1]),
        (2, true)
    );
    assert!(
        read(ask(&simulator, "x [[sim:no_usage]]").await)
            .await
            .usages
            .is_empty()
    );
    let seen = read(ask(&simulator, "x [[sim:no_cost]]").await).await;
    assert!(seen.usages[0]["cost"].is_null() && seen.usages[0]["total_tokens"].is_u64());
    let seen = read(ask(&simulator, "x [[sim:usage_with_finish]]").await).await;
    assert_eq!(seen.usages.len(), 1);
    let seen = read(ask(&simulator, "x [[sim:cached=5,reasoning=11,cost=0.5]]").await).await;
    let usage = &seen.usages[0];
    assert_eq!(
        (usage["completion_tokens"].as_u64(), usage["cost"].as_f64()),
        (Some(35), Some(0.5))
    );
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 5);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 11);
    let free = read(post(&simulator, &request("a/b:free", "x")).await.unwrap()).await;
    assert_eq!(free.usages[0]["cost"], 0);
}

#[tokio::test]
async fn the_wire_in_all_its_forms() {
    let simulator = Simulator::start().await;
    let seen = read(ask(&simulator, "x [[sim:malformed=6]]").await).await;
    assert_eq!(
        (seen.malformed, seen.text, seen.finish.as_deref()),
        (1, reply_text("x", 24), Some("stop"))
    );

    let seen = read(ask(&simulator, "x [[sim:crlf]]").await).await;
    assert!(String::from_utf8_lossy(&seen.raw).contains("[DONE]\r\n\r\n"));
    assert_eq!(seen.text, reply_text("x", 24));

    assert!(
        !ask(&simulator, "x [[sim:no_id_header]]")
            .await
            .headers()
            .contains_key("x-generation-id")
    );
}

#[tokio::test]
async fn characters_are_split_between_packets() {
    let simulator = Simulator::start().await;
    // Pieces of five bytes and characters of three: two borders of three fall inside one.
    let message = "日本語".repeat(8);
    let response = ask(&simulator, &format!("{message} [[sim:split=5,tokens=3]]")).await;
    let mut body = response.bytes_stream();
    let (mut all, mut split) = (Vec::new(), false);
    while let Some(bytes) = body.next().await {
        let bytes = bytes.unwrap();
        split |= std::str::from_utf8(&bytes).is_err();
        all.extend_from_slice(&bytes);
    }
    assert!(split, "no packet ended inside a character");
    let mut seen = Seen {
        raw: all,
        ..Seen::default()
    };
    seen.parse();
    assert_eq!(seen.text, reply_text(&message, 3));
}

#[tokio::test]
async fn ten_megabytes_arrive_whole() {
    let simulator = Simulator::start().await;
    let message = "x [[sim:bytes=10000000,chunk=500]]";
    let seen = read(ask(&simulator, message).await).await;
    assert_eq!(seen.text.len(), simulator.expected_reply(message).len());
    assert!(seen.text == simulator.expected_reply(message) && seen.text.len() > 9_999_990);
    assert_eq!(seen.finish.as_deref(), Some("stop"));
}

#[tokio::test]
async fn titles_are_short() {
    let simulator = Simulator::start().await;
    let mut body = request("m", "How do I become a data engineer? [[sim:500]]");
    body["max_tokens"] = json!(32);
    let seen = read(post(&simulator, &body).await.unwrap()).await;
    assert_eq!(seen.text, "How do I become a");
    assert_eq!(simulator.calls()[0].endpoint, Endpoint::Title);
}

#[tokio::test]
async fn refuses_what_the_gateway_refuses() {
    let simulator = Simulator::start().await;
    let url = format!("{}/chat/completions", simulator.base_url());
    let status =
        async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(
        status(client().post(&url).json(&request("m", "x"))).await,
        401
    );
    assert_eq!(
        status(client().post(&url).bearer_auth("k").body("{")).await,
        400
    );
    assert_eq!(
        status(
            client()
                .post(&url)
                .bearer_auth("k")
                .json(&json!({"messages": []}))
        )
        .await,
        400
    );
    assert_eq!(
        status(
            client()
                .post(&url)
                .bearer_auth("k")
                .json(&json!({"model": "m"}))
        )
        .await,
        400
    );
    let long = "word ".repeat(1_100);
    let response = post(&simulator, &request("sim/tiny", &long)).await.unwrap();
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        body["error"]["metadata"]["error_type"],
        "context_length_exceeded"
    );
    let mistyped: Value = ask(&simulator, "x [[sim:hnag]]")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        mistyped["error"]["message"],
        "simulator: unknown directive \"hnag\""
    );
    assert_eq!(simulator.calls().len(), 6);
}

#[tokio::test]
async fn free_models_have_limits() {
    let simulator = Simulator::start().await;
    simulator.set_settings(Settings {
        free_per_minute: 2,
        free_per_day: 50,
        ..Settings::default()
    });
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(
            post(&simulator, &request("a/b:free", "x"))
                .await
                .unwrap()
                .status()
                .as_u16(),
        );
    }
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(ask(&simulator, "paid").await.status(), 200);
    let refused = post(&simulator, &request("a/b:free", "x")).await.unwrap();
    let reset: u64 = refused.headers()["x-ratelimit-reset"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let now = loadtest::clock::unix_micros() / 1_000;
    assert!((now..=now + 60_002).contains(&reset), "{reset} at {now}");
    let key: Value = get(&simulator, "/api/v1/key").await;
    assert_eq!(
        key["data"]["free_model_daily_requests"],
        json!({"used": 2, "limit": 50, "remaining": 48})
    );
    assert_eq!(simulator.stats().free_per_minute_max, 4);
}

async fn get(simulator: &Simulator, path: &str) -> Value {
    let response = client()
        .get(format!("{}{path}", simulator.origin()))
        .bearer_auth("k1")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

#[tokio::test]
async fn tells_about_models_and_credits_under_every_base_path() {
    let simulator = Simulator::start().await;
    read(ask(&simulator, "x [[sim:cost=1.25]]").await).await;
    for base in ["/api/v1", "/v1", ""] {
        let models = get(&simulator, &format!("{base}/models")).await;
        assert!(
            models["data"]
                .as_array()
                .unwrap()
                .iter()
                .any(|model| model["pricing"]["prompt"] == "0.00000015")
        );
        let credits = get(&simulator, &format!("{base}/credits")).await;
        assert_eq!(
            credits["data"],
            json!({"total_credits": 100, "total_usage": 1.25})
        );
    }
    let missing = client()
        .get(format!("{}/generation?id=gen-1-2", simulator.base_url()))
        .bearer_auth("k1")
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), 404);
}

#[tokio::test]
async fn a_dead_key_is_dead_everywhere() {
    let simulator = Simulator::start().await;
    simulator
        .add_rule(Rule {
            key: Some("k1".into()),
            directives: "401".into(),
            ..Rule::default()
        })
        .unwrap();
    assert_eq!(ask(&simulator, "x").await.status(), 401);
    let url = format!("{}/key", simulator.base_url());
    assert_eq!(
        client()
            .get(&url)
            .bearer_auth("k1")
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
    assert_eq!(
        client()
            .get(&url)
            .bearer_auth("k2")
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn the_admin_endpoints_do_what_the_library_does() {
    let simulator = Simulator::start().await;
    let admin = |path: &str| format!("{}/sim{path}", simulator.origin());
    let rule = json!({"model": "openai/*", "do": "429,times=1", "contains": "blue"});
    let created = client()
        .post(admin("/script"))
        .json(&rule)
        .send()
        .await
        .unwrap();
    assert_eq!(created.status(), 201);
    let bad = client()
        .post(admin("/script"))
        .json(&json!({"do": "hnag"}))
        .send()
        .await
        .unwrap();
    assert_eq!(bad.status(), 400);
    assert_eq!(ask(&simulator, "a blue one").await.status(), 429);
    assert_eq!(ask(&simulator, "a blue one").await.status(), 200);
    let rules = get(&simulator, "/sim/script").await;
    assert_eq!(
        (&rules["rules"][0]["used"], &rules["rules"][0]["rule"]["do"]),
        (&json!(1), &json!("429,times=1"))
    );
    let literal = json!({"reply": "One, two, three.", "do": "", "contains": "red"});
    client()
        .post(admin("/script"))
        .json(&literal)
        .send()
        .await
        .unwrap();
    assert_eq!(
        read(ask(&simulator, "red").await).await.text,
        "One, two, three."
    );
    assert_eq!(
        client()
            .delete(admin("/script"))
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(
        read(ask(&simulator, "red").await).await.text,
        reply_text("red", 24)
    );

    let calls = get(&simulator, "/sim/calls?contains=blue").await;
    assert_eq!(
        (
            calls["total"].as_u64(),
            calls["calls"][0]["status"].as_u64()
        ),
        (Some(2), Some(429))
    );
    let typed: CallRecord = serde_json::from_value(calls["calls"][0].clone()).unwrap();
    assert_eq!(typed, simulator.calls()[0]);
    assert_eq!(
        get(&simulator, "/sim/calls?outcome=completed").await["total"],
        3
    );
    assert_eq!(
        get(&simulator, "/sim/stats").await["by_status"],
        json!({"200": 3, "429": 1})
    );

    let patched = client()
        .patch(admin("/settings"))
        .json(&json!({"tokens_min": 3, "tokens_max": 3}))
        .send()
        .await;
    assert_eq!(patched.unwrap().status(), 200);
    assert_eq!(
        read(ask(&simulator, "red").await).await.text,
        reply_text("red", 3)
    );
    let wrong = client()
        .patch(admin("/settings"))
        .json(&json!({"tokens": 3}))
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), 400);

    assert_eq!(
        client()
            .delete(admin("/calls"))
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(simulator.calls(), []);
}

#[tokio::test]
async fn in_the_dark_nothing_answers() {
    let simulator = Simulator::start().await;
    let response = ask(&simulator, "x [[sim:hang=2]]").await;
    simulator.go_dark().await;
    assert!(read(response).await.broken);
    assert!(
        post(&simulator, &request("m", "x"))
            .await
            .unwrap_err()
            .is_connect()
    );
    simulator.come_back().await;
    assert_eq!(
        read(ask(&simulator, "x").await).await.text,
        reply_text("x", 24)
    );
}

#[tokio::test]
async fn embeddings_in_all_their_forms() {
    let simulator = Simulator::start().await;
    let embed = async |body: Value| {
        let url = format!("{}/embeddings", simulator.base_url());
        client()
            .post(url)
            .bearer_auth("k1")
            .json(&body)
            .send()
            .await
            .unwrap()
    };
    let vectors = |answer: &Value| -> Vec<(u64, usize)> {
        let data = answer["data"].as_array().unwrap();
        data.iter()
            .map(|item| {
                (
                    item["index"].as_u64().unwrap(),
                    item["embedding"].as_array().unwrap().len(),
                )
            })
            .collect()
    };
    let body = json!({"model": "Qwen/Qwen3-Embedding-8B", "input": ["gagal login", "gagal login", "cuti"], "dimensions": 256});
    let answer: Value = embed(body).await.json().await.unwrap();
    assert_eq!(vectors(&answer), [(0, 256), (1, 256), (2, 256)]);
    assert_eq!(
        answer["data"][0]["embedding"],
        answer["data"][1]["embedding"]
    );
    assert_ne!(
        answer["data"][0]["embedding"],
        answer["data"][2]["embedding"]
    );
    assert_eq!(
        (
            answer["usage"]["total_tokens"].as_u64(),
            answer["usage"]["cost"].as_f64()
        ),
        (Some(5), Some(5e-8))
    );

    let native: Value = embed(json!({"model": "Qwen/Qwen3-Embedding-8B", "input": "x"}))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(vectors(&native), [(0, 4096)]);
    let scripted =
        json!({"model": "m", "input": ["a [[sim:reverse,short=1,dimension=5]]", "b", "c"]});
    let answer: Value = embed(scripted).await.json().await.unwrap();
    assert_eq!(vectors(&answer), [(1, 5), (0, 5)]);
    let encoded = json!({"model": "m", "input": "x", "dimensions": 8, "encoding_format": "base64"});
    let answer: Value = embed(encoded).await.json().await.unwrap();
    assert_eq!(answer["data"][0]["embedding"].as_str().unwrap().len(), 44);
    assert_eq!(
        embed(json!({"model": "m", "input": "x [[sim:429]]"}))
            .await
            .status(),
        429
    );
    assert_eq!(
        embed(json!({"model": "m", "input": [1, 2]})).await.status(),
        400
    );
    assert_eq!(
        simulator.calls().last().unwrap().endpoint,
        Endpoint::Embeddings
    );
}

#[tokio::test]
async fn a_dropped_simulator_is_gone() {
    let simulator = Simulator::start().await;
    let url = format!("{}/models", simulator.base_url());
    assert_eq!(client().get(&url).send().await.unwrap().status(), 200);
    drop(simulator);
    // The listener closes when its task next runs; a connection that is refused says it has.
    let refused = async { while client().get(&url).send().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(10), refused)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_at_once() {
    let simulator = Simulator::start().await;
    let client = client();
    let mut reading = tokio::task::JoinSet::new();
    for index in 0..1_000 {
        let body = request("m", &format!("Question {index} [[sim:hold=8]]"));
        let send = client
            .post(format!("{}/chat/completions", simulator.base_url()))
            .bearer_auth("k1")
            .json(&body);
        reading.spawn(async move { (index, read(send.send().await.unwrap()).await) });
    }
    simulator
        .wait_for_stats(|stats| stats.in_flight == 1_000)
        .await;
    simulator.release();
    while let Some(read) = reading.join_next().await {
        let (index, seen) = read.unwrap();
        assert_eq!(seen.text, reply_text(&format!("Question {index}"), 24));
    }
    assert_eq!(
        (
            simulator.stats().in_flight_max,
            simulator.stats().by_outcome[&Outcome::Completed]
        ),
        (1_000, 1_000)
    );
}
