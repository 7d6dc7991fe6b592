//! A thousand assessments at once, and a broker that dies in their middle.

use std::time::Duration;

use rand::seq::SliceRandom as _;
use uuid::Uuid;

use crate::broker::OwnBroker;
use crate::common::Fleet;
use crate::complete;
use crate::publisher::Publisher;

const ASSESSMENTS: usize = 1_000;
/// How long the whole may take on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(200);

#[tokio::test]
async fn a_broker_that_is_killed_in_the_middle_loses_and_doubles_nothing() {
    let fleet = Fleet::new().await;
    let Some(mut broker) = OwnBroker::start(&fleet).await else {
        return;
    };
    let Some(mut publisher) = Publisher::start(&broker.url(), "atma_exchange") else {
        return;
    };
    let url = broker.url();
    let settings = [
        ("RABBITMQ_URL", url.as_str()),
        ("INBOUND_ENABLED", "true"),
        ("WORKER_CONCURRENCY", "64"),
        // Everything at once is more than a person's places allow otherwise.
        ("INBOUND_PREFETCH", "32"),
    ];
    let _worker = fleet.worker_with("consumer", &settings);
    fleet
        .until(async || {
            let queues = broker.control(&["list_queues", "name", "consumers"]);
            queues.contains("chat_events\t1").then_some(())
        })
        .await;

    let mut events = Vec::new();
    for _ in 0..ASSESSMENTS {
        let event = complete(Uuid::new_v4(), Uuid::new_v4()).to_string();
        events.extend([("chat.events", event.clone()), ("analysis.complete", event)]);
    }
    events.shuffle(&mut rand::rng());
    publisher.hand_over(events);
    for at in 0..2 * ASSESSMENTS {
        publisher.confirmed().await;
        if at == ASSESSMENTS * 2 / 3 {
            broker.kill();
            broker.start_again(&fleet).await;
        }
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let ready = "SELECT count(*) FROM chat.assessments WHERE stage = 'chatbot_ready'";
    loop {
        let ready = fleet.env.value(ready).await.unwrap();
        if ready == ASSESSMENTS.to_string() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{ready} are ready");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What is delivered again is in the inbox.
    fleet
        .until(async || {
            let queues = broker.control(&["list_queues", "name", "messages"]);
            queues.contains("chat_events\t0").then_some(())
        })
        .await;
    for (what, sql) in [
        ("conversations", "SELECT count(*) FROM chat.conversations"),
        (
            "welcomes",
            "SELECT count(*) FROM chat.messages WHERE metadata ->> 'type' = 'assessment_welcome'",
        ),
        ("messages", "SELECT count(*) FROM chat.messages"),
        (
            "generations",
            "SELECT count(*) FROM chat.generations WHERE status = 'completed'",
        ),
        ("events", "SELECT count(*) FROM chat.inbound_events"),
    ] {
        let count = fleet.env.value(sql).await.unwrap();
        assert_eq!(count, ASSESSMENTS.to_string(), "{what}");
    }
    let dead = broker.control(&["list_queues", "name", "messages"]);
    assert!(dead.contains("chat_events.dlq\t0"), "{dead}");
}
