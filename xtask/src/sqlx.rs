//! `cargo xtask sqlx`: makes the `.sqlx` folder (what the `query!` macros know about each
//! statement, so that a build needs no database) from the migrations, or checks it.
//!
//! It does what `cargo sqlx prepare` does, without an installed sqlx-cli and without a database
//! that somebody has to have: the API itself cannot migrate here, it needs `.sqlx` to compile.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    cargo, clock,
    files::{make_dir, remove_dir},
    instance::Instance,
    process,
    project::{Project, ServersHome},
    servers::{Postgres, Servers, Wanted},
    services, ui,
};

const DATABASE: &str = "balas";

/// What `cargo xtask sqlx` was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// Compare only; fail when `.sqlx` is not what the sources and migrations give.
    pub(crate) check: bool,
    /// Compile everything, not `shared` alone: with the same dependencies as clippy in CI, which then
    /// finds them compiled.
    pub(crate) workspace: bool,
    /// Leave the migrated database running and print its URL.
    pub(crate) keep: bool,
}

/// Runs the command.
pub(crate) fn run(project: &Project, options: Options) -> anyhow::Result<()> {
    let home = ServersHome::open(project)?;
    let instance = Instance::passing(project, &home, "sqlx", false)?;
    let wanted = Wanted {
        postgres: true,
        redis: false,
        rabbitmq: false,
    };
    let mut servers = Servers::start(project, &home, instance, wanted)?;
    let Some(postgres) = servers.postgres.as_ref() else {
        bail!("Postgres was not started");
    };
    postgres.ensure_database(&project.interrupt, DATABASE)?;
    migrate(project, postgres)?;
    let url = postgres.url(DATABASE);
    if options.keep {
        ui::result(&format!("DATABASE_URL={url}"));
    }
    let fresh = servers.instance.dir.join("queries");
    let outcome = describe_queries(project, &url, &fresh, options.workspace)
        .and_then(|()| settle(&project.root.join(".sqlx"), &fresh, options.check));
    if options.keep {
        if let Err(error) = &outcome {
            ui::error(&format!("{error:#}"));
        }
        ui::progress("Keeping", "the migrated database until Ctrl-C");
        return services::hold(project, &mut servers);
    }
    outcome
}

/// Applies the bootstrap and the migrations in the order of their names, as `balas-api migrate` does.
fn migrate(project: &Project, postgres: &Postgres) -> anyhow::Result<()> {
    let dir = project.root.join("migrations");
    let (bootstrap, numbered) = migration_files(&dir)?;
    ui::progress("Migrating", &format!("{} files", numbered.len()));
    if let Some(file) = bootstrap {
        apply(project, postgres, None, &file)?;
    }
    for file in numbered {
        apply(project, postgres, Some("set role balas_owner"), &file)?;
    }
    Ok(())
}

fn apply(
    project: &Project,
    postgres: &Postgres,
    before: Option<&str>,
    file: &Path,
) -> anyhow::Result<()> {
    postgres
        .sql_file(&project.interrupt, DATABASE, before, file)
        .with_context(|| format!("cannot apply {}", file.display()))
}

/// `bootstrap.sql` (roles; as superuser), and the numbered migrations (as the owner).
fn migration_files(dir: &Path) -> anyhow::Result<(Option<PathBuf>, Vec<PathBuf>)> {
    let mut numbered = Vec::new();
    let mut bootstrap = None;
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "bootstrap.sql" {
            bootstrap = Some(entry.path());
        } else if name.ends_with(".sql")
            && !name.ends_with(".down.sql")
            && name.starts_with(|first: char| first.is_ascii_digit())
        {
            numbered.push(entry.path());
        }
    }
    numbered.sort();
    Ok((bootstrap, numbered))
}

