//! What a worker says in its log, and what it never says.

use serde_json::Value;

use crate::Fleet;
use crate::process::Process;

/// It is in everything that a person or an operator keeps to themselves.
const PLANTED: &str = "planted-3f9c1b";
const SIGNING: &str = "whsec_bm90IGEgc2VjcmV0IGF0IGFsbCwganVzdCBhIHRlc3Q=";

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_is_one_line_and_no_secret_is_in_any() {
    let fleet = Fleet::new().await;
    let worker = Process::start(
        &fleet,
        "w1",
        &[
            ("LOG_LEVEL", "debug"),
            ("OPENROUTER_API_KEY", PLANTED),
            // Nobody is there, so that each try is told of.
            ("NOTIFICATION_SERVICE_URL", "http://127.0.0.1:1"),
            ("NOTIFICATION_SIGNING_SECRET", SIGNING),
            ("NOTIFICATION_SERVICE_KEY", PLANTED),
            ("NOTIFICATION_ALLOW_PRIVATE", "true"),
        ],
    );
    let mut ended = Vec::new();
    for (question, message) in [
        ("tell me", "generation completed"),
        ("[[sim:503,times=1]] tell me", "generation completed"),
        (
            "[[sim:malformed=2,times=1]] tell me",
            "generation completed",
        ),
        ("[[sim:moderation]] tell me", "generation failed"),
    ] {
        let conversation = fleet.conversation().await;
        let words = format!("{question} of {PLANTED}");
        let id = fleet.send(conversation, &words).await.id;
        fleet.ended(id).await;
        ended.push((id.to_string(), message));
    }
    worker.says(&fleet, "notification not delivered").await;
    // Without a broker there are no events, which is no reason not to work.
    assert_eq!(worker.log().matches("no events are consumed").count(), 1);
    let told = |log: &str, id: &str, message: &str| {
        let lines = log
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of_it = |line: &Value| line["message"] == message && line["generation.id"] == id;
        lines.filter(of_it).collect::<Vec<_>>()
    };
    for (id, message) in &ended {
        // The log is a moment behind the table.
        let lines = fleet
            .until(async || {
                let lines = told(&worker.log(), id, message);
                (!lines.is_empty()).then_some(lines)
            })
            .await;
        let [line] = &lines[..] else {
            panic!("{} lines tell of {id}", lines.len());
        };
        for field in ["user.id", "conversation.id", "kind"] {
            assert!(line[field].is_string(), "{field} is missing in {line}");
        }
    }
    for line in worker.log().lines() {
        for secret in [PLANTED, SIGNING, "bm90IGEgc2VjcmV0"] {
            assert!(!line.contains(secret), "{secret} is in {line}");
        }
    }
}
