//! A private Postgres: starting, asking and stopping it.

mod data;
mod programs;

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;

use self::data::Data;
pub(crate) use self::programs::Programs;
use super::{READY_WITHIN, server_command};
use crate::{
    instance::Instance,
    interrupt::Interrupt,
    ports,
    process::{self, Service},
    project::{Project, ServersHome},
    ui,
};

/// A running private Postgres. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Postgres {
    service: Service,
    programs: Programs,
    port: u16,
    password: String,
    durable: bool,
    recipe: String,
}

impl Postgres {
    /// Starts it on the instance's data, made from the template the first time.
    pub(crate) fn start(
        project: &Project,
        home: &ServersHome,
        instance: &Instance,
        programs: Programs,
    ) -> anyhow::Result<Self> {
        let data = Data::open(project, home, instance, &programs)?;
        ui::progress("Starting", &programs.describe());
        let log = project.fresh_log(&format!("{}-postgres", instance.name));
        let port_file = instance.dir.join("postgres.port");
        let mut port = ports::remembered(&port_file)?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let mut command = server_command(&programs.bin.join("postgres"), home, &instance.dir);
            command.arg("-D").arg(&data.dir);
            for setting in settings(port, instance.durable) {
                command.arg("-c").arg(setting);
            }
            let recipe = super::recipe(&command, home);
            let mut postgres = Self {
                service: Service::spawn("Postgres", command, &log, &instance.ledger)?,
                programs: programs.clone(),
                port,
                password: data.password.clone(),
                durable: instance.durable,
                recipe,
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

    /// The folder of its programs, and `uid:gid` (or `-`) of the user who may run them.
    pub(crate) fn bin_and_user(&self) -> (String, String) {
        let user = self.recipe.lines().next().unwrap_or("-");
        (self.programs.bin.display().to_string(), user.to_owned())
    }

    /// What it takes to start it again; see [`super::recipe`].
    pub(crate) fn recipe(&self) -> &str {
        &self.recipe
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
        // As `migrate` does: the first line of a migration may ask for none.
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        if !text.starts_with("-- no-transaction") {
            psql.arg("--single-transaction");
        }
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

    /// Stops it: cleanly for durable data, at once otherwise.
    pub(crate) fn stop(&mut self) {
        if self.durable {
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
fn settings(port: u16, durable: bool) -> Vec<String> {
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
    if durable {
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

#[cfg(test)]
mod tests {
    use super::*;

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
