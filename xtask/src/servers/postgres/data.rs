//! The data folder: `initdb` once into a template, then a copy per instance.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::Programs;
use crate::{
    files::{make_dir, remove_dir, write_private},
    instance::Instance,
    process,
    project::{Project, ServersHome},
    servers::server_command,
    ui,
};

/// A data folder and what it takes to log in.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) dir: PathBuf,
    pub(super) password: String,
}

impl Data {
    /// That of the instance, made from the template the first time.
    ///
    /// # Errors
    /// It was made by another major version of Postgres.
    pub(super) fn open(
        project: &Project,
        home: &ServersHome,
        instance: &Instance,
        programs: &Programs,
    ) -> anyhow::Result<Self> {
        let dir = instance.dir.join("postgres");
        let password_file = instance.dir.join("postgres.password");
        if !dir.exists() {
            let template = template(project, home, programs)?;
            fs::copy(template.join("password"), &password_file)
                .with_context(|| format!("cannot write {}", password_file.display()))?;
            copy(
                project,
                home,
                programs,
                &template.join("data"),
                &dir,
                instance.durable,
            )?;
        }
        let made_by = fs::read_to_string(dir.join("PG_VERSION")).unwrap_or_default();
        if made_by.trim() != programs.major.to_string() {
            bail!(
                "{} was made by Postgres {} and this is Postgres {}: run `cargo xtask reset`, which deletes that data",
                dir.display(),
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
        Ok(Self {
            dir,
            password: password.trim().to_owned(),
        })
    }
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
fn copy(
    project: &Project,
    home: &ServersHome,
    programs: &Programs,
    template: &Path,
    data: &Path,
    durable: bool,
) -> anyhow::Result<()> {
    let work = data.with_extension("new");
    remove_dir(&work)?;
    home.private_dir(&work)?;
    let parent = data.parent().unwrap_or(data);
    let mut cp = server_command(Path::new("cp"), home, parent);
    cp.arg("-Rp").arg(template.join(".")).arg(&work);
    process::output(&mut cp, &project.interrupt)?;
    if durable {
        // Neither `initdb --no-sync` nor the copy has reached the disk for certain.
        let mut sync = server_command(&programs.bin.join("initdb"), home, parent);
        sync.arg("--sync-only").arg("-D").arg(&work);
        process::output(&mut sync, &project.interrupt)?;
    }
    fs::rename(&work, data).with_context(|| format!("cannot make {}", data.display()))
}
