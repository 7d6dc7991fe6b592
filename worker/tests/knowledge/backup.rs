//! Backup and restore of the knowledge base, with its vectors and without them.

use std::path::PathBuf;
use std::process::Command;

use shared::config::Vars;
use shared::domain::{IngestionStatus, KnowledgeProfile};
use shared::id;
use shared::knowledge::{Searched, Vocabularies, search};
use shared::store::knowledge::reindex::{self, Begun, Wanted};
use shared::store::knowledge::{ingestions, profiles};
use shared::store::{Db, DbConfig, ServingRole};

use crate::common::Fleet;
use crate::rig::{ended, file, upload, worker, worker_with};

const QUESTION: &str = "gagal nomor3 pada langkah3";

/// The server's own tools, which are never older than the server.
async fn tool(fleet: &Fleet, name: &str) -> Command {
    let folder = fleet
        .env
        .value("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
        .await
        .unwrap();
    let own = PathBuf::from(folder).join(name);
    let mut command = Command::new(if own.exists() { own } else { name.into() });
    command.env_remove("PGOPTIONS");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The URL of another database of the same server.
fn named(url: &str, name: &str) -> String {
    let (start, rest) = url.rsplit_once('/').unwrap();
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{start}/{name}{mark}{query}")
}

/// Dumps the database and restores it as another one, which is left to the server's own end.
async fn restored(fleet: &Fleet, without: Option<&str>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("balas.dump");
    let url = fleet.env.database_url();
    let mut dumping = tool(fleet, "pg_dump").await;
    dumping.arg("--format=custom").arg("--file").arg(&dump);
    if let Some(table) = without {
        dumping.arg(format!("--exclude-table-data={table}"));
    }
    run(dumping.arg(url));
    let name = format!("restored_{}", uuid::Uuid::new_v4().simple());
    fleet.env.execute(&format!("CREATE DATABASE {name}")).await;
    let other = named(url, &name);
    let mut restoring = tool(fleet, "pg_restore").await;
    run(restoring
        .arg("--exit-on-error")
        .arg("--dbname")
        .arg(&other)
        .arg(&dump));
    other
}

fn api(url: &str) -> Db {
    let mut vars = Vars::from_map([("DATABASE_URL", url), ("DB_POOL_MIN", "0")]);
    let config = DbConfig::from_vars(&mut vars);
    vars.finish().unwrap();
    Db::connect_lazy(&config, ServingRole::Api).unwrap()
}

async fn served(db: &Db, fleet: &Fleet) -> KnowledgeProfile {
    let mut tx = db.user(fleet.user).await.unwrap();
    let profiles = profiles::list(&mut tx).await.unwrap();
    profiles.into_iter().next().unwrap()
}

async fn find(db: &Db, fleet: &Fleet) -> Searched {
    let patience = std::time::Duration::from_secs(20);
    let asked = shared::knowledge::ask(&fleet.redis, fleet.user, QUESTION, patience)
        .await
        .unwrap()
        .expect("a worker gives the vector");
    let mut tx = db.user(fleet.user).await.unwrap();
    let profile = profiles::searchable(&mut tx, asked.profile_id)
        .await
        .unwrap()
        .unwrap();
    let vector = Some((&profile, asked.vector.as_slice()));
    search(
        &mut tx,
        &Vocabularies::default(),
        "default",
        QUESTION,
        vector,
        3,
    )
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_vectors_a_restored_knowledge_base_asks_nobody() {
    let fleet = Fleet::new().await;
    let first = worker(&fleet, "w1");
    ended(&fleet, upload(&fleet, &file(0..30, "Muat ulang")).await).await;
    let before = find(&fleet.api, &fleet).await;
    let url = restored(&fleet, None).await;
    first.kill();
    fleet.simulator.clear_calls();
    let _second = worker_with(&fleet, "w2", &[("DATABASE_URL", &url)]);
    let db = api(&url);
    assert_eq!(served(&db, &fleet).await.vectors, 30);
    assert_eq!(find(&db, &fleet).await, before);
    assert!(
        fleet.simulator.calls().is_empty(),
        "vectors are part of the dump"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_vectors_it_is_found_by_words_until_they_are_made_again() {
    let fleet = Fleet::new().await;
    let first = worker(&fleet, "w1");
    ended(&fleet, upload(&fleet, &file(0..30, "Muat ulang")).await).await;
    let before = find(&fleet.api, &fleet).await;
    let url = restored(&fleet, Some("chat.knowledge_vectors")).await;
    first.kill();
    let _second = worker_with(&fleet, "w2", &[("DATABASE_URL", &url)]);
    let db = api(&url);
    assert_eq!(served(&db, &fleet).await.vectors, 0);
    let by_words = find(&db, &fleet).await;
    assert_eq!(
        by_words.results[0].document.id,
        before.results[0].document.id
    );
    assert!(by_words.results.iter().all(|one| one.vector.is_none()));

    let profile = served(&db, &fleet).await;
    let id = id::new(fleet.clock.now());
    let wanted = Wanted {
        profile_id: id,
        model: &profile.model,
        dimension: profile.dimension,
        query_prefix: "",
        document_prefix: "",
    };
    let mut tx = db.user(fleet.user).await.unwrap();
    assert_eq!(
        reindex::begin(&mut tx, id, &wanted).await.unwrap(),
        Begun::Queued
    );
    tx.commit().await.unwrap();
    let done = fleet
        .until(async || {
            let mut tx = db.user(fleet.user).await.unwrap();
            let found = ingestions::find(&mut tx, id).await.unwrap().unwrap();
            found.status.is_terminal().then_some(found)
        })
        .await;
    assert_eq!(done.status, IngestionStatus::Completed, "{done:?}");
    let after = served(&db, &fleet).await;
    assert_eq!((after.id, after.vectors), (profile.id, 30));
    assert_eq!(find(&db, &fleet).await, before);
    let mut tx = db.user(fleet.user).await.unwrap();
    let complete = reindex::begin(&mut tx, id, &wanted).await.unwrap();
    assert_eq!(complete, Begun::Serves, "nothing is missing any more");
}
