//! Packages from Debian's own archive, for root on Debian and its relatives.

use std::{path::Path, process::Command, sync::OnceLock};

use anyhow::Context as _;
use nix::unistd::Uid;

use crate::{process, project::Project, ui};

/// Whether this process may install packages.
pub(crate) fn is_possible() -> bool {
    Uid::effective().is_root() && Path::new("/usr/bin/apt-get").exists()
}

/// Installs packages without starting the services they bring: an instance of the system's own is
/// none of our business.
pub(crate) fn install(project: &Project, packages: &[&str]) -> anyhow::Result<()> {
    static UPDATED: OnceLock<()> = OnceLock::new();
    if UPDATED.get().is_none() {
        ui::progress("Updating", "the list of Debian packages");
        process::output(apt_get().args(["update", "--quiet"]), &project.interrupt)
            .context("apt-get could not update its list of packages")?;
        let _ = UPDATED.set(());
    }
    let names = packages.join(", ");
    ui::progress("Installing", &format!("{names} with apt-get"));
    process::output(
        apt_get()
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(packages),
        &project.interrupt,
    )
    .with_context(|| format!("apt-get could not install {names}"))?;
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Debian's invoke-rc.d starts no service in run level 1.
        .env("RUNLEVEL", "1");
    command
}
