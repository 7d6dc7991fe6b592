//! Reading what a client says to Postgres, just well enough to see where a transaction that wrote
//! something is committed, and what it wrote.

use std::collections::HashMap;
use std::ops::{BitOr, BitOrAssign};

use super::{Mark, Point};

/// What the statements of a transaction do, as a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Writes(u8);

impl Writes {
    pub(crate) const NONE: Self = Self(0);
    /// The API takes a message in.
    pub(crate) const ACCEPT: Self = Self(1);
    /// A worker takes work.
    pub(crate) const CLAIM: Self = Self(2);
    /// A worker stores a reply.
    pub(crate) const FINISH: Self = Self(4);
    /// A worker looks for lost work.
    pub(crate) const SWEEP: Self = Self(8);
    /// Anything else that changes a row.
    pub(crate) const OTHER: Self = Self(16);

    /// Words of the store's own statements. When one of them is rewritten, its fault finds no commit
    /// any more and the suite fails for having missed it.
    fn of(sql: &str) -> Self {
        let has = |text: &str| sql.contains(text);
        if has("hashtext('balas.maintenance')") {
            Self::SWEEP
        } else if has("INSERT INTO chat.generations") && has("'reply'") && has("'user'") {
            Self::ACCEPT
        } else if has("SET status = 'in_progress'") {
            Self::CLAIM
        } else if has("INSERT INTO chat.usage_tracking") && has("'assistant'") {
            Self::FINISH
        } else if has("UPDATE chat.") || has("INSERT INTO chat.") || has("DELETE FROM chat.") {
            Self::OTHER
        } else {
            Self::NONE
        }
    }

    /// Whether any of `wanted` is among them.
    pub(crate) fn any(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }

    /// For a line of the report: the most telling one.
    pub(crate) fn name(self) -> &'static str {
        [
            (Self::ACCEPT, "accept"),
            (Self::CLAIM, "claim"),
            (Self::FINISH, "finish"),
            (Self::SWEEP, "sweep"),
        ]
        .into_iter()
        .find(|(one, _)| self.any(*one))
        .map_or("other", |(_, name)| name)
    }
}

impl BitOr for Writes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Writes {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How much of a message is kept: the longest statement of the store fits.
const KEPT: usize = 16 * 1024;

/// `SSLRequest` and `GSSENCRequest` come before the real start-up packet and look like it.
const BEFORE_STARTUP: [[u8; 4]; 2] = [80_877_103_u32.to_be_bytes(), 80_877_104_u32.to_be_bytes()];

/// Follows one connection's messages from the client.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    started: bool,
    /// The message that is being read: its first [`KEPT`] bytes, type and length included.
    message: Vec<u8>,
    /// Bytes of it that have been seen.
    seen: usize,
    statements: HashMap<Vec<u8>, Statement>,
    /// Whether a `BEGIN` is open.
    open: bool,
    /// What the open transaction has written.
    writes: Writes,
    /// A `COMMIT` is among the statements sent since the last `Sync`.
    committing: bool,
}

#[derive(Debug, Clone, Copy)]
struct Statement {
    writes: Writes,
    verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Begin,
    Commit,
    Rollback,
    Other,
}

impl Statement {
    fn of(sql: &str) -> Self {
        let first = sql
            .split(|letter: char| !letter.is_ascii_alphabetic())
            .find(|word| !word.is_empty())
            .unwrap_or_default();
        let verb = match first.to_ascii_uppercase().as_str() {
            "BEGIN" | "START" => Verb::Begin,
            "COMMIT" | "END" => Verb::Commit,
            "ROLLBACK" | "ABORT" => Verb::Rollback,
            _ => Verb::Other,
        };
        Self {
            writes: Writes::of(sql),
            verb,
        }
    }
}

impl Scanner {
    /// Reads the next bytes and says where in them something is committed.
    pub(crate) fn scan(&mut self, chunk: &[u8]) -> Vec<Mark> {
        let mut marks = Vec::new();
        let mut at = 0;
        let mut start = 0;
        while at < chunk.len() {
            if self.seen == 0 {
                start = at;
            }
            at += self.take(&chunk[at..]);
            if self.is_whole() {
                if let Some(writes) = self.finish_message() {
                    marks.push(Mark {
                        start,
                        end: at,
                        point: Point::Commit(writes),
                    });
                }
                self.message.clear();
                self.seen = 0;
            }
        }
        marks
    }

