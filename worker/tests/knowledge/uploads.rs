//! Uploads: each row once, each text paid for once, whatever happens to workers and provider.

use std::collections::HashMap;

use shared::domain::IngestionStatus;
use shared::knowledge::{Vocabularies, search};
use shared::store::knowledge::{self, ingestions, profiles};

use crate::common::Fleet;
use crate::rig::{asked_for, ended, file, ingestion, upload, worker};

#[tokio::test(flavor = "multi_thread")]
async fn rows_become_entries_and_what_is_there_costs_nothing() {
    let fleet = Fleet::new().await;
    let _worker = worker(&fleet, "w1");
    let text = format!(
        "{},,\nMenu 0,GAGAL  nomor0 pada langkah0,x\n",
        file(0..25, "Muat ulang").trim_end()
    );
    let first = ended(&fleet, upload(&fleet, &text).await).await;
    assert_eq!(first.status, IngestionStatus::Completed, "{first:?}");
    let counts = |done: &shared::domain::Ingestion| {
        (
            done.documents_new,
            done.documents_changed,
            done.documents_unchanged,
            done.chunks_embedded,
        )
    };
    assert_eq!(counts(&first), (25, 0, 0, 25), "{first:?}");
    assert!(first.tokens > 0 && first.cost.is_some(), "{first:?}");
    let skipped: Vec<_> = first
        .rows_skipped
        .iter()
        .map(|row| (row.line, row.reason.as_str()))
        .collect();
    assert_eq!(skipped, [(27, "repeats line 2")], "{first:?}");

    let again = ended(&fleet, upload(&fleet, &text).await).await;
    assert_eq!(counts(&again), (0, 0, 25, 0), "{again:?}");
    assert_eq!(asked_for(&fleet).len(), 25, "nothing was asked for twice");

    // Another answer to the same question needs no other vector; another question does.
    let changed = "MENU,ISSUE,EXPECTED\nMenu 1,gagal nomor1 pada langkah1,Hubungi admin\nMenu 1,gagal baru,Muat ulang\n";
    let third = ended(&fleet, upload(&fleet, changed).await).await;
    assert_eq!(counts(&third), (1, 1, 0, 1), "{third:?}");
    let version = fleet
        .env
        .value("SELECT version FROM chat.knowledge_documents WHERE solution = 'Hubungi admin'");
    assert_eq!(version.await.as_deref(), Some("2"));
    let booked = "SELECT string_agg(DISTINCT operation || ' ' || outcome, ',') FROM chat.attempts";
    assert_eq!(
        fleet.env.value(booked).await.as_deref(),
        Some("embedding completed")
    );
    // What was booked is what was charged, to the last digit.
    let spent =
        "SELECT (SELECT sum(cost_credits) FROM chat.usage_tracking WHERE operation = 'embedding')
                      = (SELECT sum(cost_credits) FROM chat.knowledge_ingestions)";
    assert_eq!(fleet.env.value(spent).await.as_deref(), Some("true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_legs_find_an_entry_and_agree() {
    let fleet = Fleet::new().await;
    let _worker = worker(&fleet, "w1");
    let text = "MENU,ISSUE,EXPECTED\n\
        Penatausahaan SPP,SPP tidak bisa disimpan karena pagu terlampaui,Periksa sisa pagu pada DPA\n\
        Penatausahaan SPM,SPM tidak muncul setelah SPP diverifikasi,Minta PPK verifikasi ulang\n\
        Akun,Lupa kata sandi dan akun terkunci,Atur ulang password\n\
        Pelaporan,Neraca tidak seimbang,Periksa jurnal penyesuaian\n";
    let done = ended(&fleet, upload(&fleet, text).await).await;
    assert_eq!(done.status, IngestionStatus::Completed, "{done:?}");
    let asked = shared::knowledge::ask(
        &fleet.redis,
        fleet.user,
        "akun saya kekunci min",
        std::time::Duration::from_secs(20),
    );
    let asked = asked.await.unwrap().expect("a worker gives the vector");
    let vocabularies = Vocabularies::default();
    let mut tx = fleet.api.user(fleet.user).await.unwrap();
    let profile = profiles::active(&mut tx).await.unwrap().unwrap();
    assert_eq!(
        (profile.id, profile.dimension, asked.vector.len()),
        (asked.profile_id, 64, 64)
    );
    let vector = Some((&profile, asked.vector.as_slice()));
    let found = search(
        &mut tx,
        &vocabularies,
        "default",
        "akun saya kekunci min",
        vector,
        3,
    )
    .await
    .unwrap();
    let first = &found.results[0];
    assert_eq!(first.document.menu, "Akun", "{found:?}");
    assert!(found.answerable && !found.degraded, "{found:?}");
    assert_eq!(
        (first.words.unwrap().rank, first.vector.unwrap().rank),
        (1, 1),
        "{found:?}"
    );
    let words_only = search(
        &mut tx,
        &vocabularies,
        "default",
        "nerca tidak seimbagn",
        None,
        3,
    )
    .await
    .unwrap();
    assert_eq!(
        words_only.results[0].document.menu, "Pelaporan",
        "{words_only:?}"
    );
    assert!(
        words_only.degraded && words_only.answerable,
        "{words_only:?}"
    );
    assert_eq!(words_only.corrected.len(), 2, "{words_only:?}");
    let far = search(
        &mut tx,
        &vocabularies,
        "default",
        "resep rendang daging sapi",
        None,
        3,
    )
    .await
    .unwrap();
    assert!(!far.answerable, "{far:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_costs_no_row_and_no_text_whose_vector_was_stored() {
    let fleet = Fleet::new().await;
    // Slow enough to be killed in the middle.
    let mut settings = fleet.simulator.settings();
    settings.ttfb_ms = 15;
    fleet.simulator.set_settings(settings);
    let first = worker(&fleet, "w1");
    let entries = 600;
    let id = upload(&fleet, &file(0..entries, "Muat ulang")).await;
    fleet
        .until(async || (ingestion(&fleet, id).await.chunks_embedded > 100).then_some(()))
        .await;
    first.kill();
    let stored: Vec<String> = {
        let sql = "SELECT string_agg(c.content, E'\\n') FROM chat.knowledge_chunks c JOIN chat.knowledge_vectors v ON v.chunk_id = c.id";
        fleet
            .env
            .value(sql)
            .await
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect()
    };
    let _second = worker(&fleet, "w2");
    let done = ended(&fleet, id).await;
    assert_eq!(done.status, IngestionStatus::Completed, "{done:?}");
    let expected = i32::try_from(entries).unwrap();
    assert_eq!(
        (done.documents_new, done.chunks_embedded),
        (expected, expected),
        "{done:?}"
    );
    for table in [
        "knowledge_documents",
        "knowledge_chunks",
        "knowledge_vectors",
    ] {
        let rows = fleet
            .env
            .value(&format!("SELECT count(*) FROM chat.{table}"))
            .await;
        assert_eq!(rows, Some(entries.to_string()), "{table}");
    }
    let mut times: HashMap<String, u32> = HashMap::new();
    for text in asked_for(&fleet) {
        *times.entry(text).or_default() += 1;
    }
    assert_eq!(
        times.len(),
        usize::try_from(entries).unwrap(),
        "each text was asked for"
    );
    assert!(
        stored.len() > 100 && stored.len() < 600,
        "killed in the middle: {}",
        stored.len()
    );
    for text in &stored {
        assert_eq!(
            times[text], 1,
            "its vector was stored before the kill: {text}"
        );
    }
    // What was on its way when the worker died may be asked for again: four calls of ten texts.
    let twice = times.values().filter(|count| **count > 1).count();
    assert!(twice <= 40, "{twice} texts were asked for twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_the_provider_refuses_is_named_and_the_others_are_embedded() {
    let fleet = Fleet::new().await;
    let _worker = worker(&fleet, "w1");
    let text = format!(
        "{}Menu,gagal [[sim:400]] sekali,x\n",
        file(0..12, "Muat ulang")
    );
    let done = ended(&fleet, upload(&fleet, &text).await).await;
    assert_eq!(
        done.status,
        IngestionStatus::CompletedWithErrors,
        "{done:?}"
    );
    assert_eq!(
        (done.chunks_embedded, done.chunks_failed),
        (12, 1),
        "{done:?}"
    );
    assert_eq!(done.rows_skipped[0].line, 14, "{done:?}");
    assert!(done.rows_skipped[0].reason.contains("refused"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_upload_stops_and_keeps_what_was_done() {
    let fleet = Fleet::new().await;
    let mut settings = fleet.simulator.settings();
    settings.ttfb_ms = 200;
    fleet.simulator.set_settings(settings);
    let _worker = worker(&fleet, "w1");
    let id = upload(&fleet, &file(0..400, "Muat ulang")).await;
    fleet
        .until(async || (ingestion(&fleet, id).await.chunks_embedded > 0).then_some(()))
        .await;
    let mut tx = fleet.api.user(fleet.user).await.unwrap();
    assert!(ingestions::cancel(&mut tx, id).await.unwrap());
    tx.commit().await.unwrap();
    let embedded = ingestion(&fleet, id).await.chunks_embedded;
    // Another upload is taken, so the first has been left.
    let next = ended(
        &fleet,
        upload(&fleet, "MENU,ISSUE\na,lain sama sekali\n").await,
    )
    .await;
    assert_eq!(next.status, IngestionStatus::Completed, "{next:?}");
    let cancelled = ingestion(&fleet, id).await;
    assert_eq!(cancelled.status, IngestionStatus::Cancelled);
    assert_eq!(
        cancelled.chunks_embedded, embedded,
        "nothing was stored after the end"
    );
    assert_eq!(cancelled.documents_new, 400, "words find them all");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_uploads_of_the_same_rows_at_once_make_each_entry_once() {
    let fleet = Fleet::new().await;
    let (_first, _second) = (worker(&fleet, "w1"), worker(&fleet, "w2"));
    let (left, right) = (file(0..500, "Muat ulang"), file(0..500, "Hubungi admin"));
    let ids = [
        upload(&fleet, &left).await,
        upload(&fleet, &right).await,
        upload(&fleet, &left).await,
    ];
    let mut new = 0;
    for id in ids {
        let done = ended(&fleet, id).await;
        assert_eq!(done.status, IngestionStatus::Completed, "{done:?}");
        let known = done.documents_new + done.documents_changed + done.documents_unchanged;
        assert_eq!(known, 500, "{done:?}");
        new += done.documents_new;
    }
    assert_eq!(new, 500, "an entry is new once");
    for table in [
        "knowledge_documents",
        "knowledge_chunks",
        "knowledge_vectors",
    ] {
        let rows = fleet
            .env
            .value(&format!("SELECT count(*) FROM chat.{table}"))
            .await;
        assert_eq!(rows.as_deref(), Some("500"), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_refused_are_tried_again_alone() {
    let fleet = Fleet::new().await;
    let _worker = worker(&fleet, "w1");
    let text = format!(
        "{}Menu,ditolak satu,x\nMenu,ditolak dua,x\n",
        file(0..3, "Muat ulang")
    );
    let [first, second] =
        ["satu", "dua"].map(|part| fleet.simulator.script_containing(part, "400"));
    let id = upload(&fleet, &text).await;
    let done = ended(&fleet, id).await;
    assert_eq!(done.chunks_failed, 2, "{done:?}");
    let failed: Vec<i32> = done.rows_skipped.iter().map(|row| row.line).collect();
    assert_eq!(failed, [5, 6], "{done:?}");
    let again = async |lines: &[i32]| {
        let mut tx = fleet.api.user(fleet.user).await.unwrap();
        let retried = knowledge::retry(&mut tx, id, Some(lines)).await.unwrap();
        tx.commit().await.unwrap();
        retried
    };
    assert!(!again(&[2]).await, "that row did not fail");
    fleet.simulator.clear_calls();
    assert!(fleet.simulator.remove_rule(second));
    assert!(again(&[6]).await);
    let one = ended(&fleet, id).await;
    assert_eq!(
        (one.status, one.chunks_embedded, one.chunks_failed),
        (IngestionStatus::CompletedWithErrors, 4, 1),
        "{one:?}"
    );
    assert_eq!(one.rows_skipped[0].line, 5, "{one:?}");
    assert_eq!(asked_for(&fleet).len(), 1, "nothing else was asked for");
    assert!(fleet.simulator.remove_rule(first));
    assert!(again(&[5, 6]).await);
    let all = ended(&fleet, id).await;
    assert_eq!(
        (all.status, all.chunks_embedded, all.chunks_failed),
        (IngestionStatus::Completed, 5, 0),
        "{all:?}"
    );
    assert!(!again(&[5]).await, "nothing is left to try again");
}
