//! What one assessment's events do.

use serde_json::{Value, json};
use shared::store::assessments;
use uuid::Uuid;

use crate::receiver::Receiver;
use crate::{Consuming, complete, results};

const STAGE: &str = "SELECT stage FROM chat.assessments";

async fn welcome(consuming: &Consuming) -> Value {
    let sql = "SELECT to_jsonb(m) FROM chat.messages m WHERE m.metadata ->> 'type' = 'assessment_welcome'";
    serde_json::from_str(&consuming.read(sql).await).unwrap()
}

#[tokio::test]
async fn by_the_time_the_results_are_read_the_conversation_is_there() {
    let receiver = Receiver::new().await;
    let url = receiver.url();
    let settings = [
        ("NOTIFICATION_SERVICE_URL", url.as_str()),
        (
            "NOTIFICATION_SIGNING_SECRET",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        ),
        ("NOTIFICATION_ALLOW_PRIVATE", "true"),
    ];
    let Some(mut consuming) = Consuming::new(&settings).await else {
        return;
    };
    let wanted = "SELECT count(*) FROM chat.notification_destinations WHERE wanted";
    consuming.becomes(wanted, "1").await;
    let (user, assessment) = (Uuid::new_v4(), Uuid::new_v4());
    let publisher = &mut consuming.publisher;
    let submitted =
        json!({ "type": "assessment_submitted", "userId": user, "assessmentId": assessment });
    publisher.publish("analysis.submitted", &submitted).await;
    consuming.becomes(STAGE, "assessment_submitted").await;
    let started =
        json!({ "event": "analysis_started", "user_id": user, "assessmentId": assessment });
    consuming
        .publisher
        .publish("analysis.started", &started)
        .await;
    consuming.becomes(STAGE, "analysis_started").await;
    assert_eq!(
        consuming
            .read("SELECT count(*) FROM chat.conversations")
            .await,
        "0"
    );
    let event = complete(user, assessment);
    consuming.publisher.publish("chat.events", &event).await;
    consuming.becomes(STAGE, "chatbot_ready").await;

    let conversation =
        "SELECT user_id || ' ' || assessment_id || ' ' || context_type FROM chat.conversations";
    let expected = format!("{user} {assessment} assessment");
    assert_eq!(consuming.read(conversation).await, expected);
    let summary = "SELECT context_data #>> '{assessment,summary}' FROM chat.conversations";
    assert_eq!(
        consuming.read(summary).await,
        "RIASEC (I: 92, R: 85, A: 78), Big Five (O: 88, E: 82, C: 75), Career profile: available"
    );
    let welcome = welcome(&consuming).await;
    let text = welcome["content"].as_str().unwrap();
    // The description is in Indonesian, so what the model leaves out is added in it.
    assert!(
        text.contains("Investigatif (92)") && text.matches('?').count() >= 3,
        "{text}"
    );
    assert_eq!(welcome["sender_type"], "assistant");
    assert_eq!(welcome["metadata"].get("fallback"), None);

    // Each stage is told, in order, in the documented shape.
    let told = consuming
        .fleet
        .until(async || {
            let all: Vec<Value> = receiver.requests().iter().map(|one| one.json()).collect();
            (all.len() >= 5).then_some(all)
        })
        .await;
    let stages: Vec<&Value> = told
        .iter()
        .filter(|one| one["type"] == "chat.assessment.stage")
        .collect();
    let shown: Vec<(&str, i64)> = stages
        .iter()
        .map(|one| {
            (
                one["data"]["stage"].as_str().unwrap(),
                one["data"]["progress"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("assessment_submitted", 25),
            ("analysis_started", 50),
            ("analysis_complete", 75),
            ("chatbot_ready", 100),
        ]
    );
    for one in stages {
        assert_eq!(one["user_id"], json!(user));
        let fields: Vec<&String> = one["data"].as_object().unwrap().keys().collect();
        assert_eq!(
            fields,
            [
                "action",
                "assessmentId",
                "message",
                "progress",
                "stage",
                "timestamp",
                "title"
            ]
        );
        let url = format!("/assessment/{assessment}/results");
        assert_eq!(
            one["data"]["action"],
            json!({ "type": "redirect", "url": url })
        );
        assert_eq!(one["data"]["assessmentId"], json!(assessment));
    }
    assert_eq!(told[3]["type"], "chat.generation.completed");
}

#[tokio::test]
async fn repetitions_and_late_words_change_nothing() {
    let Some(mut consuming) = Consuming::new(&[]).await else {
        return;
    };
    let (user, assessment) = (Uuid::new_v4(), Uuid::new_v4());
    let event = complete(user, assessment);
    for _ in 0..3 {
        consuming.publisher.publish("chat.events", &event).await;
    }
    consuming.becomes(STAGE, "chatbot_ready").await;
    for kind in [
        "assessment_submitted",
        "analysis_failed",
        "analysis_started",
    ] {
        let late = json!({ "event": kind, "user_id": user, "assessment_id": assessment });
        consuming.publisher.publish("chat.events", &late).await;
    }
    // The same results under another name.
    let text = event.to_string();
    consuming
        .publisher
        .publish_text("chat.events", &text, Some("other"))
        .await;
    consuming
        .becomes("SELECT count(*) FROM chat.inbound_events", "5")
        .await;
    assert_eq!(consuming.read(STAGE).await, "chatbot_ready");
    for table in ["conversations", "messages", "generations"] {
        let sql = format!("SELECT count(*) FROM chat.{table}");
        assert_eq!(consuming.read(&sql).await, "1", "{table}");
    }
}

#[tokio::test]
async fn new_results_come_into_the_conversation_with_a_note() {
    let Some(mut consuming) = Consuming::new(&[]).await else {
        return;
    };
    let (user, assessment) = (Uuid::new_v4(), Uuid::new_v4());
    let bare =
        json!({ "event": "analysis_complete", "user_id": user, "assessment_id": assessment });
    consuming.publisher.publish("chat.events", &bare).await;
    consuming.becomes(STAGE, "chatbot_ready").await;
    let summary = "SELECT context_data #>> '{assessment,summary}' FROM chat.conversations";
    assert_eq!(consuming.read(summary).await, "");
    let mut event = complete(user, assessment);
    consuming.publisher.publish("chat.events", &event).await;
    let notes = "SELECT count(*) FROM chat.messages WHERE sender_type = 'system'
                 AND metadata ->> 'type' = 'assessment_updated'";
    consuming.becomes(notes, "1").await;
    assert!(consuming.read(summary).await.starts_with("RIASEC (I: 92"));
    event["results"]["riasec"]["I"] = json!(12);
    consuming.publisher.publish("chat.events", &event).await;
    consuming.becomes(notes, "2").await;
    assert!(consuming.read(summary).await.starts_with("RIASEC (R: 85"));
    assert_eq!(
        consuming
            .read("SELECT count(*) FROM chat.conversations")
            .await,
        "1"
    );
}

#[tokio::test]
async fn who_asked_for_an_assessment_before_its_owner_does_not_keep_it() {
    let Some(mut consuming) = Consuming::new(&[]).await else {
        return;
    };
    let (owner, other, assessment) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let fleet = &consuming.fleet;
    let begun = fleet.conversation_of(other).await;
    // As the API does where no archive says whose it is.
    let mut tx = fleet.api.user(other).await.unwrap();
    let registering = assessments::register(&mut tx, &fleet.clock, assessment, None, None);
    assert!(registering.await.unwrap().is_some());
    tx.commit().await.unwrap();
    let held = format!(
        "UPDATE chat.conversations SET assessment_id = '{assessment}', context_type = 'assessment' WHERE id = '{begun}'"
    );
    fleet.env.execute(&held).await;
    let event = complete(owner, assessment);
    consuming.publisher.publish("chat.events", &event).await;
    consuming.becomes(STAGE, "chatbot_ready").await;
    let holders = "SELECT string_agg(user_id::text, ' ') FROM chat.conversations WHERE assessment_id IS NOT NULL";
    assert_eq!(consuming.read(holders).await, owner.to_string());
    let of_other = format!(
        "SELECT (assessment_id IS NULL)::text FROM chat.conversations WHERE id = '{begun}'"
    );
    assert_eq!(consuming.read(&of_other).await, "true");
    // The next one to say that it is theirs has the analysis against them, and the row stays.
    let event = complete(other, assessment);
    consuming.publisher.publish("chat.events", &event).await;
    let refused = async || {
        let reasons = consuming.reasons().await;
        (!reasons.is_empty()).then_some(reasons)
    };
    let reasons = consuming.fleet.until(refused).await;
    assert_eq!(reasons, ["the assessment is another person's"]);
    assert_eq!(consuming.read(holders).await, owner.to_string());
}

#[tokio::test]
async fn a_conversation_that_was_begun_before_becomes_that_of_the_assessment() {
    let Some(mut consuming) = Consuming::new(&[]).await else {
        return;
    };
    let user = consuming.fleet.user;
    let begun = consuming.fleet.conversation().await;
    let context =
        format!("UPDATE chat.conversations SET context_type = 'assessment' WHERE id = '{begun}'");
    consuming.fleet.env.execute(&context).await;
    let sent = consuming
        .fleet
        .send(begun, "My results will come soon")
        .await;
    consuming.fleet.ended(sent.id).await;
    let event = complete(user, Uuid::new_v4());
    consuming.publisher.publish("chat.events", &event).await;
    consuming.becomes(STAGE, "chatbot_ready").await;
    assert_eq!(
        consuming
            .read("SELECT count(*) FROM chat.conversations")
            .await,
        "1"
    );
    let messages = consuming.fleet.messages(begun).await;
    let note = messages.last().unwrap();
    assert_eq!(note.metadata["type"], "assessment_updated");
    let kinds = "SELECT string_agg(DISTINCT kind, ' ' ORDER BY kind) FROM chat.generations WHERE kind <> 'title'";
    assert_eq!(consuming.read(kinds).await, "reply");
}

#[tokio::test]
async fn a_failed_analysis_is_told_and_a_later_one_still_counts() {
    let Some(mut consuming) = Consuming::new(&[]).await else {
        return;
    };
    let (user, assessment) = (Uuid::new_v4(), Uuid::new_v4());
    let failed =
        json!({ "event": "analysis_failed", "user_id": user, "assessment_id": assessment });
    consuming.publisher.publish("chat.events", &failed).await;
    consuming.becomes(STAGE, "failed").await;
    let event = json!({ "event": "analysis_complete", "user_id": user, "assessment_id": assessment, "results": results() });
    consuming.publisher.publish("chat.events", &event).await;
    consuming.becomes(STAGE, "chatbot_ready").await;
}
