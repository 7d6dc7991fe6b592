//! The walls of the house, read from the sources: what each part may not know, so that a change in
//! one place stays there. ARCHITECTURE.md says why they stand where they stand.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod files;
mod rules;
mod source;
mod times;

use source::{Source, Tree};

/// Fails with every breach at once.
fn assert_none(breaches: Vec<String>) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn libraries_are_named_in_their_own_part_only() {
    let tree = Tree::read();
    assert_none(
        rules::NAMES
            .iter()
            .flat_map(|rule| rule.breaches(&tree.sources))
            .collect(),
    );
}

#[test]
fn the_gateways_json_stays_with_the_upstream() {
    let tree = Tree::read();
    assert_none(rules::gateway_json(&tree.sources));
}

#[test]
fn dependencies_point_one_way() {
    let tree = Tree::read();
    assert_none(rules::dependencies(&tree.manifests));
}

#[test]
fn the_lints_that_the_rules_rely_on_are_on_everywhere() {
    let tree = Tree::read();
    assert_none(rules::lints(&tree.manifests, &tree.text("clippy.toml")));
}

#[test]
fn no_statement_is_given_the_time_of_a_process() {
    let tree = Tree::read();
    assert_none(times::given(&tree.files));
}

#[test]
fn no_file_has_grown_beyond_its_module() {
    let tree = Tree::read();
    assert_none(files::sizes(&tree.sources));
}

#[test]
fn nothing_names_a_machine_or_a_mirror() {
    let tree = Tree::read();
    assert_none(
        tree.files
            .iter()
            .flat_map(|(path, text)| files::machines(path, text))
            .collect(),
    );
}

#[test]
fn the_page_that_the_failures_point_at_is_there() {
    let tree = Tree::read();
    let architecture = tree.text("ARCHITECTURE.md");
    for section in ["## The map", "## Invariants"] {
        assert!(
            architecture.contains(section),
            "ARCHITECTURE.md lacks {section}"
        );
    }
    // Every folder that the map names exists, and every wall is about files that do.
    for (path, _) in rules::homes() {
        let known = tree
            .sources
            .iter()
            .any(|source| source.path.starts_with(path));
        assert!(
            known || rules::PLANNED.contains(&path),
            "no source under {path}: the wall protects nothing"
        );
    }
}

