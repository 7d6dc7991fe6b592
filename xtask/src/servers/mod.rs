//! The private servers: where their programs come from, how they are started and stopped.

pub(crate) mod apt;
pub(crate) mod postgres;
pub(crate) mod rabbit;
pub(crate) mod valkey;
pub(crate) mod wheels;

use std::{fs, os::unix::process::CommandExt as _, path::Path, process::Command, time::Duration};

use crate::{
    files::write_private,
    instance::Instance,
    project::{Project, ServersHome},
    ui,
};

pub(crate) use self::{postgres::Postgres, rabbit::Rabbit, valkey::Valkey};

/// How long a server may take to answer for the first time. Starting takes well under a second;
/// recovery after a crash on a slow disk takes longer.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// The database that [`Servers::urls`] names.
const DATABASE: &str = "balas";

/// Which servers to start; the others are somebody else's, named by a variable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) postgres: bool,
    pub(crate) redis: bool,
    pub(crate) rabbitmq: bool,
}

/// Running servers. Dropping it stops them and then frees the instance (fields drop in order).
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) postgres: Option<Postgres>,
    pub(crate) redis: Option<Valkey>,
    pub(crate) rabbitmq: Option<Rabbit>,
    pub(crate) instance: Instance,
}

impl Servers {
    /// Obtains and starts what is wanted.
    pub(crate) fn start(
        project: &Project,
        home: &ServersHome,
        instance: Instance,
        wanted: Wanted,
    ) -> anyhow::Result<Self> {
        let mut servers = Self {
            postgres: None,
            redis: None,
            rabbitmq: None,
            instance,
        };
        // All programs are fetched before anything runs, so that a missing one is known at once.
        let postgres = wanted
            .postgres
            .then(|| postgres::Programs::find(project, home))
            .transpose()?;
        let redis = wanted
            .redis
            .then(|| valkey::Program::find(project, home))
            .transpose()?;
        let rabbitmq = wanted
            .rabbitmq
            .then(|| rabbit::Programs::find(project))
            .transpose()?;
        if let Some(programs) = postgres {
            let started = Postgres::start(project, home, &servers.instance, programs)?;
            servers.postgres = Some(started);
        }
        if let Some(program) = redis {
            servers.redis = Some(Valkey::start(project, home, &servers.instance, &program)?);
        }
        if let Some(programs) = rabbitmq {
            servers.rabbitmq = Some(Rabbit::start(project, home, &servers.instance, &programs)?);
        }
        Ok(servers)
    }

    /// The URLs of what was started, under the names of the variables that the processes read. The
    /// database is made if need be.
    pub(crate) fn urls(&self, project: &Project) -> anyhow::Result<Vec<(String, String)>> {
        let mut urls = Vec::new();
        if let Some(postgres) = &self.postgres {
            postgres.ensure_database(&project.interrupt, DATABASE)?;
            if !postgres.has_vector(&project.interrupt)? {
                ui::note("this Postgres has no pgvector: everything but the knowledge base works");
            }
            urls.push(("DATABASE_URL".to_owned(), postgres.url(DATABASE)));
        }
        if let Some(redis) = &self.redis {
            urls.push(("REDIS_URL".to_owned(), redis.url()));
        }
        if let Some(rabbitmq) = &self.rabbitmq {
            urls.push(("RABBITMQ_URL".to_owned(), rabbitmq.url()));
        }
        Ok(urls)
    }

    /// The programs of those that were started, and the user whom Postgres's have to run as.
    pub(crate) fn programs(&self) -> Vec<(String, String)> {
        let mut programs = Vec::new();
        if let Some(postgres) = &self.postgres {
            let (bin, user) = postgres.bin_and_user();
            programs.push(("TEST_POSTGRES_BIN".to_owned(), bin));
            programs.push(("TEST_POSTGRES_USER".to_owned(), user));
        }
        if let Some(redis) = &self.redis {
            programs.push(("TEST_REDIS_SERVER".to_owned(), redis.program()));
        }
        programs
    }

    /// A sentence about a server that has died, if one has.
    pub(crate) fn dead(&mut self) -> Option<String> {
        let services = [
            self.postgres.as_mut().map(Postgres::service),
            self.redis.as_mut().map(Valkey::service),
            self.rabbitmq.as_mut().map(Rabbit::service),
        ];
        services.into_iter().flatten().find_map(|service| {
            let status = service.exited()?;
            Some(format!(
                "{} {}; the last lines of {}:\n{}",
                service.name(),
                crate::process::describe_exit(status),
                service.log().display(),
                service.last_lines()
            ))
        })
    }
}

/// Everything it takes to start a server again, one thing a line: the user and group to run as (or
/// `-`), the folder to run in, the program, its arguments. For whoever has to kill and start it.
fn recipe(command: &Command, home: &ServersHome) -> String {
    let user = home
        .user
        .as_ref()
        .map_or("-".to_owned(), |user| format!("{}:{}", user.uid, user.gid));
    let dir = command.get_current_dir().unwrap_or(Path::new("."));
    let mut lines = vec![
        user,
        dir.display().to_string(),
        Path::new(command.get_program()).display().to_string(),
    ];
    lines.extend(
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    lines.join("\n")
}

/// A command that runs as the servers' user, in a folder it can enter.
fn server_command(program: &Path, home: &ServersHome, dir: &Path) -> Command {
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

/// Made once per instance, so that URLs in a person's shell stay true.
fn kept_password(file: &Path) -> anyhow::Result<String> {
    if let Ok(text) = fs::read_to_string(file)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    let password = uuid::Uuid::new_v4().simple().to_string();
    write_private(file, &password)?;
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_has_everything_in_its_own_line() {
        let mut home = ServersHome {
            dir: "/d".into(),
            user: None,
        };
        let mut command = server_command(Path::new("/bin/postgres"), &home, Path::new("/data dir"));
        command.args(["-c", "port=5"]);
        assert_eq!(
            recipe(&command, &home),
            "-\n/data dir\n/bin/postgres\n-c\nport=5"
        );
        home.user = Some(crate::project::ServerUser { uid: 7, gid: 8 });
        assert!(recipe(&command, &home).starts_with("7:8\n"));
    }

    #[test]
    fn a_password_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        let first = kept_password(&file).unwrap();
        assert_eq!(first.len(), 32);
        assert_eq!(kept_password(&file).unwrap(), first);
    }
}
