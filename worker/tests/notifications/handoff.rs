//! A person is told to take over when, and only when, somebody waits for one.

use serde_json::{Value, json};
use shared::domain::{Generation, GenerationStatus};
use shared::store::generations;
use uuid::Uuid;

use crate::common::Fleet;
use crate::receiver::Receiver;

const WANTS_PERSON: &str = "tolong hubungkan saya dengan petugas";

impl Fleet {
    /// A conversation of the help desk.
    async fn session(&self) -> Uuid {
        let id = self.conversation().await;
        self.force(&format!(
            "UPDATE chat.conversations SET context_type = 'support' WHERE id = '{id}'"
        ))
        .await;
        id
    }

    async fn asked(&self, session: Uuid, question: &str) -> Generation {
        let sent = self.send(session, question).await;
        let ended = self.ended(sent.id).await;
        assert_eq!(ended.status, GenerationStatus::Completed, "{ended:?}");
        ended
    }

    /// Who answers in a session, and why it was handed over.
    async fn state(&self, session: Uuid) -> String {
        self.read(&format!(
            "SELECT COALESCE(support_state, 'bot') || ' ' || COALESCE(support ->> 'reason', '-')
             FROM chat.conversations WHERE id = '{session}'"
        ))
        .await
    }
}

impl Receiver {
    fn types_of(&self, session: Uuid) -> Vec<String> {
        let told = self.of_session(session).into_iter();
        told.map(|body| body["type"].as_str().unwrap().to_owned())
            .collect()
    }

    fn of_session(&self, session: Uuid) -> Vec<Value> {
        let told = self.requests().into_iter().map(|request| request.json());
        told.filter(|body| body["data"]["conversation_id"] == json!(session))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_over_is_told_what_went_before() {
    let fleet = Fleet::new().await;
    let receiver = Receiver::new().await;
    let _worker = fleet.telling("w1", &receiver).await;
    let session = fleet.session().await;
    fleet.asked(session, "resep rendang daging sapi").await;
    let last = fleet.asked(session, WANTS_PERSON).await;
    assert_eq!(
        fleet.state(session).await,
        "waiting_for_human customer_request"
    );
    let noted = "SELECT string_agg(COALESCE(escalation, '-'), ' ' ORDER BY message_id) FROM chat.support_questions";
    assert_eq!(fleet.read(noted).await, "- customer_request");
    fleet.all_told().await;
    let told = receiver.of_session(session);
    let handoff = told.last().unwrap();
    assert_eq!(handoff["type"], "chat.support.escalated", "{handoff}");
    let packet = &handoff["data"]["support"];
    assert_eq!(
        (&packet["reason"], &packet["language"]),
        (&json!("customer_request"), &json!("id")),
        "{packet}"
    );
    for field in ["intent", "confidence", "sentiment", "sources"] {
        assert!(!packet[field].is_null(), "{field}: {packet}");
    }
    let trend = packet["sentiment_trend"].as_array().unwrap();
    assert_eq!((trend.len(), &trend[1]), (2, &packet["sentiment"]));
    let tried = packet["tried"].as_array().unwrap();
    assert_eq!(tried.len(), 2, "{packet}");
    assert_eq!(
        (&tried[0]["answered"], &tried[0]["template"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(tried[0]["sources"], json!([]));
    let transcript = packet["transcript"].as_array().unwrap();
    assert_eq!(transcript.len(), 4, "{packet}");
    assert_eq!(transcript[2]["content"], WANTS_PERSON);
    let reply = last.assistant_message.unwrap();
    assert_eq!(transcript[3]["content"], reply.content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_nobody_came_to_answer_is_handed_over_and_told() {
    let fleet = Fleet::new().await;
    let receiver = Receiver::new().await;
    fleet
        .force("SELECT chat.switch_notifications('{http}')")
        .await;
    let (session, ordinary) = (fleet.session().await, fleet.conversation().await);
    let (late, _) = fleet
        .commit(fleet.user, session, "SPP tidak bisa disimpan")
        .await;
    let (also, _) = fleet.commit(fleet.user, ordinary, "hello").await;
    fleet
        .force("UPDATE chat.generations SET deadline_at = now() - interval '1 second'")
        .await;
    let _worker = fleet.telling("w1", &receiver).await;
    for id in [late.id, also.id] {
        assert_eq!(fleet.ended(id).await.status, GenerationStatus::Failed);
    }
    assert_eq!(fleet.state(session).await, "waiting_for_human tool_failure");
    assert_eq!(fleet.state(ordinary).await, "bot -");
    fleet.all_told().await;
    assert_eq!(
        receiver.types_of(session),
        ["chat.generation.failed", "chat.support.escalated"]
    );
    assert_eq!(receiver.types_of(ordinary), ["chat.generation.failed"]);
    let told = receiver.of_session(session);
    let packet = &told[1]["data"]["support"];
    assert_eq!(
        (&packet["reason"], &packet["tried"]),
        (&json!("tool_failure"), &json!([])),
        "{packet}"
    );
    assert_eq!(packet["sentiment_trend"].as_array().unwrap().len(), 1);
    let transcript = packet["transcript"].as_array().unwrap();
    assert_eq!(transcript.len(), 1, "{packet}");
    assert_eq!(transcript[0]["content"], "SPP tidak bisa disimpan");
    // Nobody is told twice that somebody waits.
    fleet
        .force("UPDATE chat.queues SET paused_at = now(), paused_by = 'a test'")
        .await;
    let (again, _) = fleet.commit(fleet.user, session, "halo?").await;
    fleet
        .force(&format!(
            "UPDATE chat.generations SET deadline_at = now() - interval '1 second' WHERE id = '{}'",
            again.id
        ))
        .await;
    fleet.ended(again.id).await;
    fleet.all_told().await;
    assert_eq!(
        receiver.types_of(session).last().map(String::as_str),
        Some("chat.generation.failed")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_was_taken_back_is_handed_to_nobody() {
    let fleet = Fleet::new().await;
    let receiver = Receiver::new().await;
    let _worker = fleet.telling("w1", &receiver).await;
    let session = fleet.session().await;
    let held = fleet
        .send(session, &format!("[[sim:hold=3]] {WANTS_PERSON}"))
        .await;
    fleet.streaming(held.id).await;
    assert_eq!(
        fleet.state(session).await,
        "bot -",
        "there is no answer yet"
    );
    let mut tx = fleet.api.user(fleet.user).await.unwrap();
    generations::cancel(&mut tx, held.id, None).await.unwrap();
    tx.commit().await.unwrap();
    fleet.all_told().await;
    assert_eq!(fleet.state(session).await, "bot -");
    assert_eq!(receiver.types_of(session), ["chat.generation.cancelled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_declines_is_handed_over_for_that_reason() {
    let fleet = Fleet::new().await;
    let _worker = fleet.worker("w1");
    let session = fleet.session().await;
    let ended = fleet.asked(session, "[[sim:moderation]] apa ini?").await;
    let noted = ended.assistant_message.unwrap().metadata;
    assert_eq!(
        (
            &noted["support"]["template"],
            &noted["support"]["escalation_reason"]
        ),
        (&json!(true), &json!("policy")),
        "{noted}"
    );
    assert_eq!(fleet.state(session).await, "waiting_for_human policy");
}
