//! `balas-worker admin knowledge`: files into the knowledge base from a terminal.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use shared::clock::Clock;
use shared::domain::{Ingestion, IngestionStatus};
use shared::id;
use shared::knowledge::{Row, Sheet};
use shared::store::knowledge::ingestions::{self, StagedRow, Understood, is_collection_name};
use shared::store::{Db, knowledge};
use uuid::Uuid;

use super::tables::{one_line, table};
use super::{Outcome, Shown};

/// Bytes read at a time, and rows of one transaction.
const BYTES: usize = 64 * 1024;
const ROWS: usize = 500;
/// How often is looked how far the workers are.
const LOOK: Duration = Duration::from_millis(500);
/// Characters of the bar, and of a file's name.
const BAR: usize = 30;
const NAME: usize = 255;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Hand CSV files to the workers and wait until their entries can be found.
    Ingest {
        /// Files, or folders whose *.csv files are meant.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// The collection that the entries belong to.
        #[arg(long, default_value = "default")]
        collection: String,
        /// The administrator in whose name what is spent is booked.
        #[arg(long, default_value_t = Uuid::nil())]
        user: Uuid,
        /// Do not wait for the workers.
        #[arg(long)]
        no_wait: bool,
    },
}

/// What the files are handed over with.
struct Hand<'a> {
    db: &'a Db,
    clock: &'a Clock,
    user: Uuid,
    collection: &'a str,
}

pub(super) async fn run(
    command: Command,
    db: &Db,
    clock: &Clock,
    shown: Shown,
) -> anyhow::Result<Outcome> {
    let Command::Ingest {
        paths,
        collection,
        user,
        no_wait,
    } = command;
    if !is_collection_name(&collection) {
        bail!("{collection:?} is no name of a collection");
    }
    let mut tx = db.user(user).await?;
    if !knowledge::is_available(&mut tx).await? {
        bail!("there is no knowledge base: install pgvector and run balas-api migrate again");
    }
    drop(tx);
    let files = files(&paths)?;
    let hand = Hand {
        db,
        clock,
        user,
        collection: &collection,
    };
    let mut ids = Vec::new();
    for file in &files {
        let id = hand.over(file).await;
        ids.push(id.with_context(|| format!("failed to use {}", file.display()))?);
    }
    let mut done = Vec::new();
    for id in ids {
        done.push(match no_wait {
            true => hand.look(id).await?,
            false => hand.follow(id).await?,
        });
    }
    let all_well = done
        .iter()
        .all(|one| !one.status.is_terminal() || one.status == IngestionStatus::Completed);
    let mut outcome = shown.outcome(&done, || listed(&done))?;
    if !all_well {
        outcome.code = ExitCode::FAILURE;
    }
    Ok(outcome)
}

