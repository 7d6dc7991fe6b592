//! `cargo xtask test`: private servers, the processes that tests start, then the test runner, whose
//! summary is the last thing printed.

mod logs;
mod packages;
mod parts;
mod selection;

use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

use self::{
    parts::{Parts, Uses},
    selection::Selection,
};
use crate::{
    cargo,
    files::make_dir,
    instance::Instance,
    process,
    project::{Project, ServersHome},
    servers::{Servers, Wanted},
    ui,
};

/// Variables of the product that a person may have set in the shell. A test that picked one up
/// could write to a real database or spend real money.
const NOT_FOR_TESTS: [&str; 28] = [
    "DATABASE_URL",
    "MIGRATE_DATABASE_URL",
    "REDIS_URL",
    "REDIS_CA_FILE",
    "RABBITMQ_URL",
    "RABBITMQ_CA_FILE",
    "EXCHANGE_NAME",
    "CHAT_QUEUE_NAME",
    "ROUTING_KEY",
    "ARCHIVE_SERVICE_URL",
    "AUTH_SERVICE_URL",
    "OPENROUTER_API_KEY",
    "OPENROUTER_API_KEYS",
    "OPENROUTER_API_KEYS_FILE",
    "OPENROUTER_BASE_URL",
    "JWT_SECRET",
    "INTERNAL_SERVICE_KEY",
    "NOTIFICATION_TRANSPORT",
    "NOTIFICATION_SERVICE_URL",
    "NOTIFICATION_SIGNING_SECRET",
    "NOTIFICATION_SERVICE_KEY",
    "NOTIFICATION_ALLOW_PRIVATE",
    "NOTIFICATION_EXCHANGE",
    "NOTIFICATION_CONCURRENCY",
    "NOTIFICATION_TIMEOUT",
    "NOTIFICATION_LOOK_SECONDS",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "PORT",
];

/// Runs the command. The servers stop and their data goes when this returns, however it does.
pub(crate) fn run(project: &Project, args: &[String]) -> anyhow::Result<ExitCode> {
    let selection = Selection::of(args);
    let uses = Uses::of(&project.root);
    let mut parts = Parts::find(project, uses)?;

    let home = ServersHome::open(project)?;
    let pika = parts.pika(project, &home, uses)?;
    let instance = Instance::passing(project, &home, "test", false)?;
    let wanted = Wanted {
        postgres: true,
        redis: true,
        rabbitmq: parts.private_rabbitmq,
    };
    let servers = Servers::start(project, &home, instance, wanted)?;
    let mut env = environment(&servers, &parts)?;
    let logs = servers.instance.dir.join("logs");
    make_dir(&logs, 0o755)?;
    env.push(("TEST_LOG_DIR".to_owned(), logs.display().to_string()));
    env.extend(pika.map(|folder| ("TEST_PIKA".to_owned(), folder.display().to_string())));
    let nextest = process::output(
        Command::new(cargo::program(project)).args(["nextest", "--version"]),
        &project.interrupt,
    )
    .is_ok();
    project.interrupt.check()?;

    let mut not_run = parts.missing.clone();
    build(project, &selection)?;
    if nextest && selection.is_everything() {
        doc_tests(project, &env)?;
    } else if nextest {
        not_run.push("documentation examples (only a run without arguments has them)".to_owned());
    }
    for reason in &not_run {
        ui::progress("Not run", reason);
    }

    let mut runner = Command::new(cargo::program(project));
    runner.args(if nextest {
        &["nextest", "run"][..]
    } else {
        &["test"][..]
    });
    if !selection.names_packages() {
        runner.arg("--workspace");
    }
    runner.args(args);
    prepare(project, &mut runner, &env);
    let status =
        process::run(&mut runner, &project.interrupt).context("the tests could not be run")?;
    // The runner's summary stays the last thing printed, unless there is something to say.
    logs::search(&logs)?;
    Ok(process::exit_code(status))
}

/// Everything the tests read.
fn environment(servers: &Servers, parts: &Parts) -> anyhow::Result<Vec<(String, String)>> {
    let (Some(postgres), Some(redis)) = (&servers.postgres, &servers.redis) else {
        bail!("the servers were not started");
    };
    let mut env = vec![
        ("TEST_DATABASE_URL".to_owned(), postgres.url("postgres")),
        ("TEST_REDIS_URL".to_owned(), redis.url()),
    ];
    // For tests that start, lose and promote servers of their own.
    env.extend(servers.programs());
    if let Some(rabbitmq) = &servers.rabbitmq {
        env.push(("TEST_RABBITMQ_URL".to_owned(), rabbitmq.url()));
    } else if let Some(url) = &parts.given_rabbitmq {
        env.push(("TEST_RABBITMQ_URL".to_owned(), url.clone()));
    }
    if let Some(rabbitmq) = &parts.rabbitmq {
        env.extend(rabbitmq.for_tests());
    }
    if let Some(chromium) = &parts.chromium {
        env.push(("TEST_CHROMIUM".to_owned(), chromium.display().to_string()));
    }
    if let Some(pgbouncer) = &parts.pgbouncer {
        env.push(("TEST_PGBOUNCER".to_owned(), pgbouncer.display().to_string()));
    }
    if let Some(promtool) = &parts.promtool {
        env.push(("TEST_PROMTOOL".to_owned(), promtool.display().to_string()));
    }
    for (name, path) in [
        ("TEST_KUBERNETES_VALIDATE", &parts.kubernetes_validate),
        ("TEST_KUBECTL", &parts.kubectl),
        ("TEST_NODE", &parts.node),
        ("TEST_HADOLINT", &parts.hadolint),
    ] {
        env.extend(
            path.as_ref()
                .map(|path| (name.to_owned(), path.display().to_string())),
        );
    }
    Ok(env)
}

/// Builds test programs and the processes they start in one go: built apart, cargo would choose
/// other features for the dependencies and compile many of them twice.
fn build(project: &Project, selection: &Selection) -> anyhow::Result<()> {
    let mut build = Command::new(cargo::program(project));
    build.current_dir(&project.root).arg("build");
    if selection.names_packages() {
        if !selection.needs_processes() {
            return Ok(());
        }
        build.args(["--package", "balas-api", "--package", "balas-worker"]);
        build.args(["--package", "loadtest", "--bins"]);
        if selection.names("chaos") {
            build.args(["--package", "chaos"]);
        }
    } else {
        build.args(["--workspace", "--bins", "--tests"]);
    }
    cargo::run(
        project,
        build,
        "the tests do not build: see what the compiler says above",
    )
}

fn doc_tests(project: &Project, env: &[(String, String)]) -> anyhow::Result<()> {
    let mut command = Command::new(cargo::program(project));
    command.args(["test", "--workspace", "--doc", "--quiet"]);
    prepare(project, &mut command, env);
    if !process::run(&mut command, &project.interrupt)?.success() {
        bail!("an example in the documentation is wrong: see above");
    }
    Ok(())
}

fn prepare(project: &Project, command: &mut Command, env: &[(String, String)]) {
    cargo::clean_env(command);
    for name in NOT_FOR_TESTS {
        command.env_remove(name);
    }
    command
        .current_dir(&project.root)
        .env("SQLX_OFFLINE", "true")
        .envs(env.iter().map(|(name, value)| (name, value)));
}