    /// Takes as many bytes as belong to the present message and returns how many.
    fn take(&mut self, rest: &[u8]) -> usize {
        let wanted = match self.length() {
            Some(length) => length - self.seen,
            None => self.head() - self.seen,
        };
        let taken = wanted.min(rest.len());
        let room = KEPT.saturating_sub(self.message.len());
        self.message.extend_from_slice(&rest[..taken.min(room)]);
        self.seen += taken;
        taken
    }

    /// Bytes before the body: the start-up packet has no type.
    fn head(&self) -> usize {
        if self.started { 5 } else { 4 }
    }

    /// The length of the whole message, once its head is there.
    fn length(&self) -> Option<usize> {
        let head = self.head();
        let length: [u8; 4] = self.message.get(head - 4..head)?.try_into().ok()?;
        let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
        // The length counts itself; a smaller one would never end.
        Some((length + head - 4).max(head))
    }

    fn is_whole(&self) -> bool {
        self.length().is_some_and(|length| self.seen >= length)
    }

    /// What the message means. `Some` when with it a transaction that wrote is committed.
    fn finish_message(&mut self) -> Option<Writes> {
        let message = std::mem::take(&mut self.message);
        if !self.started {
            let code = message.get(4..8);
            self.started = !BEFORE_STARTUP.iter().any(|other| code == Some(&other[..]));
            return None;
        }
        let (kind, body) = (message[0], message.get(5..).unwrap_or_default());
        match kind {
            b'Q' => {
                let sql = text(body).0;
                let statement = Statement::of(&sql);
                self.run(statement);
                // A simple query is its own end.
                self.sync()
            }
            b'P' => {
                let (_, rest) = text(body);
                let name = body.get(..body.len() - rest.len()).unwrap_or_default();
                let sql = text(rest).0;
                self.statements.insert(name.to_vec(), Statement::of(&sql));
                None
            }
            b'B' => {
                let (_, rest) = text(body);
                let after = text(rest).1;
                let name = rest.get(..rest.len() - after.len()).unwrap_or_default();
                if let Some(statement) = self.statements.get(name).copied() {
                    self.run(statement);
                }
                None
            }
            b'S' => self.sync(),
            _ => None,
        }
    }

    fn run(&mut self, statement: Statement) {
        self.writes |= statement.writes;
        match statement.verb {
            Verb::Begin => (self.open, self.writes) = (true, statement.writes),
            Verb::Commit => self.committing = true,
            Verb::Rollback => (self.open, self.writes) = (false, Writes::NONE),
            Verb::Other => {}
        }
    }

    /// Where Postgres commits: after `COMMIT`, or after statements that ran without `BEGIN`.
    fn sync(&mut self) -> Option<Writes> {
        let ends = self.committing || !self.open;
        if !ends {
            return None;
        }
        (self.open, self.committing) = (false, false);
        let writes = std::mem::take(&mut self.writes);
        (writes != Writes::NONE).then_some(writes)
    }
}

