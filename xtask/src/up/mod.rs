//! `cargo xtask up`: the whole of Balas on this machine, from one command.

mod plan;
mod supervise;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use nix::sys::signal::Signal;

use self::{plan::Plan, supervise::Supervised};
use crate::{
    cargo::{self, Profile},
    clock, http,
    instance::Instance,
    ports, process,
    project::{Project, ServersHome},
    secrets::Secrets,
    servers::Servers,
    token::{self, Claims, Role, Tier},
    ui,
};

/// How long the processes may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long api and workers may take to drain: longer than the worker's own DRAIN_GRACE of 25 s.
const DRAIN_WITHIN: Duration = Duration::from_secs(40);
/// Entries to try the help desk with.
const SAMPLE: &str = "docs/sample-desk.csv";
/// How long the token that `up` prints is good for, in seconds.
const TOKEN_TTL: u64 = 30 * 24 * 60 * 60;

/// What `cargo xtask up` was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) workers: u16,
    pub(crate) profile: Profile,
    pub(crate) build: bool,
    pub(crate) rabbitmq: bool,
    /// Load the sample of a help desk's entries.
    pub(crate) sample: bool,
    /// Run this on a fresh stack, then stop. Empty: run until Ctrl-C.
    pub(crate) command: Vec<String>,
}

/// How to reach what runs.
struct Access {
    port: u16,
    token: String,
    /// The same person as an administrator.
    admin: String,
    /// The variables of the processes.
    env: Vec<(String, String)>,
}

/// Everything that runs. Fields drop in order: the simulator outlives those who call it, the
/// servers outlive all.
struct Stack {
    /// api and workers.
    processes: Vec<Supervised>,
    simulator: Option<Supervised>,
    servers: Servers,
}

/// Runs everything until Ctrl-C, or for as long as a given command runs, whose exit code is ours.
pub(crate) fn run(project: &Project, options: &Options) -> anyhow::Result<ExitCode> {
    let plan = Plan::of(&project.env, options.rabbitmq)?;
    let home = ServersHome::open(project)?;
    let instance = if options.command.is_empty() {
        Instance::lasting(project, &home)?
    } else {
        // Durable all the same: what is measured on it has to be what production would do.
        Instance::passing(project, &home, "run", true)?
    };
    let secrets = Secrets::load(project)?;
    for name in [
        "DATABASE_URL",
        "REDIS_URL",
        "RABBITMQ_URL",
        "OPENROUTER_BASE_URL",
    ] {
        if let Some(url) = project.env.get(name) {
            ui::progress("Using", &format!("{name} {}", ui::without_password(url)));
        }
    }
    if options.build {
        cargo::build_binaries(project, options.profile)?;
    } else {
        cargo::check_built(project, options.profile)?;
    }

    let mut stack = Stack {
        processes: Vec::new(),
        simulator: None,
        servers: Servers::start(project, &home, instance, plan.wanted)?,
    };
    let outcome = stack
        .start(project, options, &plan, &secrets)
        .and_then(|access| match options.command.as_slice() {
            [] => {
                greet(project, &access, &stack);
                stack.tend(project)
            }
            [program, args @ ..] => stack.lend(project, &access, program, args),
        });
    stack.stop(project);
    outcome
}

impl Stack {
    /// Starts everything on top of the servers and says how to reach it once it is ready.
    fn start(
        &mut self,
        project: &Project,
        options: &Options,
        plan: &Plan,
        secrets: &Secrets,
    ) -> anyhow::Result<Access> {
        let bin = |name: &str| cargo::binary(project, options.profile, name);
        let mut env = self.servers.urls(project)?;
        env.push(("JWT_SECRET".to_owned(), secrets.jwt.clone()));
        env.push((
            "INTERNAL_SERVICE_KEY".to_owned(),
            secrets.service_key.clone(),
        ));
        if plan.simulator {
            env.extend(self.start_simulator(project, bin("simulator"))?);
        }
        migrate(project, bin("balas-api"), &env)?;

        let port = plan.port.choose()?;
        ui::progress("Starting", &format!("api on port {port}"));
        let mut api_env = env.clone();
        api_env.push(("PORT".to_owned(), port.to_string()));
        self.add(project, "api", bin("balas-api"), api_env)?;
        for number in 1..=options.workers {
            let name = format!("worker-{number}");
            ui::progress("Starting", &name);
            let mut worker_env = env.clone();
            worker_env.push(("WORKER_NAME".to_owned(), name.clone()));
            self.add(project, &name, bin("balas-worker"), worker_env)?;
        }
        self.wait_ready(project, port)?;
        if options.sample {
            load_sample(project, bin("balas-worker"), &env, secrets)?;
        }
        Ok(Access {
            port,
            token: token(secrets, Role::User)?,
            admin: token(secrets, Role::Admin)?,
            env,
        })
    }

