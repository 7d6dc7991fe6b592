//! An instance is one set of private servers with its data. `up` and `services` share the lasting
//! one; every `test` and `sqlx` run has a passing one of its own, removed at its end.

use std::{
    fs::{self, File, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::{
    files::{make_dir, remove_dir},
    ledger::Ledger,
    project::{Project, ServersHome},
    ui,
};

/// How many test runs may go on at once in one checkout; more would only wait for the processor.
const PASSING_SLOTS: usize = 16;

/// The name of the instance that `up` and `services` share.
const LASTING: &str = "up";

/// A set of servers that nobody else uses as long as this value lives.
#[derive(Debug)]
pub(crate) struct Instance {
    /// Its data folder.
    pub(crate) dir: PathBuf,
    /// Its name, also the prefix of its log files.
    pub(crate) name: String,
    /// Whether the data is to survive a power cut: fsync on.
    pub(crate) durable: bool,
    /// Whether the data is to survive the end of the run.
    pub(crate) kept: bool,
    /// The children of the run.
    pub(crate) ledger: Ledger,
    /// Held for as long as the instance is in use; the kernel frees it however we end.
    _lock: File,
}

impl Instance {
    /// Takes the lasting instance, or says who has it.
    pub(crate) fn lasting(project: &Project, home: &ServersHome) -> anyhow::Result<Self> {
        match Self::take(project, home, LASTING)? {
            Ok(instance) => Ok(instance),
            Err(holder) => bail!(
                "`cargo xtask up` or `services` already runs in this checkout ({holder}): stop it first"
            ),
        }
    }

    /// Takes a passing instance: empty, and gone when the value is dropped.
    pub(crate) fn passing(
        project: &Project,
        home: &ServersHome,
        kind: &str,
        durable: bool,
    ) -> anyhow::Result<Self> {
        sweep_abandoned(project, home);
        for slot in 1..=PASSING_SLOTS {
            match Self::take(project, home, &format!("{kind}-{slot}"))? {
                Ok(mut instance) => {
                    instance.durable = durable;
                    instance.kept = false;
                    instance.wipe()?;
                    make_dir(&instance.dir, 0o755)?;
                    return Ok(instance);
                }
                Err(holder) => ui::note(&format!(
                    "another `cargo xtask {kind}` is running ({holder}); this one gets servers of its own"
                )),
            }
        }
        bail!("{PASSING_SLOTS} `cargo xtask {kind}` are running already: wait for one to end")
    }

    /// The inner error is the present holder ("process 4711").
    fn take(
        project: &Project,
        home: &ServersHome,
        name: &str,
    ) -> anyhow::Result<Result<Self, String>> {
        let lock = match lock(&project.run_file(&format!("{name}.lock")))? {
            Ok(lock) => lock,
            Err(holder) => return Ok(Err(holder)),
        };
        let ledger = Ledger::at(project.run_file(&format!("{name}.children")));
        let left = ledger.sweep();
        if !left.is_empty() {
            ui::note(&format!(
                "an earlier run was cut off; stopped what it left behind: {}",
                left.join(", ")
            ));
        }
        let dir = home.dir.join(name);
        make_dir(&dir, 0o755)?;
        Ok(Ok(Self {
            dir,
            name: name.to_owned(),
            durable: true,
            kept: true,
            ledger,
            _lock: lock,
        }))
    }

    /// Deletes the data.
    pub(crate) fn wipe(&self) -> anyhow::Result<()> {
        remove_dir(&self.dir)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // The servers are fields declared before the instance wherever both are held, so they have
        // stopped by now; the sweep is for the case that one could not even be stopped.
        self.ledger.sweep();
        if !self.kept
            && let Err(error) = self.wipe()
        {
            ui::note(&format!("{error:#}"));
        }
    }
}

/// Cleans up after passing instances whose run was killed: their children, then their data.
fn sweep_abandoned(project: &Project, home: &ServersHome) {
    let names = fs::read_dir(project.local.join("run"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(".children")?.to_owned())
        })
        .filter(|name| name != LASTING);
    for name in names {
        if let Ok(Ok(_lock)) = lock(&project.run_file(&format!("{name}.lock"))) {
            Ledger::at(project.run_file(&format!("{name}.children"))).sweep();
            let _ = remove_dir(&home.dir.join(&name));
        }
    }
}

/// Takes the lock file and writes our process id into it; the inner error is the present holder.
fn lock(path: &Path) -> anyhow::Result<Result<File, String>> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {
            let write = |file: &mut File| -> std::io::Result<()> {
                file.set_len(0)?;
                file.rewind()?;
                write!(file, "{}", std::process::id())
            };
            write(&mut file).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(Ok(file))
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            Ok(Err(format!("process {}", holder.trim())))
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{env::Env, interrupt::Interrupt};

    fn project(root: &Path) -> (Project, ServersHome) {
        let project = Project {
            root: root.to_path_buf(),
            local: root.join(".local"),
            env: Env::default(),
            interrupt: Interrupt::default(),
        };
        make_dir(&project.local.join("run"), 0o755).unwrap();
        let home = ServersHome {
            dir: root.join(".local/servers"),
            user: None,
        };
        (project, home)
    }

    #[test]
    fn the_lasting_instance_is_taken_once_and_keeps_its_data() {
        let root = tempfile::tempdir().unwrap();
        let (project, home) = project(root.path());
        let first = Instance::lasting(&project, &home).unwrap();
        fs::write(first.dir.join("data"), "x").unwrap();
        let refused = Instance::lasting(&project, &home).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        drop(first);
        let second = Instance::lasting(&project, &home).unwrap();
        assert!(second.dir.join("data").exists());
    }

    #[test]
    fn a_stale_lock_file_of_a_dead_process_is_no_obstacle() {
        let root = tempfile::tempdir().unwrap();
        let (project, home) = project(root.path());
        fs::write(project.run_file("up.lock"), "1").unwrap();
        Instance::lasting(&project, &home).unwrap();
    }

    #[test]
    fn passing_instances_are_apart_start_empty_and_leave_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (project, home) = project(root.path());
        let leftover = home.dir.join("test-1/old");
        fs::create_dir_all(&leftover).unwrap();
        let first = Instance::passing(&project, &home, "test", false).unwrap();
        let second = Instance::passing(&project, &home, "test", false).unwrap();
        assert_ne!(first.dir, second.dir);
        assert!(!leftover.exists());
        let dir = first.dir.clone();
        assert!(dir.exists());
        drop(first);
        assert!(!dir.exists());
        assert!(second.dir.exists());
    }
}
