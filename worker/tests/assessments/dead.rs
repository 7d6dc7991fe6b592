//! Events that make no sense.

use serde_json::json;
use shared::config::Vars;
use uuid::Uuid;
use worker::inbound::{DeadEvents, InboundConfig};
use worker::outbound::BrokerConfig;

use crate::{Consuming, complete};

impl Consuming {
    async fn dead(&self) -> (DeadEvents, lapin::Connection) {
        let mut vars = Vars::from_map([
            ("RABBITMQ_URL", self.url.as_str()),
            ("EXCHANGE_NAME", &self.exchange),
            ("CHAT_QUEUE_NAME", &self.queue),
        ]);
        let broker = BrokerConfig::from_vars(&mut vars).unwrap();
        let config = InboundConfig::from_vars(&mut vars);
        vars.finish().unwrap();
        DeadEvents::connect(&broker, &config).await.unwrap()
    }

    pub(crate) async fn reasons(&self) -> Vec<String> {
        let (dead, _connection) = self.dead().await;
        let listed = dead.list(100).await.unwrap();
        listed.into_iter().map(|event| event.reason).collect()
    }
}

#[tokio::test]
async fn nonsense_waits_with_its_reason_and_can_be_replayed() {
    let Some(mut consuming) = Consuming::new(&[]).await else {
        return;
    };
    let (user, assessment) = (Uuid::new_v4(), Uuid::new_v4());
    let mut scores = complete(user, assessment);
    scores["results"]["ocean"]["O"] = json!(100.5);
    let mut odd_id = complete(user, assessment);
    odd_id["assessment_id"] = json!("12");
    let mut huge = complete(user, assessment);
    huge["results"]["personaProfile"]["summary"] = json!("x".repeat(3 * 1024 * 1024));
    let bodies = [
        ("{ not json".to_owned(), "not JSON"),
        (
            scores.to_string(),
            "results make no sense: ocean.O: must be a number between 0 and 100",
        ),
        (odd_id.to_string(), "assessment_id: is no UUID"),
        (huge.to_string(), "too large"),
    ];
    for (at, (body, reason)) in bodies.iter().enumerate() {
        consuming
            .publisher
            .publish_text("chat.events", body, None)
            .await;
        let reasons = consuming
            .fleet
            .until(async || {
                let reasons = consuming.reasons().await;
                (reasons.len() > at).then_some(reasons)
            })
            .await;
        assert!(reasons[at].starts_with(reason), "{reasons:?}");
    }
    assert_eq!(
        consuming
            .read("SELECT count(*) FROM chat.assessments")
            .await,
        "0"
    );

    // A replay tries them again, once; nothing has changed for them.
    let (dead, connection) = consuming.dead().await;
    assert_eq!(dead.replay(100).await.unwrap(), bodies.len());
    drop((dead, connection));
    consuming
        .fleet
        .until(async || (consuming.reasons().await.len() == bodies.len()).then_some(()))
        .await;

    // A persona of a megabyte is much, but sense; and an assessment of somebody else's is refused.
    let mut large = complete(user, assessment);
    large["results"]["personaProfile"]["summary"] = json!("kata ".repeat(200_000));
    consuming.publisher.publish("chat.events", &large).await;
    consuming
        .becomes("SELECT stage FROM chat.assessments", "chatbot_ready")
        .await;
    let size = "SELECT length(data::text) < 50000 FROM chat.assessments";
    assert_eq!(consuming.read(size).await, "true");
    let stolen = complete(Uuid::new_v4(), assessment);
    consuming.publisher.publish("chat.events", &stolen).await;
    let reasons = consuming
        .fleet
        .until(async || {
            let reasons = consuming.reasons().await;
            (reasons.len() > bodies.len()).then_some(reasons)
        })
        .await;
    assert!(
        reasons.contains(&"the assessment is another person's".to_owned()),
        "{reasons:?}"
    );
}