    fn add(
        &mut self,
        project: &Project,
        name: &str,
        program: PathBuf,
        env: Vec<(String, String)>,
    ) -> anyhow::Result<()> {
        let log = self.fresh_log(project, name);
        let ledger = &self.servers.instance.ledger;
        self.processes
            .push(Supervised::start(name, program, env, log, ledger)?);
        Ok(())
    }

    /// The lasting stack has the plain names; another one may run beside it.
    fn fresh_log(&self, project: &Project, name: &str) -> PathBuf {
        let instance = &self.servers.instance;
        if instance.kept {
            project.fresh_log(name)
        } else {
            project.fresh_log(&format!("{}-{name}", instance.name))
        }
    }

    /// Starts the simulator and returns the variables that point the worker at it.
    fn start_simulator(
        &mut self,
        project: &Project,
        program: PathBuf,
    ) -> anyhow::Result<Vec<(String, String)>> {
        let port = ports::any_free()?;
        ui::progress(
            "Starting",
            "the model simulator (set OPENROUTER_API_KEY to talk to the real OpenRouter)",
        );
        let listen = format!("127.0.0.1:{port}");
        let env = vec![("SIMULATOR_LISTEN".to_owned(), listen)];
        let log = self.fresh_log(project, "simulator");
        let ledger = &self.servers.instance.ledger;
        let mut simulator = Supervised::start("simulator", program, env, log, ledger)?;
        let deadline = Instant::now() + READY_WITHIN;
        while !ports::answers(port) {
            project.interrupt.check()?;
            if !simulator.is_running() || Instant::now() >= deadline {
                bail!("the simulator did not start; {}", simulator.last_lines());
            }
            thread::sleep(Duration::from_millis(30));
        }
        self.simulator = Some(simulator);
        // It limits nobody unless it is told to, so nobody need keep to a limit.
        const LIMIT: &str = "FREE_MODEL_RATE_LIMIT_PER_MINUTE";
        let limit = project.env.get(LIMIT).unwrap_or("0").to_owned();
        // The same path as the real one.
        let url = format!("http://127.0.0.1:{port}/api/v1");
        let mut env = vec![
            ("OPENROUTER_BASE_URL".to_owned(), url.clone()),
            ("OPENROUTER_API_KEY".to_owned(), "simulated".to_owned()),
            (LIMIT.to_owned(), limit),
        ];
        // The help desk's vectors come from it as well, unless somebody has a provider for them.
        let given = ["NEBIUS_API_KEY", "NEBIUS_BASE_URL"];
        if given.iter().all(|name| project.env.get(name).is_none()) {
            env.push(("NEBIUS_BASE_URL".to_owned(), url));
            env.push(("NEBIUS_API_KEY".to_owned(), "simulated".to_owned()));
        }
        Ok(env)
    }

