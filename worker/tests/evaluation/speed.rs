//! How long a search takes, its question's vector aside. A measurement and no test: nothing here fails on a
//! slow machine. `cargo xtask eval --speed` shows it.

use std::time::{Duration, Instant};

use shared::knowledge::{Vocabularies, search};
use shared::store::knowledge::indexes::{self, IndexRules, Which};
use shared::store::knowledge::{profiles, words};

use crate::common::Fleet;

const DIMENSION: usize = 1536;
const SEARCHES: u32 = 200;

/// A random text's worth of entries, chunks and vectors, written by the database itself.
async fn fill(fleet: &Fleet, from: u32, to: u32) {
    let entries = format!(
        "INSERT INTO chat.knowledge_documents (id, collection, key, hash, menu, issue, solution, note_dev, note_qa)
         SELECT gen_random_uuid(), 'default', sha256(n::text::bytea), sha256(n::text::bytea), 'Menu ' || n % 40,
                'gagal kode' || n || ' pada langkah' || n % 97 || ' saat simpan' || n % 1013, 'Muat ulang', '', ''
         FROM generate_series({from}, {to} - 1) n"
    );
    fleet.env.execute(&entries).await;
    let chunks = "INSERT INTO chat.knowledge_chunks (id, document_id, collection, place, content, text_hash, words)
         SELECT gen_random_uuid(), d.id, d.collection, 0, d.issue, d.key, to_tsvector('pg_catalog.indonesian', d.menu || ' ' || d.issue)
         FROM chat.knowledge_documents d WHERE NOT EXISTS (SELECT FROM chat.knowledge_chunks c WHERE c.document_id = d.id)";
    fleet.env.execute(chunks).await;
    // Directions that are near one of a hundred others, as texts about the same thing are.
    let vectors = format!(
        "INSERT INTO chat.knowledge_vectors (profile_id, chunk_id, collection, embedding)
         SELECT p.id, c.id, c.collection, (
             SELECT array_agg(sin(hashtext(c.content)::float8 / 1e7 * i) * 0.5
                              + sin((hashtext(c.content) % 100)::float8 * i) ORDER BY i)
             FROM generate_series(1, {DIMENSION}) i)::real[]::halfvec
         FROM chat.knowledge_profiles p, chat.knowledge_chunks c
         WHERE p.state = 'active' AND NOT EXISTS (SELECT FROM chat.knowledge_vectors v WHERE v.chunk_id = c.id)"
    );
    fleet.env.execute(&vectors).await;
    for table in ["knowledge_vectors", "knowledge_chunks"] {
        fleet
            .env
            .execute_all(&format!("VACUUM ANALYZE chat.{table}"))
            .await;
    }
    let mut tx = fleet
        .env
        .db(shared::store::ServingRole::Worker)
        .user(fleet.user)
        .await
        .unwrap();
    words::recount(&mut tx, "default").await.unwrap();
    tx.commit().await.unwrap();
}

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0
}

/// Milliseconds of whole searches and of their vector legs: medians and 95th percentiles.
async fn measure(fleet: &Fleet, what: &str, entries: u32) {
    let vocabularies = Vocabularies::default();
    let (mut whole, mut legs) = (Vec::new(), Vec::new());
    for number in 0..SEARCHES {
        let entry = number * 7919 % entries;
        let question = format!("gagal kode{entry} langkah{} tidak bisa simpan", entry % 97);
        let vector: Vec<f32> = (1..=DIMENSION)
            .map(|place| (f64::from(number) * 0.37 * place as f64).sin() as f32)
            .collect();
        let mut tx = fleet.api.user(fleet.user).await.unwrap();
        let profile = profiles::active(&mut tx).await.unwrap().unwrap();
        let began = Instant::now();
        let found = search(
            &mut tx,
            &vocabularies,
            "default",
            &question,
            Some((&profile, &vector)),
            5,
        )
        .await
        .unwrap();
        whole.push(began.elapsed());
        assert!(!found.results.is_empty());
        let began = Instant::now();
        let leg = shared::store::knowledge::search::by_vector(
            &mut tx, profile.id, "default", &vector, 50,
        )
        .await
        .unwrap();
        legs.push(began.elapsed());
        assert_eq!(leg.len(), 50);
    }
    // The first of each made the plans.
    let (whole, legs) = (&mut whole[1..], &mut legs[1..]);
    println!(
        "{what}, {entries} texts of {DIMENSION}: whole search p50 {:.1} ms, p95 {:.1} ms; vectors alone p50 {:.1} ms, p95 {:.1} ms",
        percentile(whole, 50),
        percentile(whole, 95),
        percentile(legs, 50),
        percentile(legs, 95),
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo xtask eval --speed"]
async fn how_long_a_search_takes() {
    let fleet = Fleet::new().await;
    fleet
        .env
        .execute(&format!(
            "INSERT INTO chat.knowledge_profiles (id, provider, model, dimension, state, activated_at)
             VALUES (gen_random_uuid(), 'none', 'none', {DIMENSION}, 'active', now())"
        ))
        .await;
    fill(&fleet, 0, 10_000).await;
    measure(&fleet, "Exact", 10_000).await;
    fill(&fleet, 10_000, 30_000).await;
    measure(&fleet, "Exact", 30_000).await;
    let rules = IndexRules {
        from_texts: 30_000,
        memory_mib: 512,
    };
    let began = Instant::now();
    let changed = indexes::arrange(&fleet.env.db_config(), rules, Which::Serving).await;
    println!(
        "Index of 30000 texts: {:?} in {:.0} s",
        changed.unwrap(),
        began.elapsed().as_secs_f64()
    );
    measure(&fleet, "By index", 30_000).await;
}
