//! Welcomes that no model writes.

use serde_json::Value;
use shared::store::ServingRole;
use uuid::Uuid;

use crate::{Consuming, complete};

async fn welcome(consuming: &Consuming) -> Value {
    let sql = "SELECT to_jsonb(m) FROM chat.messages m WHERE m.metadata ->> 'type' = 'assessment_welcome'";
    serde_json::from_str(&consuming.read(sql).await).unwrap()
}

#[tokio::test]
async fn when_every_model_fails_the_scores_alone_make_the_welcome() {
    let Some(mut consuming) = Consuming::new(&[]).await else {
        return;
    };
    consuming.fleet.simulator.script("503");
    let event = complete(Uuid::new_v4(), Uuid::new_v4());
    consuming.publisher.publish("chat.events", &event).await;
    consuming
        .becomes("SELECT stage FROM chat.assessments", "chatbot_ready")
        .await;
    let welcome = welcome(&consuming).await;
    assert_eq!(welcome["metadata"]["fallback"], true);
    let text = welcome["content"].as_str().unwrap();
    assert!(
        text.starts_with("Halo!") && text.contains("Investigatif (92)"),
        "{text}"
    );
    let generation = "SELECT status || ' ' || model FROM chat.generations";
    assert_eq!(consuming.read(generation).await, "completed composed");
    let usage = "SELECT count(*) || ' ' || sum(cost_credits)::float8 FROM chat.usage_tracking WHERE NOT wasted";
    assert_eq!(consuming.read(usage).await, "1 0");
    consuming.fleet.check_invariants().await;
}

#[tokio::test]
async fn a_welcome_whose_deadline_passed_in_the_queue_is_composed() {
    let Some(mut consuming) = Consuming::new(&[]).await else {
        return;
    };
    // Nobody takes it: the queue is paused.
    let pause =
        "UPDATE chat.queues SET paused_at = now(), paused_by = 'a test' WHERE name = 'standard'";
    consuming.fleet.env.execute(pause).await;
    let event = complete(Uuid::new_v4(), Uuid::new_v4());
    consuming.publisher.publish("chat.events", &event).await;
    consuming
        .becomes("SELECT stage FROM chat.assessments", "analysis_complete")
        .await;
    consuming.fleet.until(async || {
        // It may have been taken before the worker saw the pause.
        let late = "UPDATE chat.generations SET deadline_at = now() - interval '1 second' WHERE status = 'queued'";
        consuming.fleet.env.execute(late).await;
        let ended = consuming.read("SELECT status FROM chat.generations").await;
        ["failed", "completed"].contains(&ended.as_str()).then_some(())
    })
    .await;
    consuming
        .becomes("SELECT stage FROM chat.assessments", "chatbot_ready")
        .await;
    let welcome = welcome(&consuming).await;
    let failed = consuming.read("SELECT status FROM chat.generations").await == "failed";
    assert_eq!(welcome["metadata"]["fallback"] == true, failed);
}

#[tokio::test]
async fn a_person_who_cancels_the_welcome_gets_none() {
    let Some(mut consuming) = Consuming::new(&[]).await else {
        return;
    };
    consuming.fleet.simulator.script("hold=1");
    let user = consuming.fleet.user;
    let event = complete(user, Uuid::new_v4());
    consuming.publisher.publish("chat.events", &event).await;
    let running = "SELECT status FROM chat.generations";
    consuming.becomes(running, "in_progress").await;
    let id = consuming
        .read("SELECT id FROM chat.generations")
        .await
        .parse()
        .unwrap();
    let api = consuming.fleet.env.db(ServingRole::Api);
    let mut tx = api.user(user).await.unwrap();
    shared::store::generations::cancel(&mut tx, id, None)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    shared::push::broadcast_cancel(&consuming.fleet.redis, id)
        .await
        .unwrap();
    consuming
        .becomes("SELECT stage FROM chat.assessments", "chatbot_ready")
        .await;
    assert_eq!(
        consuming.read("SELECT count(*) FROM chat.messages").await,
        "0"
    );
}
