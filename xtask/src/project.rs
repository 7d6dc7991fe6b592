//! Where things lie: the checkout, `.local/` inside it, and the folder of the private servers.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use nix::unistd::{Uid, User};
use sha2::{Digest as _, Sha256};

use crate::{env::Env, files::make_dir, interrupt::Interrupt, ui};

/// Everything a command needs to know about the checkout it works on.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// The folder of the workspace's Cargo.toml.
    pub(crate) root: PathBuf,
    /// `.local/`: everything this tool makes, ignored by git.
    pub(crate) local: PathBuf,
    pub(crate) env: Env,
    pub(crate) interrupt: Interrupt,
}

impl Project {
    /// Finds the checkout around the current directory and prepares `.local/`.
    pub(crate) fn open(env: Env, interrupt: Interrupt) -> anyhow::Result<Self> {
        let here = std::env::current_dir().context("the current directory is gone")?;
        let root = find_root(&here)
            .or_else(|| find_root(Path::new(env.get("CARGO_MANIFEST_DIR")?)))
            .context("run this inside the Balas checkout")?;
        let local = root.join(".local");
        make_dir(&local, 0o755)?;
        let owner = fs::metadata(&local)
            .with_context(|| format!("cannot read {}", local.display()))?
            .uid();
        if !Uid::effective().is_root() && owner != Uid::effective().as_raw() {
            bail!(
                "{} belongs to {}: run this as that user, or have it removed",
                local.display(),
                user_name(owner)
            );
        }
        make_dir(&local.join("logs"), 0o755)?;
        make_dir(&local.join("run"), 0o755)?;
        Ok(Self {
            root,
            local,
            env,
            interrupt,
        })
    }

    /// The log file of a process. Each start of a command begins a new one and keeps the one before.
    pub(crate) fn fresh_log(&self, name: &str) -> PathBuf {
        let path = self.local.join("logs").join(format!("{name}.log"));
        let _ = fs::rename(&path, path.with_extension("log.old"));
        path
    }

    /// The file with which an instance says that it is in use.
    pub(crate) fn run_file(&self, name: &str) -> PathBuf {
        self.local.join("run").join(name)
    }
}

/// The first folder at or above `from` that holds our workspace.
fn find_root(from: &Path) -> Option<PathBuf> {
    from.ancestors()
        .find(|dir| dir.join("Cargo.toml").is_file() && dir.join("xtask/Cargo.toml").is_file())
        .map(Path::to_path_buf)
}

/// The user the servers run as when we are root: Postgres refuses root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl ServerUser {
    /// `None` for an ordinary user, who runs the servers himself.
    pub(crate) fn choose() -> anyhow::Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name)
                && !user.uid.is_root()
            {
                return Ok(Some(Self {
                    uid: user.uid.as_raw(),
                    gid: user.gid.as_raw(),
                }));
            }
        }
        bail!(
            "Postgres refuses to run as root and there is no user `postgres` or `nobody` to run it as: add one"
        )
    }

    /// Whether this user may enter `path` and every folder above it.
    fn can_enter(&self, path: &Path) -> bool {
        path.ancestors().all(|dir| {
            fs::metadata(dir).is_ok_and(|meta| {
                let needed = if meta.uid() == self.uid {
                    0o100
                } else if meta.gid() == self.gid {
                    0o010
                } else {
                    0o001
                };
                meta.mode() & needed != 0
            })
        })
    }
}

/// The folder of the private servers' programs and data.
#[derive(Debug, Clone)]
pub(crate) struct ServersHome {
    pub(crate) dir: PathBuf,
    pub(crate) user: Option<ServerUser>,
}

impl ServersHome {
    /// `.local/servers`, or, when the servers' user cannot get there (a checkout below `/root`),
    /// a folder under `/var/tmp` named after the checkout.
    pub(crate) fn open(project: &Project) -> anyhow::Result<Self> {
        let user = ServerUser::choose()?;
        let usual = project.local.join("servers");
        let elsewhere = user
            .as_ref()
            .is_some_and(|user| !user.can_enter(&project.local));
        let dir = if elsewhere {
            outside(&project.root)?
        } else {
            usual
        };
        make_dir(&dir, 0o755)?;
        // Data that is there already belongs to whoever ran the servers then; Postgres insists on it.
        let user = user.map(|user| owner_of_data(&dir).unwrap_or(user));
        let pointer = project.local.join("servers-are-in");
        if elsewhere {
            let text = format!("{}\n", dir.display());
            if fs::read_to_string(&pointer).ok().as_deref() != Some(text.as_str()) {
                fs::write(&pointer, text)
                    .with_context(|| format!("cannot write {}", pointer.display()))?;
                ui::note(&format!(
                    "the servers' own user cannot enter this folder; their data is in {}",
                    dir.display()
                ));
            }
        } else {
            let _ = fs::remove_file(&pointer);
        }
        Ok(Self { dir, user })
    }

