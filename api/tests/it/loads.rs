//! The load driver's scenarios with small numbers, against the real thing: what they measure is there, and what
//! they say of the messages is true.

use std::path::{Path, PathBuf};

use clap::Parser as _;
use loadtest::driver::{Arguments, Command, Compare, Record, Report, Verdict, compare, run};
use shared::config::Vars;
use uuid::Uuid;

use crate::browser::Browser;
use crate::common::{JWT_SECRET, TestApp};

/// A folder that goes when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("balas-load-{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn drive(app: &TestApp, arguments: &[&str]) -> (Report, Record) {
    let simulator = app.simulator.origin();
    let common = [
        "loadtest",
        "--quiet",
        "--api",
        &app.api.url,
        "--simulator",
        &simulator,
        "--jwt-secret",
        JWT_SECRET,
        "--connections",
        "8",
    ];
    let line = common.iter().chain(arguments);
    let arguments = Arguments::try_parse_from(line).unwrap();
    let Command::Load(scenario) = &arguments.command else {
        panic!("this puts no load on");
    };
    let mut report = run(&arguments.common, scenario).await.unwrap();
    let record = report.record.take().expect("a shape leaves a record");
    // Whatever the scenario: nothing was lost, and nothing made twice.
    let counts = record.counts;
    assert!(counts.sent > 0, "{report}");
    assert_eq!(
        (counts.sent, counts.failed, counts.unfinished),
        (counts.completed, 0, 0),
        "{report}"
    );
    assert_eq!(
        figure(&record, "messages the model was called for more"),
        "0"
    );
    let replies = "SELECT count(*) FROM chat.messages WHERE sender_type = 'assistant'";
    let stored = app.env.value(replies).await.unwrap();
    assert_eq!(stored, counts.completed.to_string());
    for key in ["accept", "first-text", "reply"] {
        let curve = record.curve(key).unwrap();
        assert!(
            curve.summary.count > 0 && curve.summary.p50 > 0.0,
            "{report}"
        );
        let counted: u64 = curve.over_time.iter().map(|bucket| bucket.count).sum();
        assert!(counted >= curve.summary.count, "{key}");
    }
    let come: f64 = record
        .rates
        .iter()
        .map(|rate| rate.completed * record.bucket_seconds)
        .sum();
    assert!((come - counts.completed as f64).abs() < 1e-6, "{come}");
    (report, record)
}

fn figure<'a>(record: &'a Record, name: &str) -> &'a str {
    let found = record
        .figures
        .iter()
        .find(|(figure, _)| figure.starts_with(name));
    &found.unwrap_or_else(|| panic!("no {name}")).1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_steady_run_leaves_a_page_and_is_no_worse_than_itself() {
    let app = TestApp::new().await;
    let (_, mut record) = drive(
        &app,
        &[
            "steady",
            "--rate",
            "12",
            "--seconds",
            "3",
            "--warm-up",
            "0",
            "--users",
            "20",
            "--marker",
            "ttft=50,rate=200,tokens=10",
        ],
    )
    .await;
    record.conditions = vec![("cores <&>".to_owned(), "2".to_owned())];
    let folder = Folder::new();
    let path = |name: &str| folder.0.join(name);
    record.save(&path("before")).unwrap();
    assert_eq!(Record::load(&path("before.json")).unwrap(), record);

    // Twice as slow, and one in ten is lost.
    let mut slow = record.clone();
    for curve in &mut slow.curves {
        curve.summary.p50 *= 2.0;
        curve
            .over_time
            .iter_mut()
            .for_each(|bucket| bucket.p99 *= 2.0);
    }
    slow.counts.unfinished = slow.counts.sent / 10;
    slow.save(&path("after")).unwrap();
    let judged = |before: &str, after: &str| {
        compare(&Compare {
            before: path(before),
            after: path(after),
            tolerance: 15.0,
            floor: 5.0,
            html: Some(path("both")),
        })
    };
    assert_eq!(
        judged("before.json", "before.json").unwrap().verdict(),
        Verdict::Same
    );
    let worse = judged("before.json", "after.json").unwrap();
    assert_eq!(worse.verdict(), Verdict::Worse, "{worse}");
    let is_worse = |name: &str| {
        let row = worse
            .rows
            .iter()
            .find(|row| row.name.starts_with(name))
            .unwrap();
        row.verdict == Some(Verdict::Worse)
    };
    assert!(is_worse("POST to whole reply, p50") && is_worse("failed or unfinished"));
    let mut other = record.clone();
    other.scenario = "ramp".to_owned();
    other.save(&path("other")).unwrap();
    let refused = judged("before.json", "other.json").unwrap_err();
    assert!(refused.to_string().contains("not the same"), "{refused}");

    shows(
        &path("before.html"),
        &["POST to whole reply", "Messages per second", "cores <&>"],
        6,
    )
    .await;
    shows(
        &path("both.html"),
        &["The second run was: worse", "Latency by percentile"],
        4,
    )
    .await;
}

