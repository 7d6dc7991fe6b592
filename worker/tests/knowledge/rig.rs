//! A fleet with a knowledge base. The API's part is played by its store calls.

use loadtest::simulator::Endpoint;
use shared::domain::Ingestion;
use shared::id;
use shared::knowledge::{Row, Sheet};
use shared::store::knowledge::ingestions::{self, StagedRow, Understood};
use uuid::Uuid;

use crate::common::{Fleet, TestWorker};

/// What a worker is told of the provider, its address aside.
pub(crate) const SETTINGS: [(&str, &str); 2] = [
    ("NEBIUS_API_KEY", "embedding-key"),
    ("EMBEDDING_DIMENSION", "64"),
];

pub(crate) fn worker(fleet: &Fleet, name: &str) -> TestWorker {
    worker_with(fleet, name, &[])
}

/// A worker with a provider of vectors, and with settings of its own.
pub(crate) fn worker_with(fleet: &Fleet, name: &str, more: &[(&'static str, &str)]) -> TestWorker {
    let url = fleet.simulator.base_url();
    let provider = [("NEBIUS_BASE_URL", url.as_str())];
    let settings: Vec<_> = SETTINGS
        .iter()
        .chain(&provider)
        .chain(more)
        .copied()
        .collect();
    fleet.worker_with(name, &settings)
}

/// What the API does with a file.
pub(crate) async fn upload(fleet: &Fleet, file: &str) -> Uuid {
    let mut sheet = Sheet::default();
    sheet.push(file.as_bytes()).unwrap();
    sheet.finish().unwrap();
    let (mut rows, mut skipped) = (Vec::new(), Vec::new());
    for row in sheet.take() {
        match row {
            Row::Skipped(row) => skipped.push(row),
            Row::Entry { line, text } => rows.push(StagedRow::new(line, text)),
        }
    }
    let id = id::new(fleet.clock.now());
    let mut tx = fleet.api.user(fleet.user).await.unwrap();
    ingestions::begin(&mut tx, id, Some("entries.csv"))
        .await
        .unwrap();
    assert!(
        ingestions::stage(&mut tx, id, &rows, &skipped)
            .await
            .unwrap()
    );
    let file = Understood {
        encoding: Some("utf-8"),
        delimiter: Some(","),
        columns: &serde_json::json!([]),
        rows_read: sheet.rows_read(),
    };
    assert!(
        ingestions::queue(&mut tx, id, "default", &file)
            .await
            .unwrap()
    );
    tx.commit().await.unwrap();
    id
}

/// The same for a file that does not fit one statement.
pub(crate) async fn staged_upload(fleet: &Fleet, file: &str) -> Uuid {
    let mut sheet = Sheet::default();
    let id = id::new(fleet.clock.now());
    let mut tx = fleet.api.user(fleet.user).await.unwrap();
    ingestions::begin(&mut tx, id, Some("entries.csv"))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let stage = async |sheet: &mut Sheet| {
        let rows: Vec<_> = sheet
            .take()
            .into_iter()
            .filter_map(|row| match row {
                Row::Entry { line, text } => Some(StagedRow::new(line, text)),
                Row::Skipped(_) => None,
            })
            .collect();
        let mut tx = fleet.api.user(fleet.user).await.unwrap();
        assert!(ingestions::stage(&mut tx, id, &rows, &[]).await.unwrap());
        tx.commit().await.unwrap();
    };
    for piece in file.as_bytes().chunks(1 << 18) {
        sheet.push(piece).unwrap();
        stage(&mut sheet).await;
    }
    sheet.finish().unwrap();
    stage(&mut sheet).await;
    let file = Understood {
        encoding: Some("utf-8"),
        delimiter: Some(","),
        columns: &serde_json::json!([]),
        rows_read: sheet.rows_read(),
    };
    let mut tx = fleet.api.user(fleet.user).await.unwrap();
    assert!(
        ingestions::queue(&mut tx, id, "default", &file)
            .await
            .unwrap()
    );
    tx.commit().await.unwrap();
    id
}

pub(crate) async fn ingestion(fleet: &Fleet, id: Uuid) -> Ingestion {
    let mut tx = fleet.api.user(fleet.user).await.unwrap();
    ingestions::find(&mut tx, id).await.unwrap().unwrap()
}

pub(crate) async fn ended(fleet: &Fleet, id: Uuid) -> Ingestion {
    fleet
        .until(async || {
            let found = ingestion(fleet, id).await;
            found.status.is_terminal().then_some(found)
        })
        .await
}

/// A file of so many entries, each with words of its own.
pub(crate) fn file(entries: std::ops::Range<u32>, solution: &str) -> String {
    let rows = entries.map(|number| {
        format!(
            "Menu {},gagal nomor{number} pada langkah{},{solution}\n",
            number % 7,
            number % 13
        )
    });
    format!("MENU,ISSUE,EXPECTED\n{}", rows.collect::<String>())
}

/// Every text that the provider was asked for, with repetitions.
pub(crate) fn asked_for(fleet: &Fleet) -> Vec<String> {
    let calls = fleet.simulator.calls();
    let calls = calls
        .iter()
        .filter(|call| call.endpoint == Endpoint::Embeddings);
    calls
        .flat_map(|call| {
            call.last_user_message
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}
