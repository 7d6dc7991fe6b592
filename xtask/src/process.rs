//! Child processes: started in a process group of their own, so that Ctrl-C in the terminal reaches
//! only us and the stopping order is ours; remembered in a ledger, so that a run that was killed
//! with `kill -9` leaves nothing behind for long.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::{
    interrupt::{Interrupt, Interrupted},
    ledger::Ledger,
};

const POLL: Duration = Duration::from_millis(20);

/// A long-running child with its own log file. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Service {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where in the log this process's own lines begin: the file may hold those of the one before.
    log_start: u64,
    ended: Option<ExitStatus>,
}

impl Service {
    /// Starts `command` with stdout and stderr appended to `log`.
    pub(crate) fn spawn(
        name: &str,
        mut command: Command,
        log: &Path,
        ledger: &Ledger,
    ) -> anyhow::Result<Self> {
        let out = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let log_start = out.metadata().map(|meta| meta.len()).unwrap_or_default();
        let err = out
            .try_clone()
            .with_context(|| format!("cannot write {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let child = command.spawn().with_context(|| describe_spawn(&command))?;
        ledger.add(child.id(), name)?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_path_buf(),
            log_start,
            ended: None,
        })
    }

    /// The name it is called by in what we print.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log file.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, or `None` while it runs.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// What it wrote last, for an error message.
    pub(crate) fn last_lines(&self) -> String {
        tail(&self.log, self.log_start, 15)
    }

