//! Files into the knowledge base from a terminal.

use clap::Parser;
use secrecy::ExposeSecret as _;
use shared::config::Vars;
use worker::admin::{Admin, AdminConfig, Outcome};

use crate::common::Fleet;
use crate::rig::worker;

#[derive(Debug, Parser)]
struct Terminal {
    #[command(flatten)]
    admin: Admin,
}

const SAMPLE: &str = include_str!("../../../docs/sample-desk.csv");

async fn terminal(fleet: &Fleet, arguments: &[&str]) -> anyhow::Result<Outcome> {
    let words = ["admin", "knowledge", "ingest"].iter().chain(arguments);
    let terminal = Terminal::try_parse_from(words)?;
    let redis = fleet.env.redis_config();
    let mut vars = Vars::from_map([
        ("DATABASE_URL", fleet.env.database_url().to_owned()),
        ("REDIS_URL", redis.url.expose_secret().to_owned()),
        ("REDIS_KEY_PREFIX", redis.prefix.clone()),
    ]);
    let config = AdminConfig::from_vars(&mut vars);
    vars.finish()?;
    worker::admin::run(config, terminal.admin, fleet.clock.clone()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_folders_are_loaded_and_what_cannot_be_read_leaves_nothing() {
    let fleet = Fleet::new().await;
    let _worker = worker(&fleet, "w1");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("b.csv"), "MENU;MASALAH\nAkun;Terkunci\nAkun;\n").unwrap();
    std::fs::write(path("a.CSV"), SAMPLE).unwrap();
    std::fs::write(path("readme.txt"), "no entries").unwrap();
    let here = folder.path().display().to_string();
    let user = fleet.user.to_string();
    let done = terminal(&fleet, &["--json", "--user", &user, &here])
        .await
        .unwrap();
    assert_eq!(done.code, std::process::ExitCode::SUCCESS, "{}", done.text);
    let done: serde_json::Value = serde_json::from_str(&done.text).unwrap();
    let brief: Vec<_> = done
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["file_name"].as_str().unwrap(),
                one["status"].as_str().unwrap(),
                one["documents_new"].as_i64().unwrap(),
                one["rows_skipped_count"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        brief,
        [("a.CSV", "completed", 14, 0), ("b.csv", "completed", 1, 1)]
    );
    let spent = format!(
        "SELECT count(*) > 0 FROM chat.usage_tracking WHERE operation = 'embedding' AND user_id = '{user}'"
    );
    assert_eq!(fleet.env.value(&spent).await.as_deref(), Some("true"));

    // Loaded again it changes nothing, and nobody has to wait.
    let again = terminal(&fleet, &["--no-wait", &path("a.CSV")])
        .await
        .unwrap();
    assert!(again.text.contains("a.CSV"), "{}", again.text);

    let before = fleet
        .env
        .value("SELECT count(*) FROM chat.knowledge_ingestions")
        .await;
    std::fs::write(path("bad.csv"), "MENU,ISSUE\nx,\"never closed\n").unwrap();
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().display().to_string();
    for (arguments, problem) in [
        (vec![path("bad.csv")], "line 2"),
        (vec![path("missing.csv")], "missing.csv"),
        (vec![empty], "no *.csv files"),
        (
            vec!["--collection".to_owned(), "No".to_owned(), path("b.csv")],
            "no name of a collection",
        ),
        (vec![], "required"),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let error = terminal(&fleet, &arguments).await.unwrap_err();
        assert!(format!("{error:#}").contains(problem), "{error:#}");
    }
    let after = fleet
        .env
        .value("SELECT count(*) FROM chat.knowledge_ingestions")
        .await;
    assert_eq!(before, after);
}