    fn wait_ready(&mut self, project: &Project, port: u16) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let answer = http::get(port, "/health/ready");
            if matches!(answer, Some((200, _))) {
                return Ok(());
            }
            project.interrupt.check()?;
            self.tend_once()?;
            if Instant::now() >= deadline {
                let said = match answer {
                    Some((status, body)) => format!("it answers {status} {}", body.trim()),
                    None => "it does not answer".to_owned(),
                };
                let api = self.processes.first().map(Supervised::last_lines);
                bail!(
                    "the api is not ready after {} s: {said}; {}",
                    READY_WITHIN.as_secs(),
                    api.unwrap_or_default()
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Looks after everything until a signal comes or something cannot be kept running.
    fn tend(&mut self, project: &Project) -> anyhow::Result<ExitCode> {
        loop {
            project.interrupt.check()?;
            self.tend_once()?;
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Looks after everything while a command uses it.
    fn lend(
        &mut self,
        project: &Project,
        access: &Access,
        program: &str,
        args: &[String],
    ) -> anyhow::Result<ExitCode> {
        ui::progress("Running", &format!("{program} {}", args.join(" ")));
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(access.env.iter().map(|(name, value)| (name, value)))
            .env("BALAS_URL", format!("http://127.0.0.1:{}", access.port))
            .env("BALAS_TOKEN", &access.token)
            .env("BALAS_ADMIN_TOKEN", &access.admin);
        let status = process::run_while(&mut command, &project.interrupt, || self.tend_once())?;
        Ok(process::exit_code(status))
    }

    fn tend_once(&mut self) -> anyhow::Result<()> {
        if let Some(died) = self.servers.dead() {
            bail!("{died}");
        }
        for process in self.processes.iter_mut().chain(&mut self.simulator) {
            process.tend()?;
        }
        Ok(())
    }

    /// Stops api and workers (they drain), then the simulator. The servers stop when they are dropped.
    fn stop(&mut self, project: &Project) {
        let names: Vec<&str> = self.processes.iter().map(Supervised::name).collect();
        if !names.is_empty() {
            ui::progress(
                "Stopping",
                &format!("{}, then the servers", names.join(", ")),
            );
        }
        stop_all(project, self.processes.iter_mut(), DRAIN_WITHIN);
        stop_all(project, self.simulator.iter_mut(), Duration::from_secs(5));
        // Dropping kills what has not obeyed.
        self.processes.clear();
        self.simulator = None;
    }
}

/// Sends SIGTERM to all of them at once and waits; a second Ctrl-C ends the waiting.
fn stop_all<'a>(
    project: &Project,
    processes: impl Iterator<Item = &'a mut Supervised>,
    within: Duration,
) {
    let mut running: Vec<&mut Supervised> = processes.collect();
    for process in &mut running {
        process.signal(Signal::SIGTERM);
    }
    let deadline = Instant::now() + within;
    loop {
        running.retain_mut(|process| process.is_running());
        if running.is_empty() {
            return;
        }
        if project.interrupt.take().is_some() || Instant::now() >= deadline {
            for process in &mut running {
                ui::note(&format!(
                    "{} did not stop in time; killing it",
                    process.name()
                ));
                process.signal(Signal::SIGKILL);
            }
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Makes or updates the tables.
pub(crate) fn migrate(
    project: &Project,
    api: PathBuf,
    env: &[(String, String)],
) -> anyhow::Result<()> {
    ui::progress("Migrating", "the database");
    let mut command = Command::new(api);
    command
        .arg("migrate")
        .envs(env.iter().map(|(name, value)| (name, value)));
    process::output(&mut command, &project.interrupt).map(|_| ())
}

/// Hands the sample of a help desk's entries to the workers; loaded again, it changes nothing.
fn load_sample(
    project: &Project,
    worker: PathBuf,
    env: &[(String, String)],
    secrets: &Secrets,
) -> anyhow::Result<()> {
    ui::progress("Loading", SAMPLE);
    let mut command = Command::new(worker);
    command
        .args(["admin", "knowledge", "ingest", "--no-wait", "--user"])
        .arg(secrets.user.to_string())
        .arg(project.root.join(SAMPLE))
        .envs(env.iter().map(|(name, value)| (name, value)));
    process::output(&mut command, &project.interrupt).map(|_| ())
}

/// A token for the user that `up` keeps.
fn token(secrets: &Secrets, role: Role) -> anyhow::Result<String> {
    let issued_at = clock::unix_seconds();
    let claims = Claims {
        user: secrets.user,
        tier: Tier::Premium,
        role,
        issued_at,
        expires_at: issued_at + TOKEN_TTL,
    };
    token::sign(&claims, &secrets.jwt)
}

/// Says what a newcomer can do now.
fn greet(project: &Project, access: &Access, stack: &Stack) {
    let workers: Vec<String> = stack
        .processes
        .iter()
        .filter(|process| process.name().starts_with("worker"))
        .map(|process| format!("{} is process {}", process.name(), process.id()))
        .collect();
    let logs = project.local.join("logs").display().to_string();
    ui::result(&greeting(access, &logs));
    if !workers.is_empty() {
        ui::result(&format!(
            "\n  {}: `kill -9` one mid-sentence and watch the reply go on.",
            workers.join(", ")
        ));
    }
    if let Some(rabbitmq) = &stack.servers.rabbitmq {
        ui::result(&format!("\n  RabbitMQ  {}", rabbitmq.url()));
    }
    ui::result("\n  Ctrl-C stops everything and keeps the data; `cargo xtask reset` deletes it.\n");
}

fn greeting(access: &Access, logs: &str) -> String {
    let Access {
        port, token, admin, ..
    } = access;
    let api = format!("http://127.0.0.1:{port}/api/chat/conversations");
    format!(
        r#"
  Console   http://127.0.0.1:{port}/#token={token}
  Knowledge http://127.0.0.1:{port}/knowledge#token={admin}
  API docs  http://127.0.0.1:{port}/docs
  Logs      {logs}

  Try it:

TOKEN={token}
ID=$(curl -sS "{api}" -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{{}}' | grep -o '"id":"[^"]*' | head -n 1 | cut -d '"' -f 4); curl -sS "{api}/$ID/messages" -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -H 'Prefer: wait=30' -d '{{"content":"Hello, who are you?"}}'"#
    )
}

#[cfg(test)]
mod tests {
    use super::{Access, greeting};

    #[test]
    fn the_greeting_names_the_port_and_the_token_everywhere() {
        let access = Access {
            port: 8099,
            token: "a.b.c".to_owned(),
            admin: "d.e.f".to_owned(),
            env: Vec::new(),
        };
        let text = greeting(&access, "/logs");
        assert!(text.contains("http://127.0.0.1:8099/knowledge#token=d.e.f"));
        assert!(text.contains("http://127.0.0.1:8099/#token=a.b.c"));
        assert!(text.contains("\nTOKEN=a.b.c\n"));
        assert!(text.contains("'Prefer: wait=30'"));
        assert!(text.contains(r#"-d '{"content":"#));
        assert!(!text.contains("8080"));
    }
}
