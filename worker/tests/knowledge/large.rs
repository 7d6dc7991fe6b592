//! Large collections: an index of the vectors, made beside those who use them and dropped when it is too much.

use shared::knowledge::{Vocabularies, search};
use shared::store::knowledge::profiles;

use crate::common::Fleet;
use crate::rig::{ended, file, upload, worker_with};

const INDEXES: &str = "SELECT string_agg(c.relname || ' ' || i.indisvalid, ',') FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relname LIKE 'knowledge_vectors_near_%'";

async fn first_found(fleet: &Fleet, question: &str) -> (String, f64) {
    let patience = std::time::Duration::from_secs(20);
    let asked = shared::knowledge::ask(&fleet.redis, fleet.user, question, patience)
        .await
        .unwrap()
        .expect("a worker gives the vector");
    let mut tx = fleet.api.user(fleet.user).await.unwrap();
    let profile = profiles::searchable(&mut tx, asked.profile_id)
        .await
        .unwrap()
        .unwrap();
    let vector = Some((&profile, asked.vector.as_slice()));
    let found = search(
        &mut tx,
        &Vocabularies::default(),
        "default",
        question,
        vector,
        5,
    )
    .await
    .unwrap();
    let first = found
        .results
        .iter()
        .find(|one| one.vector.is_some_and(|leg| leg.rank == 1))
        .unwrap();
    (first.document.issue.clone(), first.vector.unwrap().score)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_collection_gets_an_index_that_finds_the_same_and_a_small_one_loses_it() {
    let fleet = Fleet::new().await;
    let _worker = worker_with(&fleet, "w1", &[("KNOWLEDGE_INDEX_FROM", "200")]);
    ended(&fleet, upload(&fleet, &file(0..150, "Muat ulang")).await).await;
    let question = "gagal nomor17 pada langkah4";
    let exact = first_found(&fleet, question).await;
    assert_eq!(fleet.env.value(INDEXES).await, None, "150 are few");
    ended(&fleet, upload(&fleet, &file(150..300, "Muat ulang")).await).await;
    let made = fleet
        .until(async || {
            let found = fleet.env.value(INDEXES).await?;
            found.ends_with(" true").then_some(found)
        })
        .await;
    assert!(!made.contains(','), "one index: {made}");
    let by_index = first_found(&fleet, question).await;
    assert_eq!(by_index.0, exact.0);
    assert!(
        (by_index.1 - exact.1).abs() < 1e-6,
        "{by_index:?} {exact:?}"
    );
    let used = "SELECT count(*) FROM pg_stat_user_indexes WHERE indexrelname LIKE 'knowledge_vectors_near_%' AND idx_scan > 0";
    fleet
        .until(async || (fleet.env.value(used).await.as_deref() == Some("1")).then_some(()))
        .await;

    // A bit smaller is no reason; much smaller is.
    let gone = "DELETE FROM chat.knowledge_documents WHERE id IN (SELECT id FROM chat.knowledge_documents ORDER BY id LIMIT 200)";
    fleet.env.execute(gone).await;
    ended(&fleet, upload(&fleet, &file(900..901, "Muat ulang")).await).await;
    fleet
        .until(async || fleet.env.value(INDEXES).await.is_none().then_some(()))
        .await;
    assert!(!first_found(&fleet, question).await.0.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_is_known_to_the_next_worker() {
    let fleet = Fleet::new().await;
    let first = crate::rig::worker(&fleet, "w1");
    ended(&fleet, upload(&fleet, &file(0..3, "Muat ulang")).await).await;
    let before = first_found(&fleet, "gagal nomor2  PADA langkah2").await;
    first.kill();
    fleet.simulator.clear_calls();
    let _second = crate::rig::worker(&fleet, "w2");
    assert_eq!(
        first_found(&fleet, "gagal nomor2 pada langkah2").await,
        before
    );
    assert!(
        fleet.simulator.calls().is_empty(),
        "its vector was remembered: {:?}",
        crate::rig::asked_for(&fleet)
    );
}