/// The files that are meant, those of a folder in the order of their names.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path)
            .with_context(|| format!("failed to read the folder {}", path.display()))?;
        let mut inside = Vec::new();
        for entry in entries {
            let entry = entry?.path();
            let is_csv = entry
                .extension()
                .is_some_and(|end| end.eq_ignore_ascii_case("csv"));
            if is_csv && entry.is_file() {
                inside.push(entry);
            }
        }
        if inside.is_empty() {
            bail!("{} has no *.csv files", path.display());
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

impl Hand<'_> {
    /// Stages a file as it is read, and lets the workers have it. Nothing of a file that cannot be read stays.
    async fn over(&self, path: &Path) -> anyhow::Result<Uuid> {
        let mut file = File::open(path)?;
        let id = id::new(self.clock.now());
        let name: String = path
            .file_name()
            .map(|name| name.to_string_lossy().chars().take(NAME).collect())
            .unwrap_or_default();
        let mut tx = self.db.user(self.user).await?;
        ingestions::begin(&mut tx, id, Some(&name)).await?;
        tx.commit().await?;
        let staged = self.stage(id, &mut file).await;
        if staged.is_err() {
            let mut tx = self.db.user(self.user).await?;
            ingestions::discard(&mut tx, id).await?;
            tx.commit().await?;
        }
        staged.map(|()| id)
    }

    async fn stage(&self, id: Uuid, file: &mut File) -> anyhow::Result<()> {
        let mut sheet = Sheet::default();
        let mut buffer = vec![0; BYTES];
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            sheet.push(buffer.get(..read).unwrap_or_default())?;
            if sheet.waiting() >= ROWS {
                self.store(id, &mut sheet).await?;
            }
        }
        sheet.finish()?;
        self.store(id, &mut sheet).await?;
        let summary = sheet.preview(Vec::new(), Vec::new());
        let columns = serde_json::to_value(&summary.columns)?;
        let understood = Understood {
            encoding: Some(&summary.encoding),
            delimiter: Some(&summary.delimiter),
            columns: &columns,
            rows_read: summary.rows_read,
        };
        let mut tx = self.db.user(self.user).await?;
        if !ingestions::queue(&mut tx, id, self.collection, &understood).await? {
            bail!("it took so long that it was given up");
        }
        Ok(tx.commit().await?)
    }

    async fn store(&self, id: Uuid, sheet: &mut Sheet) -> anyhow::Result<()> {
        let (mut rows, mut skipped) = (Vec::new(), Vec::new());
        for row in sheet.take() {
            match row {
                Row::Skipped(row) => skipped.push(row),
                Row::Entry { line, text } => rows.push(StagedRow::new(line, text)),
            }
        }
        let mut tx = self.db.user(self.user).await?;
        if !ingestions::stage(&mut tx, id, &rows, &skipped).await? {
            bail!("it took so long that it was given up");
        }
        Ok(tx.commit().await?)
    }

    async fn look(&self, id: Uuid) -> anyhow::Result<Ingestion> {
        let mut tx = self.db.user(self.user).await?;
        let found = ingestions::find(&mut tx, id).await?;
        found.context("somebody removed the ingestion")
    }

    /// Waits for the end and shows how far it is, where anybody looks.
    async fn follow(&self, id: Uuid) -> anyhow::Result<Ingestion> {
        let mut terminal = std::io::stderr();
        let is_seen = terminal.is_terminal();
        loop {
            let now = self.look(id).await?;
            if is_seen {
                // The line is written over; what an earlier one had more is cleared.
                write!(terminal, "\r{}\x1b[K", bar(&now))?;
                terminal.flush()?;
            }
            if now.status.is_terminal() {
                if is_seen {
                    writeln!(terminal)?;
                }
                return Ok(now);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// How far an ingestion is, in a line.
fn bar(now: &Ingestion) -> String {
    let rows = now.rows_read - now.rows_skipped_count;
    let stored = now.documents_new + now.documents_changed + now.documents_unchanged;
    let texts = now.chunks_embedded + now.chunks_failed;
    let share = |done: i32, all: i32| match all {
        0 => 0.0,
        all => (f64::from(done) / f64::from(all)).clamp(0.0, 1.0),
    };
    let done = match now.status.is_terminal() {
        true => 1.0,
        // What embedding takes is most of it, as in the estimate.
        false => 0.1 * share(stored, rows) + 0.9 * share(texts, now.chunks_total),
    };
    let full = (done * BAR as f64).floor() as usize;
    let eta = now.eta.map(|seconds| format!(", {seconds} s left"));
    format!(
        "{} [{}{}] {:3.0} % {}: {stored}/{rows} entries, {texts}/{} texts{}",
        one_line(now.file_name.as_deref().unwrap_or("file"), 24),
        "#".repeat(full),
        "-".repeat(BAR - full),
        100.0 * done,
        now.status,
        now.chunks_total,
        eta.unwrap_or_default(),
    )
}

fn listed(done: &[Ingestion]) -> String {
    let head = [
        "ingestion",
        "file",
        "status",
        "rows",
        "new",
        "changed",
        "unchanged",
        "skipped",
        "texts",
        "tokens",
        "problem",
    ];
    let mut table = table(&head, 3..10);
    for one in done {
        table.add_row([
            one.id.to_string(),
            one_line(one.file_name.as_deref().unwrap_or(""), 40),
            one.status.to_string(),
            one.rows_read.to_string(),
            one.documents_new.to_string(),
            one.documents_changed.to_string(),
            one.documents_unchanged.to_string(),
            one.rows_skipped_count.to_string(),
            one.chunks_embedded.to_string(),
            one.tokens.to_string(),
            one_line(one.problem.as_deref().unwrap_or(""), 60),
        ]);
    }
    let mut text = table.to_string();
    for one in done {
        for row in one.rows_skipped.iter().take(10) {
            text.push_str(&format!(
                "\nline {}: {}",
                row.line,
                one_line(&row.reason, 100)
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use shared::domain::IngestionKind;
    use time::OffsetDateTime;

    use super::*;

    fn ingestion(status: IngestionStatus, stored: i32, embedded: i32) -> Ingestion {
        Ingestion {
            id: Uuid::nil(),
            kind: IngestionKind::Upload,
            status,
            collection: "default".to_owned(),
            file_name: Some("sipd.csv".to_owned()),
            encoding: None,
            delimiter: None,
            rows_read: 102,
            rows_skipped_count: 2,
            rows_skipped: Vec::new(),
            documents_new: stored,
            documents_changed: 0,
            documents_unchanged: 0,
            chunks_total: 100,
            chunks_embedded: embedded,
            chunks_failed: 0,
            tokens: 0,
            cost: None,
            problem: None,
            eta: (embedded > 0).then_some(7),
            version: 1,
            updated_at: OffsetDateTime::UNIX_EPOCH,
            created_at: OffsetDateTime::UNIX_EPOCH,
            started_at: None,
            finished_at: None,
        }
    }

    #[test]
    fn the_bar_grows_with_what_is_done() {
        let bar = |status, stored, embedded| bar(&ingestion(status, stored, embedded));
        let empty = bar(IngestionStatus::Queued, 0, 0);
        assert!(empty.contains(&"-".repeat(BAR)), "{empty}");
        let half = bar(IngestionStatus::Running, 100, 50);
        assert!(
            half.contains(" 55 % running: 100/100 entries, 50/100 texts, 7 s left"),
            "{half}"
        );
        assert_eq!(half.matches('#').count(), 16);
        let full = bar(IngestionStatus::Completed, 100, 100);
        assert_eq!(full.matches('#').count(), BAR);
    }
}
