//! Welcomes that no model writes.

use serde_json::Value;
use shared::store::ServingRole;
use uuid::Uuid;

use crate::common::is_completed;
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
    // Nobody takes it: the queue is paused, which a worker knows before it takes anything.
    consuming.worker.take().unwrap().kill();
    let pause =
        "UPDATE chat.queues SET paused_at = now(), paused_by = 'a test' WHERE name = 'standard'";
    consuming.fleet.env.execute(pause).await;
    consuming.start(&[]);
    let event = complete(Uuid::new_v4(), Uuid::new_v4());
    consuming.publisher.publish("chat.events", &event).await;
    consuming
        .becomes("SELECT stage FROM chat.assessments", "analysis_complete")
        .await;
    let late = "UPDATE chat.generations SET deadline_at = now() - interval '1 second'";
    assert_eq!(consuming.fleet.env.execute(late).await, 1);
    consuming
        .becomes("SELECT stage FROM chat.assessments", "chatbot_ready")
        .await;
    let welcome = welcome(&consuming).await;
    assert_eq!(welcome["metadata"]["fallback"], true);
    // The one that failed stays failed, and its dead letter is settled by the one in its place.
    let ends = "SELECT string_agg(concat_ws(' ', status, error_code, model), ', ' ORDER BY id) FROM chat.generations";
    let ends = consuming.read(ends).await;
    assert!(ends.starts_with("failed expired "), "{ends}");
    assert!(ends.ends_with(", completed composed"), "{ends}");
    let settled = "SELECT count(*) FROM chat.generations f JOIN chat.generations n ON n.id = f.replayed_as
                   JOIN chat.assessments a ON a.welcome_id = n.id
                   WHERE f.settled_at IS NOT NULL AND f.status = 'failed' AND n.status = 'completed'";
    assert_eq!(consuming.read(settled).await, "1");
    consuming.fleet.check_invariants().await;
}

#[tokio::test]
async fn who_talks_before_a_late_welcome_gets_none() {
    let Some(mut consuming) = Consuming::new(&[]).await else {
        return;
    };
    consuming.fleet.simulator.script("hold=1");
    let user = consuming.fleet.user;
    let event = complete(user, Uuid::new_v4());
    consuming.publisher.publish("chat.events", &event).await;
    let running = "SELECT status FROM chat.generations";
    consuming.becomes(running, "in_progress").await;
    consuming.worker.take().unwrap().kill();
    let conversation = consuming
        .read("SELECT id FROM chat.conversations")
        .await
        .parse()
        .unwrap();
    let sent = consuming
        .fleet
        .send(conversation, "Is anybody there?")
        .await;
    let late = "UPDATE chat.generations SET attempt = max_attempts WHERE kind = 'welcome'";
    consuming.fleet.env.execute(late).await;
    consuming.fleet.simulator.clear_script();
    consuming.start(&[]);
    consuming
        .becomes("SELECT stage FROM chat.assessments", "chatbot_ready")
        .await;
    let answered = consuming.fleet.ended(sent.id).await;
    assert!(is_completed(&answered));
    let welcomes =
        "SELECT count(*) FROM chat.messages WHERE metadata ->> 'type' = 'assessment_welcome'";
    assert_eq!(consuming.read(welcomes).await, "0");
    consuming.fleet.check_invariants().await;
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
