//! Whose clock decides: the database's. A process that hands a time to a statement hands over its own
//! clock, which may be wrong.

/// Statements that are given times, by their own words, and why they may be.
const ALLOWED: [(&str, &str); 9] = [
    (
        "call_started_at",
        "the ledger of calls notes what a worker saw; here with the reply",
    ),
    ("INSERT INTO chat.attempts", "the same, by itself"),
    (
        "FROM chat.workers WHERE name = $1 AND boot <> $2",
        "the time of a roll call is the database's own",
    ),
    ("UPDATE chat.workers SET stopped_at", "the same"),
    ("WITH left_behind", "the same"),
    (
        "u.created_at >= $",
        "a part of the calendar that somebody wants added up; the rows have the database's time",
    ),
    ("g.queued_at >= $2 AND", "the same"),
    ("FROM chat.figures f WHERE f.day BETWEEN", "the same"),
    ("AND q.asked_at >= $1 ORDER BY", "the same"),
];

/// Statements, as sqlx has described them, that are given a time and are not on the list.
pub(crate) fn given(files: &[(String, String)]) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut used = [false; ALLOWED.len()];
    let mut described = 0;
    for (path, text) in files.iter().filter(|(path, _)| path.starts_with(".sqlx/")) {
        let statement: serde_json::Value = serde_json::from_str(text).unwrap();
        let query = statement["query"].as_str().unwrap();
        described += 1;
        let parameters = statement["describe"]["parameters"].to_string();
        if !["Timestamp", "Date", "Time\""]
            .iter()
            .any(|kind| parameters.contains(kind))
        {
            continue;
        }
        let words: Vec<&str> = query.split_whitespace().collect();
        let words = words.join(" ");
        match ALLOWED.iter().position(|(sign, _)| words.contains(sign)) {
            Some(place) => used[place] = true,
            None => breaches.push(format!(
                "{path}: a statement is given a time: use now() of the database (ARCHITECTURE.md, \"One idea\"): {words}"
            )),
        }
    }
    assert!(described > 50, "the statements are not in .sqlx");
    let unused = ALLOWED.iter().zip(used).filter(|(_, used)| !used);
    breaches.extend(unused.map(|((sign, _), _)| {
        format!("no statement with {sign:?} is given a time any more: take it off the list")
    }));
    breaches
}
