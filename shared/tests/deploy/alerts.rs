//! Alerts fire when they should, and each has an entry in the runbook.

use std::process::Command;

use crate::{program, promql, read};

const ALERTS: &str = "k8s/monitoring/alerts.yaml";
const TESTS: &str = "k8s/monitoring/alerts.test.yaml";

struct Alert {
    name: String,
    expr: String,
    text: String,
}

/// The alerts of the file, read by its own layout.
fn alerts() -> Vec<Alert> {
    let text = read(ALERTS);
    let (_, rules) = text.split_once("\nspec:\n").unwrap();
    let parts = rules.split("- alert: ").skip(1);
    let alerts = parts.map(|part| {
        let (_, after) = part.split_once("expr: ").unwrap();
        let end = ["\n          for:", "\n          labels:"]
            .iter()
            .filter_map(|next| after.find(next))
            .min()
            .unwrap();
        Alert {
            name: part.lines().next().unwrap().trim().to_owned(),
            expr: after[..end].trim_start_matches('|').trim().to_owned(),
            text: part.to_owned(),
        }
    });
    alerts.collect()
}

#[test]
fn every_alert_asks_for_what_is_shown_and_is_tested() {
    let (alerts, tests) = (alerts(), read(TESTS));
    assert!(alerts.len() >= 10, "{}", alerts.len());
    for alert in &alerts {
        let names = promql::names(&alert.expr);
        assert!(!names.is_empty(), "{}", alert.name);
        for name in names {
            assert!(promql::is_shown(&name), "{} asks for {name}", alert.name);
        }
        assert!(alert.text.contains("severity: "), "{}", alert.name);
        let fires = format!("alertname: {}\n        exp_alerts:\n", alert.name);
        assert!(
            tests.contains(&fires),
            "no test in {TESTS} makes {} fire",
            alert.name
        );
    }
}

#[test]
fn every_alert_has_an_entry_in_the_runbook_and_every_entry_an_alert() {
    let runbook = read("docs/runbook.md");
    let alerts = alerts();
    for alert in &alerts {
        let link = format!(
            "runbook_url: docs/runbook.md#{}\n",
            alert.name.to_lowercase()
        );
        assert!(alert.text.contains(&link), "{} has no {link}", alert.name);
        let heading = format!("\n### {}\n", alert.name);
        let (_, entry) = runbook
            .split_once(&heading)
            .unwrap_or_else(|| panic!("docs/runbook.md has no entry for {}", alert.name));
        let entry = entry.split("\n### ").next().unwrap();
        for part in ["**Means:**", "**Look at:**", "**Do:**"] {
            assert!(
                entry.contains(part),
                "{}: the runbook does not say {part}",
                alert.name
            );
        }
    }
    let entries = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### Balas"));
    for entry in entries {
        let name = format!("Balas{entry}");
        assert!(
            alerts.iter().any(|alert| alert.name == name),
            "{name} is no alert"
        );
    }
}

#[test]
fn alerts_fire_when_they_should() {
    let Some(promtool) = program("TEST_PROMTOOL") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let text = read(ALERTS);
    let (_, spec) = text.split_once("\nspec:\n").unwrap();
    let rules: String = spec
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line)))
        .collect();
    std::fs::write(dir.path().join("rules.yaml"), rules).unwrap();
    std::fs::write(dir.path().join("tests.yaml"), read(TESTS)).unwrap();
    for arguments in [
        ["check", "rules", "rules.yaml"],
        ["test", "rules", "tests.yaml"],
    ] {
        let said = Command::new(&promtool)
            .args(arguments)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let text = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(
            said.status.success() && !text.contains("WARN"),
            "{arguments:?}: {text}"
        );
    }
}