/// Each wall notices what it is there to notice.
#[test]
fn a_breach_is_noticed() {
    let breaches = |path: &str, text: &str| {
        let source = Source::new(path, text);
        let sources = [source];
        let mut found: Vec<String> = rules::NAMES
            .iter()
            .flat_map(|rule| rule.breaches(&sources))
            .collect();
        found.extend(rules::gateway_json(&sources));
        found.extend(files::sizes(&sources));
        found.extend(files::machines(path, text));
        found
    };
    for (path, text) in [
        ("api/src/routes/x.rs", "use sqlx::query;"),
        (
            "shared/src/queue.rs",
            "fn f() { let x = sqlx::query!(\"SELECT 1\"); }",
        ),
        ("worker/src/jobs/x.rs", "use apalis::prelude::*;"),
        ("worker/src/run.rs", "use apalis_core::backend::Backend;"),
        ("worker/src/run.rs", "use axum::Router;"),
        ("shared/src/push/hub.rs", "pub use axum as web;"),
        ("worker/src/run.rs", "use lapin::Connection;"),
        ("api/src/feed.rs", "use worker::run;"),
        ("worker/src/run.rs", "use api::app;"),
        ("shared/src/lib.rs", "pub use api::app;"),
        ("worker/src/upstream/client.rs", "use shared::redis::Redis;"),
        (
            "worker/src/upstream/client.rs",
            "use shared::store::{self, Db};",
        ),
        ("worker/src/prompt/mod.rs", "async fn build() {}"),
        ("shared/src/domain/message.rs", "use tokio::fs;"),
        ("shared/src/store/messages.rs", "use crate::redis::Redis;"),
        ("shared/src/id.rs", "unsafe fn f() {}"),
        ("worker/src/jobs/x.rs", "let reply = &body[\"choices\"][0];"),
        (
            "worker/src/jobs/x.rs",
            "struct Choice { finish_reason: String }",
        ),
        (
            "shared/src/domain/x.rs",
            "#[serde(rename = \"prompt_tokens_details\")]",
        ),
        ("api/src/x.rs", &"fn f() {}\n".repeat(501)),
        (
            "api/src/x.rs",
            concat!("const PATH: &str = \"/ho", "me/somebody/balas\";"),
        ),
        ("deny.toml", concat!("[sour", "ce.crates-io]")),
        (
            "requirements.txt",
            concat!("--index", "-url https://mirror.example/simple"),
        ),
        (
            "Cargo.lock",
            "source = \"sparse+https://mirror.example/index/\"",
        ),
    ] {
        assert_eq!(
            breaches(path, text).len(),
            1,
            "{path}: {text:.60}: {:?}",
            breaches(path, text)
        );
    }
    for (path, text) in [
        ("shared/src/store/tx.rs", "use sqlx::PgPool;"),
        ("shared/src/testing/mod.rs", "use sqlx::PgPool;"),
        (
            "api/src/routes/x.rs",
            "// Not by sqlx, not unsafe.\n/* axum's /* own */ unsafe */ use axum::Router;",
        ),
        (
            "worker/src/jobs/x.rs",
            "const TEXT: &str = \"sqlx \\\" unsafe\"; const RAW: &str = r#\"axum \" unsafe\"#;",
        ),
        (
            "worker/src/jobs/x.rs",
            "fn f<'a>(x: &'a str) -> char { '\"' } // unsafe '\n fn sqlx_free() {}",
        ),
        (
            "worker/src/jobs/x.rs",
            "/// Nothing of its choices.\nfn f() {}",
        ),
        (
            "worker/src/upstream/wire.rs",
            "struct Choice { finish_reason: String }",
        ),
        ("worker/tests/x.rs", &"fn f() {}\n".repeat(2_000)),
        (
            "api/src/x.rs",
            &format!(
                "fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{}}}",
                "fn f() {}\n".repeat(900)
            ),
        ),
        (
            "Cargo.lock",
            "source = \"registry+https://github.com/rust-lang/crates.io-index\"",
        ),
    ] {
        assert_eq!(
            breaches(path, text),
            Vec::<String>::new(),
            "{path}: {text:.60}"
        );
    }
}

/// The same for manifests.
#[test]
fn a_breach_of_a_manifest_is_noticed() {
    let breaches = |package: &str, text: &str| {
        rules::dependencies(&[(format!("{package}/Cargo.toml"), text.to_owned())])
    };
    assert_eq!(
        breaches("api", "[dependencies]\nbalas-worker.workspace = true").len(),
        1
    );
    assert_eq!(
        breaches(
            "worker",
            "[dependencies]\nbalas-api = { path = \"../api\" }"
        )
        .len(),
        1
    );
    assert_eq!(
        breaches("shared", "[dependencies.axum]\nworkspace = true").len(),
        1
    );
    assert_eq!(
        breaches(
            "shared",
            "[target.'cfg(unix)'.dependencies]\napalis = \"1\""
        )
        .len(),
        1
    );
    assert_eq!(
        breaches("api", "[build-dependencies]\nsqlx.workspace = true").len(),
        1
    );
    assert_eq!(
        breaches("chaos", "[dependencies]\nbalas-worker.workspace = true").len(),
        1
    );
    assert!(breaches("api", "[dev-dependencies]\nbalas-worker.workspace = true").is_empty());
    assert!(
        breaches(
            "api",
            "[dependencies]\naxum.workspace = true\n\n[lints]\nworkspace = true"
        )
        .is_empty()
    );
    let lint =
        |text: &str| rules::lints(&[("api/Cargo.toml".to_owned(), text.to_owned())], "").len();
    assert!(lint("[package]") > lint("[lints]\nworkspace = true"));
}
