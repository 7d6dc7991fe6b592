//! The names of metrics in a query.

use shared::metrics;

/// Words of the language that stand where a name could.
const WORDS: &[&str] = &[
    "and",
    "or",
    "unless",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "bool",
    "sum",
    "max",
    "min",
    "avg",
    "count",
];
/// What other exporters show: Prometheus itself, and CloudNativePG.
const OTHERS: &[&str] = &["up", "cnpg_pg_replication_lag"];
/// What each process shows of itself.
const OF_THE_PROCESS: &[&str] = &[
    "process_cpu_seconds_total",
    "process_open_fds",
    "process_max_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
];

/// The metrics that a query asks for.
pub(crate) fn names(query: &str) -> Vec<String> {
    let bare = without_labels(query);
    let mut names = Vec::new();
    let mut rest = bare.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        let word_and_rest = &rest[start..];
        let end = word_and_rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
            .unwrap_or(word_and_rest.len());
        let (word, after) = word_and_rest.split_at(end);
        // 1e6, 5m.
        let is_number = rest[..start].ends_with(|c: char| c.is_ascii_digit());
        let is_function = after.trim_start().starts_with('(');
        if !is_number && !is_function && !WORDS.contains(&word) {
            names.push(word.to_owned());
        }
        rest = after;
    }
    names
}

/// Takes out `{…}`, `[…]`, and the labels of `by (…)` and its like.
fn without_labels(query: &str) -> String {
    let mut bare = query.to_owned();
    for (open, close) in [("{", '}'), ("[", ']')] {
        while let Some(start) = bare.find(open) {
            let end = bare[start..].find(close).unwrap() + start;
            bare.replace_range(start..=end, " ");
        }
    }
    for word in ["by (", "on (", "without (", "ignoring ("] {
        while let Some(start) = bare.find(word) {
            let end = bare[start..].find(')').unwrap() + start;
            bare.replace_range(start..=end, " ");
        }
    }
    bare
}

/// Whether some process shows it.
pub(crate) fn is_shown(name: &str) -> bool {
    let base = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| name.strip_suffix(end))
        .unwrap_or(name);
    [metrics::ALL, OTHERS, OF_THE_PROCESS]
        .iter()
        .any(|known| known.contains(&name) || known.contains(&base))
}

#[test]
fn names_are_found_in_queries() {
    let of = |query| names(query).join(" ");
    assert_eq!(
        of(r#"sum by (le, model) (rate(a_bucket{x="y(",z=~"b{2"}[5m])) > 1e6"#),
        "a_bucket"
    );
    assert_eq!(
        of("max(a) == 0 unless on (instance) b_total offset 1h"),
        "a b_total"
    );
    assert_eq!(of("time() - c < 300 and d / 2"), "c d");
    assert!(is_shown("generation_pickup_seconds_bucket") && !is_shown("generation_pickups"));
}
