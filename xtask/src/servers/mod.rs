//! The private servers: where their programs come from, how they are started and stopped.

pub(crate) mod apt;
pub(crate) mod postgres;
pub(crate) mod valkey;
pub(crate) mod wheels;

use std::time::Duration;

use crate::{
    instance::Instance,
    project::{Project, ServersHome},
    ui,
};

pub(crate) use self::{postgres::Postgres, valkey::Valkey};

/// How long a server may take to answer for the first time. Starting takes well under a second;
/// recovery after a crash on a slow disk takes longer.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Which servers to start; the others are somebody else's, named by a variable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) postgres: bool,
    pub(crate) redis: bool,
}

/// Running servers. Dropping it stops them and then frees the instance (fields drop in order).
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) postgres: Option<Postgres>,
    pub(crate) redis: Option<Valkey>,
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
            instance,
        };
        // Both programs are fetched before anything runs, so that a missing one is known at once.
        let postgres = wanted
            .postgres
            .then(|| postgres::Programs::find(project, home))
            .transpose()?;
        let redis = wanted
            .redis
            .then(|| valkey::Program::find(project, home))
            .transpose()?;
        if let Some(programs) = postgres {
            ui::progress("Starting", &programs.describe());
            let started = Postgres::start(project, home, &servers.instance, programs)?;
            servers.postgres = Some(started);
        }
        if let Some(program) = redis {
            ui::progress("Starting", &program.describe());
            servers.redis = Some(Valkey::start(project, home, &servers.instance, &program)?);
        }
        Ok(servers)
    }

    /// A sentence about a server that has died, if one has.
    pub(crate) fn dead(&mut self) -> Option<String> {
        let services = [
            self.postgres.as_mut().map(Postgres::service),
            self.redis.as_mut().map(Valkey::service),
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
