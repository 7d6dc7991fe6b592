//! `cargo xtask services` and `cargo xtask reset`.

use std::{fs, thread, time::Duration};

use anyhow::bail;

use crate::{
    files::remove_dir,
    instance::Instance,
    project::{Project, ServersHome},
    servers::{Servers, Wanted},
    ui,
};

/// Starts the servers alone, prints their URLs and waits for Ctrl-C.
pub(crate) fn run(project: &Project, rabbitmq: bool) -> anyhow::Result<()> {
    let home = ServersHome::open(project)?;
    let instance = Instance::lasting(project, &home)?;
    let wanted = Wanted {
        postgres: true,
        redis: true,
        rabbitmq,
    };
    let mut servers = Servers::start(project, &home, instance, wanted)?;
    let urls = servers.urls(project)?;
    for (name, url) in urls {
        ui::result(&format!("export {name}='{url}'"));
    }
    ui::progress("Running", "until Ctrl-C; the data stays");
    ui::progress(
        "",
        "make the tables with `cargo run -p balas-api -- migrate`",
    );
    hold(project, &mut servers)
}

/// Keeps the servers running until a signal or until one of them dies.
pub(crate) fn hold(project: &Project, servers: &mut Servers) -> anyhow::Result<()> {
    loop {
        if let Err(stopped) = project.interrupt.check() {
            ui::progress("Stopping", "the servers");
            return Err(stopped);
        }
        if let Some(died) = servers.dead() {
            bail!("{died}");
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Deletes the data of `up` and `services`. Downloaded programs and generated secrets stay: neither
/// holds anything of what was tried out, and tokens in a person's shell keep working.
pub(crate) fn reset(project: &Project) -> anyhow::Result<()> {
    let home = ServersHome::open(project)?;
    let instance = Instance::lasting(project, &home)?;
    instance.wipe()?;
    let logs = project.local.join("logs");
    remove_dir(&logs)?;
    let _ = fs::create_dir(&logs);
    ui::progress("Removed", "the data and the logs of earlier runs");
    Ok(())
}