/// Compiles `shared` against the database; its macros write one file per statement.
fn describe_queries(
    project: &Project,
    url: &str,
    fresh: &Path,
    workspace: bool,
) -> anyhow::Result<()> {
    let scratch = fresh.with_extension("tmp");
    for dir in [fresh, &scratch] {
        remove_dir(dir)?;
        make_dir(dir, 0o755)?;
    }
    // The macros read the environment behind the compiler's back, so cargo must be told that the
    // crate has changed. sqlx-cli does the same.
    let entry = project.root.join("shared/src/lib.rs");
    File::options()
        .append(true)
        .open(&entry)
        .and_then(|file| file.set_modified(clock::now()))
        .with_context(|| format!("cannot touch {}", entry.display()))?;
    let mut check = Command::new(cargo::program(project));
    check
        .current_dir(&project.root)
        .arg("check")
        .args(if workspace {
            &["--workspace"][..]
        } else {
            &["--package", "shared", "--features", "testing"]
        })
        .arg("--all-targets")
        .env("DATABASE_URL", url)
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", fresh)
        .env("SQLX_TMP", &scratch);
    cargo::clean_env(&mut check);
    let status = process::run(&mut check, &project.interrupt)?;
    if !status.success() {
        bail!("the statements of `shared` do not compile against the migrated database");
    }
    Ok(())
}

/// Puts the fresh files in place, or only compares.
fn settle(committed: &Path, fresh: &Path, check: bool) -> anyhow::Result<()> {
    let (old, new) = (query_files(committed)?, query_files(fresh)?);
    let missing = new.keys().filter(|name| !old.contains_key(*name)).count();
    let unused = old.keys().filter(|name| !new.contains_key(*name)).count();
    let changed = new
        .iter()
        .filter(|(name, content)| old.get(*name).is_some_and(|before| before != *content))
        .count();
    let summary = format!(
        "{} statements: {missing} new, {changed} changed, {unused} gone",
        new.len()
    );
    if check {
        if missing + unused + changed > 0 {
            bail!(
                "`.sqlx` is out of date ({summary}): run `cargo xtask sqlx` and commit the folder"
            );
        }
        ui::progress(
            "Checked",
            &format!("`.sqlx` is what the sources give: {} statements", new.len()),
        );
        return Ok(());
    }
    if !new.is_empty() {
        make_dir(committed, 0o755)?;
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        let path = committed.join(name);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    for (name, content) in &new {
        if old.get(name) != Some(content) {
            let path = committed.join(name);
            fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    ui::progress("Wrote", &format!("`.sqlx`, {summary}"));
    Ok(())
}

/// The `query-*.json` files of a folder; none when there is no folder.
fn query_files(dir: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", dir.display()));
        }
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("query-") && name.ends_with(".json") {
            let path = entry.path();
            let content =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(name, content);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_run_in_order_and_other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "20260102000000_b.sql",
            "20260101000000_a.sql",
            "20260101000000_a.down.sql",
            "bootstrap.sql",
            "template.sql",
            "README.md",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let (bootstrap, numbered) = migration_files(dir.path()).unwrap();
        assert_eq!(bootstrap, Some(dir.path().join("bootstrap.sql")));
        let names: Vec<_> = numbered
            .iter()
            .map(|path| path.file_name().unwrap())
            .collect();
        assert_eq!(names, ["20260101000000_a.sql", "20260102000000_b.sql"]);
    }

    #[test]
    fn drift_of_every_kind_is_found_and_then_settled() {
        let root = tempfile::tempdir().unwrap();
        let (committed, fresh) = (root.path().join(".sqlx"), root.path().join("fresh"));
        fs::create_dir(&committed).unwrap();
        fs::create_dir(&fresh).unwrap();
        fs::write(committed.join("query-same.json"), "1").unwrap();
        fs::write(committed.join("query-changed.json"), "1").unwrap();
        fs::write(committed.join("query-gone.json"), "1").unwrap();
        fs::write(committed.join("notes.txt"), "kept").unwrap();
        fs::write(fresh.join("query-same.json"), "1").unwrap();
        fs::write(fresh.join("query-changed.json"), "2").unwrap();
        fs::write(fresh.join("query-new.json"), "3").unwrap();

        let drift = settle(&committed, &fresh, true).unwrap_err().to_string();
        assert!(
            drift.contains("3 statements: 1 new, 1 changed, 1 gone"),
            "{drift}"
        );
        settle(&committed, &fresh, false).unwrap();
        settle(&committed, &fresh, true).unwrap();
        assert!(!committed.join("query-gone.json").exists());
        assert!(committed.join("notes.txt").exists());
    }
}
