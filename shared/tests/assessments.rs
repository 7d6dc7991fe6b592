//! Assessments in the store: one owner, stages that never go backwards, one conversation.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::time::Duration;

use serde_json::json;
use shared::clock::Clock;
use shared::domain::assessment::{AssessmentData, Language, LanguageSource, Spoken, Stage};
use shared::domain::{ContextType, Priority};
use shared::models::Model;
use shared::store::assessments::{self, Preparing};
use shared::store::generations::NewGeneration;
use shared::store::{Db, ServingRole, conversations, generations};
use shared::testing::TestEnv;
use uuid::Uuid;

async fn reach(db: &Db, user: Uuid, id: Uuid, stage: Stage) -> bool {
    let clock = Clock::system();
    let mut tx = db.user(user).await.unwrap();
    let registered = assessments::register(&mut tx, &clock, id, None, None)
        .await
        .unwrap();
    let assessment = registered.unwrap().assessment;
    let advancing = assessments::advance(&mut tx, &clock, &assessment, stage, None, None);
    let reached = advancing.await.unwrap();
    tx.commit().await.unwrap();
    reached.is_some()
}

/// All orders in which these may come.
fn orders(stages: &[Stage]) -> Vec<Vec<Stage>> {
    if stages.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (at, first) in stages.iter().enumerate() {
        let mut rest = stages.to_vec();
        rest.remove(at);
        for mut order in orders(&rest) {
            order.insert(0, *first);
            all.push(order);
        }
    }
    all
}

#[tokio::test]
async fn stages_never_go_backwards_whatever_order_they_come_in() {
    let env = TestEnv::new().await;
    let db = env.db(ServingRole::Worker);
    let user = Uuid::new_v4();
    for order in orders(&[
        Stage::Submitted,
        Stage::Started,
        Stage::Failed,
        Stage::Complete,
    ]) {
        let (id, mut furthest) = (Uuid::new_v4(), 0);
        for stage in &order {
            let is_further = stage.rank() > furthest;
            assert_eq!(reach(&db, user, id, *stage).await, is_further, "{order:?}");
            assert!(!reach(&db, user, id, *stage).await, "once is enough");
            furthest = furthest.max(stage.rank());
        }
        let stage = format!("SELECT stage FROM chat.assessments WHERE id = '{id}'");
        assert_eq!(
            env.value(&stage).await.as_deref(),
            Some("analysis_complete")
        );
    }
}

#[tokio::test]
async fn an_assessment_stays_with_whoever_it_was_told_for_first() {
    let env = TestEnv::new().await;
    let (db, clock) = (env.db(ServingRole::Api), Clock::system());
    let (owner, other, id) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let data = AssessmentData::read(&json!({ "riasec": { "R": 1 } })).unwrap();
    let mut tx = db.user(owner).await.unwrap();
    assert!(
        assessments::register(&mut tx, &clock, id, Some(&data), None)
            .await
            .unwrap()
            .is_some()
    );
    tx.commit().await.unwrap();
    let mut tx = db.user(other).await.unwrap();
    assert!(
        assessments::register(&mut tx, &clock, id, None, None)
            .await
            .unwrap()
            .is_none()
    );
    assert!(assessments::find(&mut tx, id).await.unwrap().is_none());
    assert!(assessments::newest(&mut tx).await.unwrap().is_none());
}

#[tokio::test]
async fn those_who_prepare_at_once_make_one_conversation_with_one_welcome() {
    let env = TestEnv::new().await;
    let clock = Clock::system();
    let (user, id) = (Uuid::new_v4(), Uuid::new_v4());
    let preparing = async |role| {
        let db = env.db(role);
        let chain = [Model::new("test/first:free", true)];
        let work = NewGeneration {
            priority: Priority::Standard,
            chain: &chain,
            stream: true,
            deadline: Duration::from_secs(60),
            max_attempts: 5,
            request_id: None,
            traceparent: None,
        };
        let wish = Preparing {
            title: None,
            welcome: Some(&work),
            adopt: true,
        };
        let mut tx = db.user(user).await.unwrap();
        let registered = assessments::register(&mut tx, &clock, id, None, None)
            .await
            .unwrap();
        let registered = registered.unwrap();
        let prepared = assessments::prepare(&mut tx, &clock, &registered, &wish)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        (prepared.conversation.id, prepared.welcome.is_some())
    };
    let many = (0..12).map(|at| {
        let role = if at % 2 == 0 {
            ServingRole::Api
        } else {
            ServingRole::Worker
        };
        preparing(role)
    });
    let all = futures::future::join_all(many).await;
    assert!(
        all.iter()
            .all(|(conversation, _)| *conversation == all[0].0)
    );
    assert_eq!(
        all.iter().filter(|(_, is_welcomed)| *is_welcomed).count(),
        1
    );
    let count = "SELECT count(*) FROM chat.generations WHERE kind = 'welcome'";
    assert_eq!(env.value(count).await.as_deref(), Some("1"));
    // By hand it cannot be done either.
    let mut session = env.session().await;
    let copy = format!(
        "INSERT INTO chat.conversations (id, user_id, title, context_type, assessment_id, last_id)
         SELECT gen_random_uuid(), user_id, title, context_type, assessment_id, id FROM chat.conversations WHERE assessment_id = '{id}'"
    );
    let refused = session.run(&copy).await.unwrap_err();
    assert_eq!(refused.code, "23505");
}