    /// Makes a folder that the servers' user owns and nobody else enters.
    pub(crate) fn private_dir(&self, path: &Path) -> anyhow::Result<()> {
        make_dir(path, 0o700)?;
        self.give(path)
    }

    /// Hands a file or folder to the servers' user.
    pub(crate) fn give(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(user) = &self.user {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
                .with_context(|| format!("cannot hand {} to the servers' user", path.display()))?;
        }
        Ok(())
    }
}

/// Whom the data of the lasting servers belongs to, or else the template that new data is copied from.
fn owner_of_data(dir: &Path) -> Option<ServerUser> {
    let templates = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("template-"))
        .map(|entry| entry.path().join("data"));
    std::iter::once(dir.join("up/postgres"))
        .chain(templates)
        .filter_map(|path| fs::metadata(path).ok())
        .find(|meta| meta.uid() != 0)
        .map(|meta| ServerUser {
            uid: meta.uid(),
            gid: meta.gid(),
        })
}

/// The folder for a checkout whose own folders are closed. Its name is guessable and `/var/tmp` is
/// open to all, so one that somebody else has put there is refused.
fn outside(root: &Path) -> anyhow::Result<PathBuf> {
    let dir = Path::new("/var/tmp").join(format!("balas-{}", short_hash(root)));
    match fs::DirBuilder::new().mode(0o755).create(&dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(&dir)
                .with_context(|| format!("cannot read {}", dir.display()))?;
            let writable_by_others = meta.permissions().mode() & 0o022 != 0;
            if !meta.is_dir() || meta.uid() != Uid::effective().as_raw() || writable_by_others {
                bail!(
                    "{} exists and is not ours: remove it and try again",
                    dir.display()
                );
            }
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot make {}", dir.display()));
        }
    }
    Ok(dir)
}

/// Eight hex digits that tell two checkouts apart.
fn short_hash(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("user {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_found_from_a_folder_inside_it() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("api/src/deep");
        fs::create_dir_all(&inner).unwrap();
        fs::create_dir_all(dir.path().join("xtask")).unwrap();
        fs::write(dir.path().join("api/Cargo.toml"), "").unwrap();
        assert_eq!(find_root(&inner), None);
        fs::write(dir.path().join("Cargo.toml"), "").unwrap();
        fs::write(dir.path().join("xtask/Cargo.toml"), "").unwrap();
        assert_eq!(find_root(&inner).as_deref(), Some(dir.path()));
    }

    #[test]
    fn a_closed_folder_on_the_way_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("open");
        fs::create_dir(&inner).unwrap();
        let stranger = ServerUser {
            uid: 4_000_001,
            gid: 4_000_001,
        };
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(stranger.can_enter(&inner));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!stranger.can_enter(&inner));
        let meta = fs::metadata(dir.path()).unwrap();
        let owner = ServerUser {
            uid: meta.uid(),
            gid: meta.gid(),
        };
        assert!(owner.can_enter(&inner));
    }

    #[test]
    fn data_that_is_there_decides_who_runs_the_servers() {
        if !Uid::effective().is_root() {
            return; // Only root can give files away, and only root has the choice.
        }
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(owner_of_data(dir.path()), None);
        let give = |name: &str, uid| {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            std::os::unix::fs::chown(&path, Some(uid), Some(uid)).unwrap();
        };
        give("template-18.4/data", 1001);
        assert_eq!(owner_of_data(dir.path()).map(|user| user.uid), Some(1001));
        give("up/postgres", 1002);
        assert_eq!(owner_of_data(dir.path()).map(|user| user.uid), Some(1002));
    }

    #[test]
    fn two_checkouts_have_two_names() {
        assert_eq!(short_hash(Path::new("/a")).len(), 8);
        assert_ne!(short_hash(Path::new("/a")), short_hash(Path::new("/b")));
    }
}
