//! `cargo xtask chaos`: private servers and the programs, handed over to the fault suite, which kills
//! and starts all of them as it likes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};

use crate::{
    cargo::{self, Profile},
    files::{make_dir, remove_dir, write_private},
    instance::Instance,
    ports, process,
    project::{Project, ServersHome},
    secrets::Secrets,
    servers::{Servers, Wanted},
    ui, up,
};

/// What the suite starts besides the servers, and itself.
const BINARIES: [&str; 3] = ["balas-api", "balas-worker", "chaos"];

/// What `cargo xtask chaos` was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) seed: Option<u64>,
    pub(crate) minutes: f64,
    pub(crate) fault: Option<String>,
    pub(crate) crowd: Option<u32>,
    pub(crate) list: bool,
    pub(crate) profile: Profile,
    pub(crate) build: bool,
}

/// Runs the suite; its exit code is ours. The servers' data goes when this returns, the logs only
/// after a success.
pub(crate) fn run(project: &Project, options: &Options) -> anyhow::Result<ExitCode> {
    if options.build {
        cargo::build_chaos(project, options.profile)?;
    } else {
        cargo::check_binaries(project, options.profile, &BINARIES)?;
    }
    let bin = |name: &str| cargo::binary(project, options.profile, name);
    let mut command = Command::new(bin("chaos"));
    if options.list {
        let status = process::run(command.arg("--list"), &project.interrupt)?;
        return Ok(process::exit_code(status));
    }
    let home = ServersHome::open(project)?;
    // Durable: what survives a crash is part of what is tested.
    let instance = Instance::passing(project, &home, "chaos", true)?;
    let logs = project.local.join("logs").join(&instance.name);
    remove_dir(&logs)?;
    make_dir(&logs, 0o755)?;
    let handed = Handed::prepare(project, &home, instance, &bin("balas-api"))?;

    let secrets = Secrets::load(project)?;
    command
        .args(["--minutes", &options.minutes.to_string()])
        .args(options.seed.map(|seed| format!("--seed={seed}")))
        .args(options.fault.as_ref().map(|name| format!("--fault={name}")))
        .args(options.crowd.map(|crowd| format!("--crowd={crowd}")))
        .arg("--api")
        .arg(bin("balas-api"))
        .arg("--worker")
        .arg(bin("balas-worker"))
        .arg("--logs")
        .arg(&logs)
        .arg("--children")
        .arg(&handed.children)
        .arg("--postgres")
        .arg(&handed.postgres)
        .arg("--redis")
        .arg(&handed.redis)
        .envs(handed.urls.iter().map(|(name, value)| (name, value)))
        .env("JWT_SECRET", &secrets.jwt);
    let status = process::run(&mut command, &project.interrupt);
    match &status {
        Ok(status) if status.success() => remove_dir(&logs)?,
        _ => ui::note(&format!("the logs of this run are in {}", logs.display())),
    }
    Ok(process::exit_code(status?))
}

/// Servers that were prepared, stopped, and can be started by somebody else.
struct Handed {
    urls: Vec<(String, String)>,
    /// The files with the recipes.
    postgres: PathBuf,
    redis: PathBuf,
    /// Where the suite notes its children, so that a run that is cut off leaves nothing running.
    children: PathBuf,
    /// Held until the suite has ended.
    _instance: Instance,
}

impl Handed {
    /// Makes the servers' data, the database and its tables.
    fn prepare(
        project: &Project,
        home: &ServersHome,
        instance: Instance,
        api: &Path,
    ) -> anyhow::Result<Self> {
        let dir = instance.dir.clone();
        for (place, server) in [(0, "postgres"), (1, "redis")] {
            let file = dir.join(format!("{server}.port"));
            fs::write(&file, ports::kept_free(place)?.to_string())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let wanted = Wanted {
            postgres: true,
            redis: true,
            rabbitmq: false,
        };
        let mut servers = Servers::start(project, home, instance, wanted)?;
        let urls = servers.urls(project)?;
        up::migrate(project, api.to_path_buf(), &urls)?;
        let (Some(postgres), Some(redis)) = (servers.postgres.take(), servers.redis.take()) else {
            bail!("the servers were not started");
        };
        let files = (dir.join("postgres.recipe"), dir.join("redis.recipe"));
        write_private(&files.0, postgres.recipe())?;
        write_private(&files.1, redis.recipe())?;
        ui::progress("Stopping", "the servers; the suite starts them itself");
        drop((postgres, redis));
        Ok(Self {
            urls,
            postgres: files.0,
            redis: files.1,
            children: servers.instance.ledger.file().to_path_buf(),
            _instance: servers.instance,
        })
    }
}