/// The page, opened in a browser from a file, needs nothing else and has its charts.
async fn shows(page: &Path, texts: &[&str], charts: u64) {
    let Some(mut browser) = Browser::start(1000, 1400).await else {
        return;
    };
    browser.open(&format!("file://{}", page.display())).await;
    for text in texts {
        let text = serde_json::to_string(text).unwrap();
        browser
            .wait(&format!("document.body.textContent.includes({text})"))
            .await;
    }
    let drawn = browser
        .value("[...document.querySelectorAll('svg.chart')].filter(c => c.querySelector('polyline').getBoundingClientRect().width > 100).length")
        .await;
    assert!(drawn.as_u64().unwrap() >= charts, "{drawn}");
    let fetched = browser
        .value("performance.getEntriesByType('resource').length")
        .await;
    assert_eq!(fetched, 0, "the page fetches something");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ramp_says_up_to_where_it_was_held() {
    let app = TestApp::new().await;
    let (_, record) = drive(
        &app,
        &[
            "ramp",
            "--from",
            "2",
            "--rate",
            "16",
            "--seconds",
            "4",
            "--within",
            "60000",
            "--users",
            "30",
            "--marker",
            "ttft=20,rate=0,tokens=5",
        ],
    )
    .await;
    // Nobody waits for a minute here, so all of it was.
    let held = figure(&record, "highest rate held");
    let rate: f64 = held.trim_end_matches(" messages/s").parse().unwrap();
    assert!((12.0..=16.0).contains(&rate), "{held}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_worked_off() {
    let app = TestApp::new().await;
    let (_, record) = drive(
        &app,
        &[
            "burst",
            "--rate",
            "3",
            "--seconds",
            "4",
            "--size",
            "25",
            "--every",
            "4",
            "--users",
            "40",
            "--marker",
            "ttft=30,rate=0,tokens=5",
        ],
    )
    .await;
    assert!(figure(&record, "burst 1 worked off after").ends_with(" s"));
    assert_eq!(record.marks.len(), 1);
    let inside = |at: f64| (record.marks[0].from - 0.3..record.marks[0].until).contains(&at);
    let planned = record.rates.iter().filter(|rate| inside(rate.at));
    assert!(planned.map(|rate| rate.planned).fold(0.0, f64::max) > 50.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_comes_back_after_a_storm_and_has_missed_nothing() {
    let app = TestApp::new().await;
    let (_, record) = drive(
        &app,
        &[
            "reconnect-storm",
            "--rate",
            "10",
            "--seconds",
            "4",
            "--storms",
            "2",
            "--warm-up",
            "0",
            "--users",
            "15",
            "--marker",
            "ttft=200,rate=20,tokens=20",
        ],
    )
    .await;
    // Every socket, both times; and `drive` has seen that every reply was heard of.
    assert_eq!(figure(&record, "sockets cut"), "30");
    assert_eq!(figure(&record, "sockets that came back"), "30");
    assert_eq!(record.curve("return").unwrap().summary.count, 30);
    assert_eq!(record.marks.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_streams_tell_the_text_that_is_stored() {
    let app = TestApp::new().await;
    let (_, record) = drive(
        &app,
        &[
            "long-streams",
            "--rate",
            "3",
            "--seconds",
            "3",
            "--warm-up",
            "0",
            "--users",
            "9",
            "--marker",
            "ttft=50,rate=60,tokens=120",
        ],
    )
    .await;
    assert_eq!(figure(&record, "replies whose streamed text was not"), "0");
    let gap = record.curve("gap").unwrap().summary;
    let reply = record.curve("reply").unwrap().summary;
    // Two seconds of text came in many pieces.
    assert!(
        gap.count > 0 && gap.p50 > 0.0 && gap.p50 < reply.p50 / 2.0,
        "{gap:?} {reply:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_of_a_noisy_neighbour_are_measured_apart() {
    let app = TestApp::new().await;
    let (_, record) = drive(
        &app,
        &[
            "noisy-neighbour",
            "--rate",
            "5",
            "--seconds",
            "6",
            "--noise",
            "15",
            "--neighbour-conversations",
            "10",
            "--warm-up",
            "0",
            "--users",
            "10",
            "--arrivals",
            "even",
            "--marker",
            "ttft=30,rate=0,tokens=5",
        ],
    )
    .await;
    let count = |key: &str| record.curve(key).unwrap().summary.count;
    assert_eq!(
        (
            count("reply-before"),
            count("reply-noise"),
            count("reply-after")
        ),
        (10, 10, 10)
    );
    assert_eq!((count("reply-neighbour"), count("reply")), (30, 30));
    assert!(figure(&record, "others' 99th percentile in the noise").ends_with(" ×"));
}

/// What k6 would do, done by node with the few functions of k6 that the script imports.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_scenario_for_k6_runs() {
    let node = Vars::from_process().optional::<String>("TEST_NODE", "set by cargo xtask test");
    let Some(node) = node else { return };
    let loadtest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../loadtest");
    let script = loadtest.join("k6/steady.js");
    // Node takes it for a module by its name, as k6 does anyway.
    let folder = Folder::new();
    let module = folder.0.join("steady.mjs");
    std::fs::copy(&script, &module).unwrap();
    let mut check = tokio::process::Command::new(&node);
    let checked = check.arg("--check").arg(&module).output().await.unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );

    let app = TestApp::new().await;
    let ran = tokio::process::Command::new(&node)
        .arg(loadtest.join("tests/k6/run.mjs"))
        .args([&script, Path::new("5")])
        .env("BALAS_URL", &app.api.url)
        .env("JWT_SECRET", JWT_SECRET)
        .env("USERS", "2")
        .env("MARKER", "ttft=30,rate=0,tokens=5")
        .env_remove("NODE_OPTIONS")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let said: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(
        said["metrics"]["balas_reply"].as_array().unwrap().len(),
        5,
        "{said}"
    );
    assert_eq!(
        said["metrics"]["balas_completed"],
        serde_json::json!([1, 1, 1, 1, 1])
    );
    assert_eq!(said["metrics"]["balas_lost"], serde_json::json!([]));
    assert_eq!(said["checks"]["accepted with 202"]["passes"], 5);
    assert_eq!(said["requests"]["create_conversation"], 2);
    assert_eq!(
        said["options"]["scenarios"]["steady"]["executor"],
        "constant-arrival-rate"
    );
    let stored = app
        .env
        .value("SELECT count(*) FROM chat.messages WHERE sender_type = 'assistant'");
    assert_eq!(stored.await.as_deref(), Some("5"));
}
