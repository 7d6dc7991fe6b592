//! Python packages that tests use, from PyPI, in the versions that a file pins.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
    process::Command,
};

use anyhow::Context as _;

use crate::{
    files::{make_dir, remove_dir},
    process,
    project::Project,
    servers::wheels::python_with_pip,
    ui,
};

/// A folder for `PYTHONPATH` with what the requirements file pins, fetched now if it is not there yet.
///
/// # Errors
/// No pip, no network, or a package that is not there.
pub(crate) fn fetched(project: &Project, requirements: &str) -> anyhow::Result<PathBuf> {
    let file = project.root.join(requirements);
    let pins = fs::read_to_string(&file).with_context(|| format!("cannot read {requirements}"))?;
    let python = python_with_pip(project)?;
    // Some packages are compiled for one version of Python.
    let version = process::output(Command::new(&python).arg("--version"), &project.interrupt)?;
    let mut hash = DefaultHasher::new();
    (&pins, &version).hash(&mut hash);
    let folder = project.local.join("python");
    let done = folder.join(format!("{:016x}", hash.finish()));
    if done.is_dir() {
        return Ok(done);
    }
    ui::progress(
        "Fetching",
        &format!("the packages of {requirements} from PyPI"),
    );
    make_dir(&folder, 0o755)?;
    let work = folder.join(format!("work.{}", std::process::id()));
    remove_dir(&work)?;
    let mut install = Command::new(&python);
    install
        .args(["-m", "pip", "install", "--quiet", "--only-binary=:all:"])
        .args(["--disable-pip-version-check", "--no-input", "--no-deps"])
        // A pin says which version, and a hash which file.
        .arg("--require-hashes")
        .arg("--target")
        .arg(&work)
        .arg("--requirement")
        .arg(&file)
        .env("PIP_ROOT_USER_ACTION", "ignore");
    let installed = process::output(&mut install, &project.interrupt)
        .with_context(|| format!("pip could not fetch the packages of {requirements}"));
    if installed.is_ok() && fs::rename(&work, &done).is_err() && !done.is_dir() {
        anyhow::bail!("cannot move {} to {}", work.display(), done.display());
    }
    // Somebody else may have been first, and a failed fetch leaves pieces.
    remove_dir(&work)?;
    installed.map(|_| done)
}