/// A text that ends with a zero byte, and what comes after it.
fn text(body: &[u8]) -> (String, &[u8]) {
    let end = body.iter().position(|byte| *byte == 0);
    let end = end.unwrap_or(body.len());
    let rest = body.get(end + 1..).unwrap_or_default();
    (String::from_utf8_lossy(&body[..end]).into_owned(), rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLAIM: &str =
        "WITH candidate AS (SELECT 1) UPDATE chat.generations g SET status = 'in_progress'";
    const READ: &str = "SELECT 1 FROM chat.generations";

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        message.extend(body);
        message
    }

    fn startup() -> Vec<u8> {
        let mut said = 8_u32.to_be_bytes().to_vec();
        said.extend(BEFORE_STARTUP[0]);
        said.extend(13_u32.to_be_bytes());
        said.extend(196_608_u32.to_be_bytes());
        said.extend(b"user\0");
        said
    }

    fn query(sql: &str) -> Vec<u8> {
        message(b'Q', format!("{sql}\0").as_bytes())
    }

    fn parse(name: &str, sql: &str) -> Vec<u8> {
        message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
    }

    /// Bind, execute, sync.
    fn execute(name: &str) -> Vec<u8> {
        let mut said = message(b'B', format!("\0{name}\0a parameter").as_bytes());
        said.extend(message(b'E', b"\0\0\0\0\0"));
        said.extend(message(b'S', b""));
        said
    }

    fn scan(scanner: &mut Scanner, chunk: &[u8]) -> Vec<(Writes, Vec<u8>)> {
        let marks = scanner.scan(chunk).into_iter();
        marks
            .map(|mark| match mark.point {
                Point::Commit(writes) => (writes, chunk[mark.start..mark.end].to_vec()),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn begun() -> Scanner {
        let mut scanner = Scanner::default();
        assert!(scanner.scan(&startup()).is_empty());
        scanner
    }

    #[test]
    fn a_commit_is_found_with_what_was_written() {
        let mut scanner = begun();
        let mut said = query("BEGIN; SET LOCAL app.sweep = 'on'");
        said.extend(parse("s1", CLAIM));
        said.extend(execute("s1"));
        assert!(scan(&mut scanner, &said).is_empty());
        let commit = query("COMMIT");
        assert_eq!(
            scan(&mut scanner, &commit),
            [(Writes::CLAIM, commit.clone())]
        );
        // The statement is known by its name from now on.
        let mut said = query("begin");
        said.extend(execute("s1"));
        said.extend(&commit);
        assert_eq!(scan(&mut scanner, &said), [(Writes::CLAIM, commit)]);
    }

    #[test]
    fn what_wrote_nothing_or_was_undone_is_no_commit() {
        let mut scanner = begun();
        let mut said = query("BEGIN");
        said.extend(parse("s1", READ));
        said.extend(execute("s1"));
        said.extend(query("COMMIT"));
        said.extend(query("BEGIN"));
        said.extend(parse("s2", CLAIM));
        said.extend(execute("s2"));
        said.extend(query("ROLLBACK"));
        said.extend(query("BEGIN"));
        said.extend(query("COMMIT"));
        assert!(scan(&mut scanner, &said).is_empty());
    }

    #[test]
    fn a_statement_without_begin_commits_at_its_sync_and_commit_may_be_prepared() {
        let mut scanner = begun();
        let mut said = parse("s1", CLAIM);
        said.extend(execute("s1"));
        assert_eq!(
            scan(&mut scanner, &said),
            [(Writes::CLAIM, message(b'S', b""))]
        );
        let mut said = parse("c", "COMMIT");
        said.extend(query("BEGIN"));
        said.extend(execute("s1"));
        said.extend(execute("c"));
        assert_eq!(
            scan(&mut scanner, &said),
            [(Writes::CLAIM, message(b'S', b""))]
        );
    }

    proptest! {
        /// However the bytes are cut into packets, the same commits are found.
        #[test]
        fn packets_do_not_matter(cuts in prop::collection::vec(1_usize..40, 1..60), long in 0_usize..40_000) {
            let mut said = startup();
            said.extend(query("BEGIN"));
            said.extend(parse("s1", CLAIM));
            said.extend(parse("long", &"x".repeat(long)));
            said.extend(execute("s1"));
            said.extend(query("COMMIT"));
            said.extend(execute("s1"));
            let mut scanner = Scanner::default();
            let (mut found, mut rest, mut cuts) = (0, &said[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                found += scan(&mut scanner, chunk).len();
                rest = after;
            }
            prop_assert_eq!(found, 2);
        }
    }

    /// The store's statements as they are; a rewritten one must be known here as well.
    #[test]
    fn the_stores_own_statements_are_told_apart() {
        let cache = concat!(env!("CARGO_MANIFEST_DIR"), "/../.sqlx");
        let mut counts = HashMap::new();
        for file in std::fs::read_dir(cache).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let query: serde_json::Value = serde_json::from_str(&text).unwrap();
            let writes = Writes::of(query["query"].as_str().unwrap());
            *counts.entry(writes.name()).or_insert(0) += 1;
        }
        assert_eq!(counts["accept"], 1);
        assert_eq!(counts["finish"], 2, "together and alone");
        assert_eq!(counts["claim"], 2, "by id and from the table");
        assert_eq!(counts["sweep"], 1);
    }
}
