//! The dashboard asks for what is shown.

use serde_json::Value;

use crate::{promql, read};

#[test]
fn every_query_of_the_dashboard_asks_for_what_is_shown() {
    let dashboard: Value = serde_json::from_str(&read("k8s/monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut asked = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} asks for nothing");
        for target in targets {
            let names = promql::names(target["expr"].as_str().unwrap());
            assert!(!names.is_empty(), "{title}");
            for name in names {
                assert!(promql::is_shown(&name), "{title} asks for {name}");
                asked.push(name);
            }
        }
    }
    // What nobody looks at need not be measured.
    let seen_in_alerts = read("k8s/monitoring/alerts.yaml");
    let unseen: Vec<&&str> = shared::metrics::ALL
        .iter()
        .filter(|name| {
            !asked.iter().any(|asked| asked.starts_with(**name)) && !seen_in_alerts.contains(**name)
        })
        .collect();
    let known: [&str; 1] = ["generation_queue_measured_age_seconds"];
    let unseen: Vec<_> = unseen
        .into_iter()
        .filter(|name| !known.contains(name))
        .collect();
    assert!(unseen.is_empty(), "no panel and no alert shows {unseen:?}");
}

#[test]
fn panels_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(&read("k8s/monitoring/dashboard.json")).unwrap();
    let mut taken = std::collections::HashMap::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24);
                let before = taken.insert((x, y), panel["title"].clone());
                assert!(before.is_none(), "{} and {before:?}", panel["title"]);
            }
        }
    }
}
