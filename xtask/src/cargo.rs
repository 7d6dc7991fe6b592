//! Calling cargo from inside `cargo run`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::bail;

use crate::{process, project::Project};

/// The cargo that runs us, so that `cargo +nightly xtask` stays what it says.
pub(crate) fn program(project: &Project) -> PathBuf {
    PathBuf::from(project.env.get("CARGO").unwrap_or("cargo"))
}

/// Removes what the outer `cargo run` has set for this package: it would make an inner cargo build
/// some crates again.
pub(crate) fn clean_env(command: &mut Command) {
    for name in [
        "CARGO",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PKG_AUTHORS",
        "CARGO_PKG_DESCRIPTION",
        "CARGO_PKG_HOMEPAGE",
        "CARGO_PKG_LICENSE",
        "CARGO_PKG_LICENSE_FILE",
        "CARGO_PKG_NAME",
        "CARGO_PKG_README",
        "CARGO_PKG_REPOSITORY",
        "CARGO_PKG_RUST_VERSION",
        "CARGO_PKG_VERSION",
        "CARGO_PKG_VERSION_MAJOR",
        "CARGO_PKG_VERSION_MINOR",
        "CARGO_PKG_VERSION_PATCH",
        "CARGO_PKG_VERSION_PRE",
    ] {
        command.env_remove(name);
    }
}

/// How the processes are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Debug,
    Release,
}

/// What `up` starts.
const BINARIES: [&str; 3] = ["balas-api", "balas-worker", "simulator"];

/// Builds the processes that `up` starts, with cargo's own progress.
pub(crate) fn build_binaries(project: &Project, profile: Profile) -> anyhow::Result<()> {
    let mut build = Command::new(program(project));
    build
        .current_dir(&project.root)
        .args(["build", "--package", "balas-api", "--bin", "balas-api"])
        .args(["--package", "balas-worker", "--bin", "balas-worker"])
        .args(["--package", "loadtest", "--bin", "simulator"]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    run(
        project,
        build,
        "the sources do not build: see what the compiler says above",
    )
}

/// Builds the fault suite and the processes that it breaks.
pub(crate) fn build_chaos(project: &Project, profile: Profile) -> anyhow::Result<()> {
    let mut build = Command::new(program(project));
    build
        .current_dir(&project.root)
        .args([
            "build",
            "--package",
            "balas-api",
            "--package",
            "balas-worker",
        ])
        .args(["--package", "chaos", "--bins"]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    run(
        project,
        build,
        "the sources do not build: see what the compiler says above",
    )
}

/// Runs a cargo command; `otherwise` is the error when it does not succeed.
pub(crate) fn run(project: &Project, mut command: Command, otherwise: &str) -> anyhow::Result<()> {
    clean_env(&mut command);
    // DATABASE_URL may name any database here; a build must not look at it.
    command.env("SQLX_OFFLINE", "true");
    let status = process::run(&mut command, &project.interrupt)?;
    if !status.success() {
        bail!("{otherwise}");
    }
    Ok(())
}

/// Fails unless what `up` starts has been built.
pub(crate) fn check_built(project: &Project, profile: Profile) -> anyhow::Result<()> {
    check_binaries(project, profile, &BINARIES)
}

/// Fails unless these binaries have been built.
pub(crate) fn check_binaries(
    project: &Project,
    profile: Profile,
    names: &[&str],
) -> anyhow::Result<()> {
    for name in names {
        let path = binary(project, profile, name);
        if !path.is_file() {
            bail!("{} is not built: leave out --no-build", path.display());
        }
    }
    Ok(())
}

/// Where cargo puts a binary.
pub(crate) fn binary(project: &Project, profile: Profile, name: &str) -> PathBuf {
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => "release",
    };
    target_dir(project).join(folder).join(name)
}

/// The folder cargo builds into.
fn target_dir(project: &Project) -> PathBuf {
    let named = ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"]
        .into_iter()
        .find_map(|name| project.env.get(name));
    if let Some(dir) = named {
        return project.root.join(dir);
    }
    // We lie in it ourselves, wherever the person's cargo configuration puts it.
    std::env::current_exe()
        .ok()
        .as_deref()
        .and_then(target_of)
        .unwrap_or_else(|| project.root.join("target"))
}

/// `…/target/debug/xtask` → `…/target`.
fn target_of(exe: &Path) -> Option<PathBuf> {
    let profile = exe.parent()?;
    let name = profile.file_name()?.to_str()?;
    matches!(name, "debug" | "release")
        .then(|| profile.parent().map(Path::to_path_buf))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_folder_is_where_this_program_lies() {
        assert_eq!(
            target_of(Path::new("/x/target/debug/xtask")),
            Some("/x/target".into())
        );
        assert_eq!(target_of(Path::new("/usr/local/bin/xtask")), None);
    }
}
