//! A disk of its own for the tables, which can be full: a file system in memory whose size is changed
//! while it is in use. It takes root to mount one, and Linux.
//!
//! It is mounted where only this process and its children see it, so that nothing is left of it
//! however they end.

use std::path::PathBuf;

use anyhow::Context;
use shared::testing::Session;

/// Far more than any run needs; memory is only used for what is stored.
const SIZE: u64 = 8 << 30;
/// Left free by a full disk: less than any table grows by.
const SLACK: u64 = 4_096;

/// The disk.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
}

impl Disk {
    /// Mounts it at `dir` for `owner`, user and group. None where that is not permitted.
    pub(super) fn mount(dir: PathBuf, owner: Option<(u32, u32)>) -> anyhow::Result<Option<Self>> {
        if !linux::is_apart() {
            return Ok(None);
        }
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("failed to make {}", dir.display()))?;
        let owner = owner.map_or(String::new(), |(user, group)| {
            format!(",uid={user},gid={group}")
        });
        let options = format!("size={SIZE},mode=0700{owner}");
        Ok(linux::mount(&dir, &options).is_ok().then_some(Self { dir }))
    }

    /// Moves every table of the database onto it.
    pub(super) async fn take_tables(&self, url: &str) -> anyhow::Result<()> {
        let refused = |refused| anyhow::anyhow!("Postgres refused: {refused:?}");
        let mut session = Session::open(url).await.map_err(refused)?;
        for statement in [
            format!("CREATE TABLESPACE small LOCATION '{}'", self.dir.display()),
            "GRANT CREATE ON TABLESPACE small TO PUBLIC".to_owned(),
            "ALTER TABLE ALL IN TABLESPACE pg_default SET TABLESPACE small".to_owned(),
            "ALTER INDEX ALL IN TABLESPACE pg_default SET TABLESPACE small".to_owned(),
            // Partitions that are made later.
            "ALTER SYSTEM SET default_tablespace = small".to_owned(),
            "SELECT pg_reload_conf()".to_owned(),
        ] {
            session.run(&statement).await.map_err(refused)?;
        }
        Ok(())
    }

    /// Leaves no room for anything more. Returns how many bytes are stored.
    pub(crate) fn fill(&self) -> anyhow::Result<u64> {
        let used = linux::used(&self.dir).context("failed to measure the disk of the tables")?;
        self.resize(used + SLACK)?;
        Ok(used)
    }

    /// Makes room again.
    pub(crate) fn free(&self) -> anyhow::Result<()> {
        self.resize(SIZE)
    }

    fn resize(&self, size: u64) -> anyhow::Result<()> {
        linux::resize(&self.dir, &format!("size={size}"))
            .context("failed to change the size of the disk of the tables")
    }
}

/// Keeps what this process will mount to itself and its children. Called before there are threads;
/// without the right to it nothing happens, and there will be no disk.
pub(crate) fn stand_apart() {
    linux::stand_apart();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::mount::{MsFlags, mount as mount_at};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::statvfs::statvfs;

    static APART: AtomicBool = AtomicBool::new(false);
    const NOTHING: Option<&str> = None;

    pub(super) fn stand_apart() {
        let apart = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount_at(NOTHING, "/", NOTHING, private, NOTHING)
        });
        APART.store(apart.is_ok(), Ordering::Relaxed);
    }

    pub(super) fn is_apart() -> bool {
        APART.load(Ordering::Relaxed)
    }

    pub(super) fn mount(dir: &Path, options: &str) -> nix::Result<()> {
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        mount_at(Some("balas"), dir, Some("tmpfs"), flags, Some(options))
    }

    pub(super) fn resize(dir: &Path, options: &str) -> nix::Result<()> {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        mount_at(NOTHING, dir, NOTHING, flags, Some(options))
    }

    #[allow(
        clippy::unnecessary_cast,
        clippy::allow_attributes,
        reason = "these numbers are narrower on other machines"
    )]
    pub(super) fn used(dir: &Path) -> nix::Result<u64> {
        let found = statvfs(dir)?;
        Ok((found.blocks() - found.blocks_free()) as u64 * found.fragment_size() as u64)
    }
}

#[cfg(not(target_os = "linux"))]
mod linux {
    use std::path::Path;

    pub(super) fn stand_apart() {}

    pub(super) fn is_apart() -> bool {
        false
    }

    pub(super) fn mount(_: &Path, _: &str) -> nix::Result<()> {
        Err(nix::Error::ENOSYS)
    }

    pub(super) fn resize(_: &Path, _: &str) -> nix::Result<()> {
        Err(nix::Error::ENOSYS)
    }

    pub(super) fn used(_: &Path) -> nix::Result<u64> {
        Err(nix::Error::ENOSYS)
    }
}
