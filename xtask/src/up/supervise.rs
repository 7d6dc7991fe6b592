//! Keeps a process of ours running: one that dies is started again, one that cannot live is reported.

use std::{
    path::PathBuf,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::bail;
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt as _;

use crate::{ledger::Ledger, process, process::Service, ui};

/// The pause before a process is started again: long enough to see it gone, short enough to watch.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// A process that dies younger than this has not worked.
const YOUNG: Duration = Duration::from_secs(5);
/// So many deaths of the young in a row and we give up.
const PATIENCE: u32 = 3;

/// One process of Balas and what it takes to start it again.
#[derive(Debug)]
pub(crate) struct Supervised {
    name: String,
    program: PathBuf,
    env: Vec<(String, String)>,
    log: PathBuf,
    ledger: Ledger,
    service: Service,
    started: Instant,
    young_deaths: u32,
    restart_at: Option<Instant>,
}

impl Supervised {
    pub(crate) fn start(
        name: &str,
        program: PathBuf,
        env: Vec<(String, String)>,
        log: PathBuf,
        ledger: &Ledger,
    ) -> anyhow::Result<Self> {
        let service = Service::spawn(name, command(&program, &env), &log, ledger)?;
        Ok(Self {
            name: name.to_owned(),
            program,
            env,
            log,
            ledger: ledger.clone(),
            service,
            started: Instant::now(),
            young_deaths: 0,
            restart_at: None,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn id(&self) -> u32 {
        self.service.id()
    }

    /// Looks once whether it lives, and starts it again when its time has come.
    ///
    /// # Errors
    /// It has died young several times: starting it once more would not help.
    pub(crate) fn tend(&mut self) -> anyhow::Result<()> {
        if let Some(at) = self.restart_at {
            if Instant::now() >= at {
                self.restart_at = None;
                let command = command(&self.program, &self.env);
                self.service = Service::spawn(&self.name, command, &self.log, &self.ledger)?;
                self.started = Instant::now();
                ui::progress(
                    "Restarted",
                    &format!("{} (process {})", self.name, self.service.id()),
                );
            }
            return Ok(());
        }
        let Some(status) = self.service.exited() else {
            return Ok(());
        };
        let how = process::describe_exit(status);
        if self.started.elapsed() < YOUNG {
            self.young_deaths += 1;
        } else {
            self.young_deaths = 0;
        }
        if self.young_deaths >= PATIENCE {
            bail!("{} {how} again; {}", self.name, self.last_lines());
        }
        ui::note(&format!("{} {how}; starting it again", self.name));
        if !was_killed(status) {
            ui::note(&self.last_lines());
        }
        self.restart_at = Some(Instant::now() + RESTART_AFTER);
        Ok(())
    }

    /// Where its log is and what it says at the end.
    pub(crate) fn last_lines(&self) -> String {
        format!(
            "the last lines of {}:\n{}",
            self.log.display(),
            self.service.last_lines()
        )
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.service.exited().is_none()
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.restart_at = None;
        self.service.signal(signal);
    }
}

/// Somebody sent SIGKILL, the way to see a crash: its log has nothing to say about it.
fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGKILL as i32)
}

fn command(program: &PathBuf, env: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
    command.envs(env.iter().map(|(name, value)| (name, value)));
    command
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, thread};

    use super::*;

    fn script(dir: &Path, text: &str) -> PathBuf {
        let path = dir.join("program");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn start(dir: &Path, text: &str) -> Supervised {
        let env = vec![("GREETING".to_owned(), "hello".to_owned())];
        let ledger = Ledger::at(dir.join("children"));
        Supervised::start("worker-1", script(dir, text), env, dir.join("log"), &ledger).unwrap()
    }

    /// Tends it until `done` says so; the test runner's own limit ends a test that waits in vain.
    fn tend_until(process: &mut Supervised, done: impl Fn(&mut Supervised) -> bool) {
        while !done(process) {
            process.tend().unwrap();
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_killed_process_comes_back_with_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = start(dir.path(), "echo $GREETING; exec sleep 600");
        let log = dir.path().join("log");
        let greeted = |times: usize| {
            let log = log.clone();
            move |_: &mut Supervised| {
                fs::read_to_string(&log).is_ok_and(|text| text == "hello\n".repeat(times))
            }
        };
        tend_until(&mut process, greeted(1));
        let first = process.id();
        process.signal(Signal::SIGKILL);
        tend_until(&mut process, greeted(2));
        assert_ne!(process.id(), first);
        assert!(process.is_running());
    }

    #[test]
    fn a_process_that_cannot_live_is_given_up_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = start(dir.path(), "echo no database; exit 3");
        let error = loop {
            match process.tend() {
                Ok(()) => thread::sleep(Duration::from_millis(10)),
                Err(error) => break error.to_string(),
            }
        };
        assert!(
            error.starts_with("worker-1 ended with exit code 3 again"),
            "{error}"
        );
        assert!(error.ends_with("no database"), "{error}");
    }
}
