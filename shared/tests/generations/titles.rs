//! The title that the first reply brings.

use shared::domain::{Conversation, FailureCode, GenerationKind, Priority};
use shared::id;
use shared::store::generations::{self, Finished, Next, TitleFinished};
use shared::store::{conversations, generations::Claim};
use uuid::Uuid;

use crate::common::{World, usage};

impl World {
    /// Answers a message. Returns the title's generation that came with the reply.
    async fn answered(&self, conversation: Uuid) -> Option<Next> {
        let sent = self.send(conversation, "question").await;
        let claim = self.claim_one(sent.generation.id).await;
        match self.finish(&claim, "answer").await {
            Finished::Stored { title, .. } => title,
            Finished::Fenced => panic!("ours"),
        }
    }

    async fn titled(&self, claim: &Claim, title: Option<&str>) -> Option<Conversation> {
        let mut tx = self.worker.user(self.user).await.unwrap();
        let usage_id = id::new(self.clock.now());
        let done =
            generations::finish_title(&mut tx, claim.id, claim.token, usage_id, &usage(), title)
                .await
                .unwrap();
        tx.commit().await.unwrap();
        match done {
            TitleFinished::Stored(conversation) => conversation.map(|conversation| *conversation),
            TitleFinished::Fenced => panic!("ours"),
        }
    }

    async fn title(&self, conversation: Uuid) -> String {
        self.value(&format!(
            "SELECT title FROM chat.conversations WHERE id = '{conversation}'"
        ))
        .await
    }

    async fn rename(&self, conversation: Uuid, title: &str) {
        let mut tx = self.api.user(self.user).await.unwrap();
        let changes = conversations::Changes {
            title: Some(title),
            ..Default::default()
        };
        conversations::edit(&mut tx, conversation, None, &changes)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn the_first_reply_brings_a_title_and_the_next_none() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let title = world.answered(conversation).await.unwrap();
    assert_eq!(title.priority, Priority::Background);
    assert_eq!(
        world.answered(conversation).await,
        None,
        "one is on its way"
    );
    let claim = world.claim_one(title.id).await;
    assert_eq!((claim.kind, claim.max_attempts), (GenerationKind::Title, 3));
    let titled = world.titled(&claim, Some("A title")).await.unwrap();
    assert_eq!((titled.title.as_str(), titled.version), ("A title", 2));
    assert_eq!(world.answered(conversation).await, None, "it has one");
    let used = "SELECT string_agg(operation, ' ' ORDER BY operation) FROM chat.usage_tracking";
    assert_eq!(
        world.value(used).await,
        "completion completion completion title"
    );
}

#[tokio::test]
async fn a_title_that_failed_is_tried_with_the_next_reply() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let claim = world
        .claim_one(world.answered(conversation).await.unwrap().id)
        .await;
    let mut tx = world.worker.user(world.user).await.unwrap();
    let code = FailureCode::UpstreamExhausted;
    generations::fail(&mut tx, claim.id, claim.token, code, "why")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let claim = world
        .claim_one(world.answered(conversation).await.unwrap().id)
        .await;
    // The model said nothing of use.
    assert!(world.titled(&claim, None).await.is_none());
    assert_eq!(
        world.title(conversation).await,
        shared::domain::DEFAULT_TITLE
    );
    assert!(world.answered(conversation).await.is_some());
}

#[tokio::test]
async fn a_persons_own_title_stays() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let claim = world
        .claim_one(world.answered(conversation).await.unwrap().id)
        .await;
    world.rename(conversation, "Mine").await;
    assert!(world.titled(&claim, Some("A title")).await.is_none());
    assert_eq!(world.title(conversation).await, "Mine");
    assert_eq!(world.answered(conversation).await, None);
    let named = world.conversation().await;
    world.rename(named, "Named before the first message").await;
    assert_eq!(world.answered(named).await, None);
}

/// Who deletes holds the conversation and then wants its generations.
#[tokio::test]
async fn a_title_that_meets_a_deletion_waits_for_it() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let title = world.answered(conversation).await.unwrap();
    let claim = world.claim_one(title.id).await;
    let mut deleting = world.api.user(world.user).await.unwrap();
    conversations::delete(&mut deleting, conversation)
        .await
        .unwrap();
    let storing = async {
        let mut tx = world.worker.user(world.user).await.unwrap();
        let (id, token) = (claim.id, claim.token);
        let (usage_id, used) = (id::new(world.clock.now()), usage());
        let done = generations::finish_title(&mut tx, id, token, usage_id, &used, Some("A title"));
        let done = done.await.unwrap();
        tx.commit().await.unwrap();
        done
    };
    let deletion = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while world.value(waiting).await == "0" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        generations::cancel_unfinished(&mut deleting, conversation, true)
            .await
            .unwrap();
        deleting.commit().await.unwrap();
    };
    let (done, ()) = tokio::join!(storing, deletion);
    assert!(matches!(done, TitleFinished::Fenced), "{done:?}");
}
