//! The list of children on disk, in the form of `cargo xtask`, which reads it when this process was
//! killed and could not stop them.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;

/// One line per child: process id, start time, name.
#[derive(Debug, Clone)]
pub(crate) struct Children(PathBuf);

impl Children {
    /// Opens the list and notes this very process, first: it is to be stopped last.
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        let children = Self(path);
        children.add(std::process::id(), "the fault suite")?;
        Ok(children)
    }

    pub(crate) fn add(&self, process: u32, name: &str) -> anyhow::Result<()> {
        let Some(started) = start_time(process) else {
            return Ok(()); // It has ended already.
        };
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.0)?;
            writeln!(file, "{process}\t{started}\t{name}")
        };
        write().with_context(|| format!("failed to write {}", self.0.display()))
    }
}

/// Field 22 of `/proc/<pid>/stat`. The name in field 2 may hold spaces and brackets, so counting
/// starts after the last one.
fn start_time(process: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_has_a_start_time() {
        let own = start_time(std::process::id()).unwrap();
        assert!(own.parse::<u64>().unwrap() > 0);
        assert_eq!(start_time(u32::MAX), None);
    }
}
