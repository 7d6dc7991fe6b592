//! A process that is started, killed, frozen and started again.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::children::Children;

/// What it takes to start a process.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Somebody else to run as: user and group.
    pub(crate) user: Option<(u32, u32)>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) log: PathBuf,
}

/// A process, or the place where one was.
#[derive(Debug)]
pub(crate) struct Process {
    program: Program,
    children: Children,
    child: Option<Child>,
}

impl Process {
    pub(crate) fn new(program: Program, children: Children) -> Self {
        Self {
            program,
            children,
            child: None,
        }
    }

    /// Another process of the same program and name, which is not started yet.
    pub(crate) fn sibling(&self) -> Self {
        Self::new(self.program.clone(), self.children.clone())
    }

    pub(crate) fn name(&self) -> &str {
        &self.program.name
    }

    /// Whom it runs as, if as somebody else: user and group.
    pub(crate) fn user(&self) -> Option<(u32, u32)> {
        self.program.user
    }

    /// Its process id while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Starts it.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let program = &self.program;
        if self.child.is_some() {
            bail!("{} runs already", program.name);
        }
        let open = || -> std::io::Result<(std::fs::File, std::fs::File)> {
            let log = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&program.log)?;
            Ok((log.try_clone()?, log))
        };
        let (out, err) =
            open().with_context(|| format!("failed to write {}", program.log.display()))?;
        let mut command = Command::new(&program.path);
        command
            .args(&program.args)
            // Nothing of a person's shell: a key in it could spend real money.
            .env_clear()
            .envs(program.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            // Ctrl-C in the terminal is for us; the order of stopping is ours.
            .process_group(0)
            .kill_on_drop(true);
        if let Some((user, group)) = program.user {
            command.uid(user).gid(group);
        }
        if let Some(dir) = &program.dir {
            command.current_dir(dir);
        }
        let child = command
            .spawn()
            .with_context(|| format!("failed to start {}", program.path.display()))?;
        if let Some(id) = child.id() {
            self.children.add(id, &program.name)?;
        }
        self.child = Some(child);
        Ok(())
    }

    /// Sends a signal if it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(id) = self.id().and_then(|id| i32::try_from(id).ok()) {
            // It may just have ended.
            let _ = kill(Pid::from_raw(id), signal);
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait().await;
        }
    }

    /// Asks it to stop and waits; `None` when it had to be killed in the end.
    pub(crate) async fn stop(&mut self, signal: Signal, within: Duration) -> Option<ExitStatus> {
        self.signal(signal);
        let ended = match &mut self.child {
            Some(child) => tokio::time::timeout(within, child.wait()).await.ok(),
            None => return None,
        };
        match ended {
            Some(status) => {
                self.child = None;
                status.ok()
            }
            None => {
                self.kill().await;
                None
            }
        }
    }

    /// How it ended without having been told to, if it did. It can be started again then.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }
}
