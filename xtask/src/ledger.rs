//! The list of children a run has started, on disk. A run that was killed with `kill -9` cannot
//! stop its servers; the next run reads the list and does it.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};

use crate::process::pid;

/// One file with a line per child: process id, start time, name.
#[derive(Debug, Clone)]
pub(crate) struct Ledger(PathBuf);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    pid: u32,
    started: String,
    name: String,
}

impl Ledger {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Where it is, for a child that starts children of its own and adds them in the same form.
    pub(crate) fn file(&self) -> &std::path::Path {
        &self.0
    }

    /// Remembers a child. The start time is part of it because process ids are used again.
    pub(crate) fn add(&self, child: u32, name: &str) -> anyhow::Result<()> {
        let Some(started) = start_time(child) else {
            return Ok(()); // It has ended already.
        };
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.0)
            .with_context(|| format!("cannot write {}", self.0.display()))?;
        writeln!(file, "{child}\t{started}\t{name}")
            .with_context(|| format!("cannot write {}", self.0.display()))
    }

    /// Stops what an earlier run left running and forgets it. Returns the names of what was stopped.
    ///
    /// Later children depend on earlier ones (api on Postgres), so they go first.
    pub(crate) fn sweep(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let mut alive: Vec<Entry> = text
            .lines()
            .filter_map(parse)
            .filter(|entry| start_time(entry.pid).as_deref() == Some(entry.started.as_str()))
            .collect();
        alive.reverse();
        for entry in &alive {
            stop(entry);
        }
        let _ = fs::remove_file(&self.0);
        alive.into_iter().map(|entry| entry.name).collect()
    }
}

fn stop(entry: &Entry) {
    // SIGINT is Postgres's "fast" shutdown; SIGTERM would wait for its clients to leave.
    for (signal, grace) in [
        (Signal::SIGINT, Duration::from_secs(20)),
        (Signal::SIGQUIT, Duration::from_secs(5)),
        (Signal::SIGKILL, Duration::from_secs(5)),
    ] {
        let _ = kill(pid(entry.pid), signal);
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            if start_time(entry.pid).as_deref() != Some(entry.started.as_str()) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn parse(line: &str) -> Option<Entry> {
    let mut fields = line.splitn(3, '\t');
    Some(Entry {
        pid: fields.next()?.parse().ok()?,
        started: fields.next()?.to_owned(),
        name: fields.next()?.to_owned(),
    })
}

/// When a process started, in whatever unit the system counts; `None` when it does not run.
fn start_time(process: u32) -> Option<String> {
    if cfg!(target_os = "linux") {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        return start_time_of_stat(&stat);
    }
    let out = std::process::Command::new("ps")
        .args(["-o", "lstart=", "-p", &process.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// Field 22 of `/proc/<pid>/stat` (man 5 proc). The name in field 2 may hold spaces and brackets,
/// so counting starts after the last one. A zombie has ended, only nobody has asked how.
fn start_time_of_stat(stat: &str) -> Option<String> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt as _, process::Command};

    use super::*;

    #[test]
    fn the_start_time_is_found_behind_an_awkward_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 998877 12 13";
        assert_eq!(start_time_of_stat(stat).as_deref(), Some("998877"));
        let zombie = stat.replace(" S ", " Z ");
        assert_eq!(start_time_of_stat(&zombie), None);
        assert_eq!(start_time_of_stat(""), None);
    }

    #[test]
    fn a_sweep_stops_what_is_ours_and_spares_a_reused_process_id() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::at(dir.path().join("children"));
        let mut ours = Command::new("sleep")
            .arg("600")
            .process_group(0)
            .spawn()
            .unwrap();
        let mut other = Command::new("sleep")
            .arg("600")
            .process_group(0)
            .spawn()
            .unwrap();
        ledger.add(ours.id(), "ours").unwrap();
        // The same process id, but another start time: a stranger who inherited the number.
        let line = format!("{}\t1\tstale\nrubbish\n", other.id());
        let mut file = fs::OpenOptions::new().append(true).open(&ledger.0).unwrap();
        file.write_all(line.as_bytes()).unwrap();

        assert_eq!(ledger.sweep(), ["ours"]);
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
        assert!(!ledger.0.exists());
        assert!(ledger.sweep().is_empty());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
