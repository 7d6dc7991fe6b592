//! `kill -9` in the middle of a large ingestion.

use std::collections::HashMap;

use shared::domain::{Ingestion, IngestionStatus};
use uuid::Uuid;

use crate::common::Fleet;
use crate::process::Process;
use crate::rig::{SETTINGS, asked_for, file, ingestion, upload};

const ROWS: u32 = 20_000;
/// Texts of one call, and calls at a time: what may be on its way when a worker dies.
const BATCH: usize = 50;
const CALLS: usize = 4;

fn start(fleet: &Fleet, name: &str) -> Process {
    let url = fleet.simulator.base_url();
    let more = [
        ("NEBIUS_BASE_URL", url.as_str()),
        ("EMBEDDING_BATCH_SIZE", "50"),
    ];
    let settings: Vec<_> = SETTINGS.iter().chain(&more).copied().collect();
    Process::start(fleet, name, &settings)
}

/// Waits until there is enough done, for as long as it goes on.
pub(crate) async fn until(
    fleet: &Fleet,
    id: Uuid,
    enough: impl Fn(&Ingestion) -> bool,
) -> Ingestion {
    let mut seen = ingestion(fleet, id).await;
    while !enough(&seen) {
        let before = (seen.documents_new, seen.chunks_embedded, seen.status);
        seen = fleet
            .until(async || {
                let now = ingestion(fleet, id).await;
                let after = (now.documents_new, now.chunks_embedded, now.status);
                (after != before).then_some(now)
            })
            .await;
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_comes_once_and_no_stored_text_is_paid_for_twice() {
    let fleet = Fleet::new().await;
    let first = start(&fleet, "w1");
    let id = upload(&fleet, &file(0..ROWS, "Muat ulang")).await;
    // Once among the rows, once among the texts.
    until(&fleet, id, |now| now.documents_new > 3_000).await;
    first.kill();
    let second = start(&fleet, "w2");
    until(&fleet, id, |now| now.chunks_embedded > 6_000).await;
    second.kill();
    let sql = "SELECT string_agg(c.content, E'\\n') FROM chat.knowledge_chunks c JOIN chat.knowledge_vectors v ON v.chunk_id = c.id";
    let stored = fleet.env.value(sql).await.unwrap();
    let stored: Vec<&str> = stored.lines().collect();
    let all = usize::try_from(ROWS).unwrap();
    assert!(
        stored.len() > 6_000 && stored.len() < all,
        "killed in the middle: {}",
        stored.len()
    );
    let _third = start(&fleet, "w3");
    let done = until(&fleet, id, |now| now.status.is_terminal()).await;
    assert_eq!(done.status, IngestionStatus::Completed, "{done:?}");
    let rows = i32::try_from(ROWS).unwrap();
    assert_eq!(
        (
            done.documents_new,
            done.documents_changed,
            done.chunks_embedded
        ),
        (rows, 0, rows),
        "{done:?}"
    );
    for table in [
        "knowledge_documents",
        "knowledge_chunks",
        "knowledge_vectors",
    ] {
        let sql = format!("SELECT count(*) FROM chat.{table}");
        let count = fleet.env.value(&sql).await;
        assert_eq!(count, Some(ROWS.to_string()), "{table}");
    }
    let mut times: HashMap<String, u32> = HashMap::new();
    for text in asked_for(&fleet) {
        *times.entry(text).or_default() += 1;
    }
    assert_eq!(times.len(), all, "each text was asked for");
    for text in stored {
        assert_eq!(
            times[text], 1,
            "its vector was stored before the kill: {text}"
        );
    }
    let twice = times.values().filter(|count| **count > 1).count();
    assert!(
        twice <= BATCH * CALLS,
        "{twice} texts were asked for twice, and no more than {} were on their way",
        BATCH * CALLS
    );
}
