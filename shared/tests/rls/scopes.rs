//! The store's two scopes.

use std::time::Duration;

use shared::store::messages::Cursor;
use shared::store::{conversations, generations, ledger, maintenance, messages};
use uuid::Uuid;

use crate::common::{World, claimer, text};

/// The worker's role has policies for sweeps over all users; its `UserTx` must not have them.
#[tokio::test]
async fn a_worker_that_runs_as_a_person_sees_that_person_only() {
    let world = World::new().await;
    let neighbour = Uuid::new_v4();
    let theirs = world.conversation_of(neighbour).await;
    let sent = world.send_as(neighbour, &text(theirs, "private")).await;
    let claim = world.claim_one(sent.generation.id).await;
    for db in [&world.worker, &world.api] {
        let mut tx = db.user(world.user).await.unwrap();
        assert!(
            generations::find(&mut tx, claim.id)
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            conversations::find(&mut tx, theirs)
                .await
                .unwrap()
                .is_none()
        );
        let message = messages::find(&mut tx, theirs, sent.message.id)
            .await
            .unwrap();
        assert!(message.is_none());
        let (page, _) = messages::list(&mut tx, theirs, Cursor::Newest, 10)
            .await
            .unwrap();
        assert!(page.is_empty());
        assert!(
            !generations::lock_conversation(&mut tx, theirs)
                .await
                .unwrap()
        );
        assert!(
            conversations::delete(&mut tx, theirs)
                .await
                .unwrap()
                .is_none()
        );
        let cancelled = generations::cancel(&mut tx, claim.id, None).await.unwrap();
        assert!(matches!(cancelled, generations::Cancelled::NotFound));
        tx.commit().await.unwrap();
    }
    // With the neighbour's own token, but in somebody else's name.
    let mut tx = world.worker.user(world.user).await.unwrap();
    let code = shared::domain::FailureCode::Internal;
    let failed = generations::fail(&mut tx, claim.id, claim.token, code, "stolen").await;
    assert!(matches!(failed, Ok(generations::Failed::Fenced)));
    tx.commit().await.unwrap();
    let status = world.value("SELECT status FROM chat.generations").await;
    assert_eq!(status, "in_progress");
    assert_eq!(world.value("SELECT count(*) FROM chat.messages").await, "1");
}

/// The API's role may set what it likes; its sweeps find nothing, or are refused.
#[tokio::test]
async fn a_sweep_of_the_api_finds_nothing() {
    let world = World::new().await;
    let conversation = world.conversation().await;
    let sent = world.send(conversation, "hello").await;
    world
        .execute("UPDATE chat.generations SET run_at = now() - interval '1 minute', deadline_at = now() - interval '1 second'")
        .await;
    let mut tx = world.api.sweep().await.unwrap();
    let lease = Duration::from_secs(1);
    let claims = generations::claim(&mut tx, &[sent.generation.id], &claimer("api", lease)).await;
    assert!(claims.unwrap().is_empty());
    assert!(
        generations::expired_deadlines(&mut tx, 10)
            .await
            .unwrap()
            .is_empty()
    );
    drop(tx);
    // Which queues are open is none of its business.
    let mut tx = world.api.sweep().await.unwrap();
    let claims = generations::claim_ready(
        &mut tx,
        &generations::Room::for_any(10),
        &claimer("api", lease),
    )
    .await;
    assert!(claims.is_err());
    drop(tx);
    let mut tx = world.api.sweep().await.unwrap();
    let all = shared::domain::Priority::ALL;
    assert!(
        generations::ready_unpushed(&mut tx, all, 0.0, 10)
            .await
            .is_err()
    );
    drop(tx);
    let mut tx = world.api.sweep().await.unwrap();
    assert!(
        maintenance::expire_idempotency_keys(&mut tx, 10)
            .await
            .is_err()
    );
    drop(tx);
    let mut tx = world.api.sweep().await.unwrap();
    assert!(maintenance::ensure_partitions(&mut tx).await.is_err());
    drop(tx);
    // The worker's finds it.
    let mut tx = world.worker.sweep().await.unwrap();
    assert_eq!(
        generations::expired_deadlines(&mut tx, 10)
            .await
            .unwrap()
            .len(),
        1
    );
}

/// One connection, used in turn for a sweep and for two people.
#[tokio::test]
async fn a_scope_ends_with_its_transaction() {
    let world = World::new().await;
    let mut config = world.env.db_config();
    config.pool_max = 1;
    let db = shared::store::Db::connect_lazy(&config, shared::store::ServingRole::Worker).unwrap();
    let neighbour = Uuid::new_v4();
    let theirs = world.conversation_of(neighbour).await;
    let sent = world.send_as(neighbour, &text(theirs, "private")).await;
    for commit in [true, false] {
        let mut tx = db.sweep().await.unwrap();
        let ready = generations::claim(
            &mut tx,
            &[sent.generation.id],
            &claimer("w", Duration::from_secs(60)),
        )
        .await;
        assert_eq!(ready.unwrap().len(), usize::from(commit));
        if commit {
            tx.commit().await.unwrap();
        } else {
            drop(tx);
        }
        let mut tx = db.user(world.user).await.unwrap();
        assert!(
            generations::find(&mut tx, sent.generation.id)
                .await
                .unwrap()
                .is_none()
        );
        // A statement that names the neighbour's row outright.
        let kept = generations::keep_partial(&mut tx, sent.generation.id, 1, "mine")
            .await
            .unwrap();
        assert!(!kept);
        drop(tx);
        let mut tx = db.user(neighbour).await.unwrap();
        assert!(
            generations::find(&mut tx, sent.generation.id)
                .await
                .unwrap()
                .is_some()
        );
        let wasted = ledger::Used {
            id: shared::id::new(world.clock.now()),
            conversation_id: theirs,
            generation_id: sent.generation.id,
            operation: "completion",
            usage: &crate::common::usage(),
            wasted: true,
        };
        ledger::used(&mut tx, &wasted).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = db.sweep().await.unwrap();
        let finished = generations::renew(
            &mut tx,
            &[(sent.generation.id, Uuid::new_v4())],
            Duration::from_secs(1),
        )
        .await;
        assert!(finished.unwrap().is_empty());
    }
}