    /// Sends a signal to this process alone, not to its group.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            let _ = kill(pid(self.child.id()), signal);
        }
    }

    /// As [`Service::stop`], for a program that is a script with children of its own.
    pub(crate) fn stop_group(&mut self, signal: Signal, grace: Duration) {
        if self.exited().is_none() {
            let _ = killpg(pid(self.child.id()), signal);
            if !self.wait(grace) {
                let _ = killpg(pid(self.child.id()), Signal::SIGKILL);
                self.wait(Duration::from_secs(5));
            }
        }
    }

    /// Waits until it has ended; `false` when it still runs after `grace`.
    pub(crate) fn wait(&mut self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        while self.exited().is_none() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    /// Asks it to stop, waits `grace`, then kills it.
    pub(crate) fn stop(&mut self, signal: Signal, grace: Duration) {
        self.signal(signal);
        if !self.wait(grace) {
            self.signal(Signal::SIGKILL);
            self.wait(Duration::from_secs(5));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.exited().is_none() {
            self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end with this process's stdout and stderr, passing a signal on to its whole
/// group (as the terminal would). After a signal the result is the error [`Interrupted`].
pub(crate) fn run(command: &mut Command, interrupt: &Interrupt) -> anyhow::Result<ExitStatus> {
    run_while(command, interrupt, || Ok(()))
}

/// As [`run`], calling `meanwhile` again and again; when that fails, the command is killed.
pub(crate) fn run_while(
    command: &mut Command,
    interrupt: &Interrupt,
    mut meanwhile: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<ExitStatus> {
    interrupt.check()?;
    command.stdin(Stdio::null()).process_group(0);
    let mut child = command.spawn().with_context(|| describe_spawn(command))?;
    let mut interrupted = None;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return match interrupted {
                Some(signal) => Err(Interrupted(signal).into()),
                None => Ok(status),
            };
        }
        if let Some(signal) = interrupt.take() {
            // The second signal is a person who has waited long enough.
            let sent = if interrupted.is_some() {
                Signal::SIGKILL
            } else {
                signal
            };
            let _ = killpg(pid(child.id()), sent);
            interrupted = Some(signal);
        }
        if let Err(error) = meanwhile() {
            let _ = killpg(pid(child.id()), Signal::SIGKILL);
            let _ = child.wait();
            return Err(error);
        }
        thread::sleep(POLL);
    }
}

/// Runs a command whose output matters only when it fails, and returns its stdout.
pub(crate) fn output(command: &mut Command, interrupt: &Interrupt) -> anyhow::Result<String> {
    let dir = std::env::temp_dir();
    let stem = format!("balas-xtask-{}", uuid::Uuid::new_v4().simple());
    let (out_path, err_path) = (
        dir.join(format!("{stem}.out")),
        dir.join(format!("{stem}.err")),
    );
    // Files, not pipes: nobody has to read them while the child runs, so nothing can block.
    let create = |path: &Path| {
        fs::File::create_new(path).with_context(|| format!("cannot write {}", path.display()))
    };
    let ran = create(&out_path).and_then(|out| {
        command.stdout(out).stderr(create(&err_path)?);
        run(command, interrupt)
    });
    let out = fs::read(&out_path).map(|raw| String::from_utf8_lossy(&raw).into_owned());
    let err = fs::read(&err_path).map(|raw| String::from_utf8_lossy(&raw).into_owned());
    let _ = fs::remove_file(&out_path);
    let _ = fs::remove_file(&err_path);
    let status = ran?;
    let (out, err) = (out.unwrap_or_default(), err.unwrap_or_default());
    if !status.success() {
        let said = if err.trim().is_empty() { &out } else { &err };
        bail!(
            "`{}` {}: {}",
            program(command),
            describe_exit(status),
            said.trim()
        );
    }
    Ok(out)
}

/// Hands a child's exit code on.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// "ended with exit code 3", "was killed by SIGKILL".
pub(crate) fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("was killed by {signal}"),
            Err(_) => format!("was killed by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

/// The program's name without its folders.
pub(crate) fn program(command: &Command) -> String {
    Path::new(command.get_program())
        .file_name()
        .unwrap_or_else(|| command.get_program())
        .to_string_lossy()
        .into_owned()
}

fn describe_spawn(command: &Command) -> String {
    format!(
        "cannot start `{}`",
        Path::new(command.get_program()).display()
    )
}

/// A process id as nix wants it.
pub(crate) fn pid(raw: u32) -> Pid {
    Pid::from_raw(i32::try_from(raw).unwrap_or(i32::MAX))
}

/// The last `lines` lines of what a file holds after byte `start`.
pub(crate) fn tail(path: &Path, start: u64, lines: usize) -> String {
    const WINDOW: u64 = 16 * 1024;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(
            start.max(len.saturating_sub(WINDOW)).min(len),
        ))?;
        let mut raw = Vec::new();
        file.read_to_end(&mut raw)?;
        Ok(raw)
    };
    let raw = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&raw);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_reads_only_what_came_after_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        fs::write(&path, "old\none\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&path, 4, 2), "two\nthree");
        assert_eq!(tail(&path, 4, 50), "one\ntwo\nthree");
        assert_eq!(tail(&path, 400, 50), "");
        assert_eq!(tail(&dir.path().join("absent"), 0, 5), "");
    }

    #[test]
    fn output_returns_stdout_and_reports_stderr() {
        let interrupt = Interrupt::default();
        let out = output(Command::new("sh").args(["-c", "echo yes"]), &interrupt).unwrap();
        assert_eq!(out, "yes\n");
        let error = output(
            Command::new("sh").args(["-c", "echo no; echo why >&2; exit 3"]),
            &interrupt,
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "`sh` ended with exit code 3: why");
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let error = output(
            &mut Command::new("balas-no-such-program"),
            &Interrupt::default(),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "cannot start `balas-no-such-program`");
    }

    #[test]
    fn a_service_is_stopped_and_its_end_is_described() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(dir.path().join("children"));
        let mut command = Command::new("sh");
        command.args(["-c", "echo started; exec sleep 600"]);
        let log = dir.path().join("sleep.log");
        let mut service = Service::spawn("sleeper", command, &log, &ledger).unwrap();
        assert!(service.exited().is_none());
        service.stop(Signal::SIGTERM, Duration::from_secs(30));
        let status = service.exited().unwrap();
        assert_eq!(describe_exit(status), "was killed by SIGTERM");
    }
}