#[tokio::test]
async fn who_knows_the_persons_language_better_is_believed() {
    let env = TestEnv::new().await;
    let (db, clock) = (env.db(ServingRole::Worker), Clock::system());
    let (user, id) = (Uuid::new_v4(), Uuid::new_v4());
    let listen = async |data: Option<&AssessmentData>, client, profile| {
        let mut tx = db.user(user).await.unwrap();
        let registered = assessments::register(&mut tx, &clock, id, data, profile).await;
        let mut registered = registered.unwrap().unwrap();
        let spoken = Spoken {
            client,
            default: Language::English,
        };
        assessments::listen(&mut tx, &mut registered, spoken)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let mut tx = db.user(user).await.unwrap();
        let stored = assessments::find(&mut tx, id).await.unwrap().unwrap();
        assert_eq!(stored.language, registered.assessment.language);
        (stored.spoken(), stored.language_source().unwrap())
    };
    let described =
        json!({ "personaProfile": { "summary": "Orang ini suka belajar dan mencipta." } });
    let described = AssessmentData::read(&described).unwrap();
    let (english, indonesian) = (Language::English, Language::Indonesian);
    let first = listen(None, None, None).await;
    assert_eq!(first, (english, LanguageSource::Default));
    let then = listen(Some(&described), None, None).await;
    assert_eq!(then, (indonesian, LanguageSource::Description));
    let then = listen(None, Some(english), None).await;
    assert_eq!(then, (english, LanguageSource::Client));
    // A request or an event that knows less changes nothing.
    assert_eq!(listen(None, None, None).await, then);

    let mut tx = db.user(user).await.unwrap();
    let conversation = conversations::NewConversation {
        id: shared::id::new(clock.now()),
        title: None,
        context_type: ContextType::General,
        context_data: &json!({}),
        metadata: &json!({}),
    };
    let conversation = conversations::create(&mut tx, &conversation).await.unwrap();
    let message = generations::NewMessage {
        conversation_id: conversation.id,
        content: "Pekerjaan apa yang cocok untuk saya?",
        content_type: shared::domain::ContentType::Text,
        attachments: &[],
        parent_message_id: None,
    };
    let chain = [Model::new("test/first:free".to_owned(), true)];
    let work = NewGeneration {
        priority: Priority::Standard,
        chain: &chain,
        stream: true,
        deadline: Duration::from_secs(60),
        max_attempts: 5,
        request_id: None,
        traceparent: None,
    };
    let enqueue = generations::Concurrency::Enqueue;
    generations::accept(&mut tx, &clock, &message, &work, enqueue)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let then = listen(None, Some(english), None).await;
    assert_eq!(then, (indonesian, LanguageSource::Words));
    let then = listen(None, None, Some(english)).await;
    assert_eq!(then, (english, LanguageSource::Profile));
    assert_eq!(listen(None, Some(indonesian), None).await, then);
    // Nobody hears what somebody else has written.
    let other = Uuid::new_v4();
    let mut tx = db.user(other).await.unwrap();
    let registered = assessments::register(&mut tx, &clock, Uuid::new_v4(), None, None).await;
    let mut registered = registered.unwrap().unwrap();
    let spoken = Spoken {
        client: None,
        default: english,
    };
    assessments::listen(&mut tx, &mut registered, spoken)
        .await
        .unwrap();
    let heard = registered.assessment.language_source();
    assert_eq!(heard, Some(LanguageSource::Default));
}
