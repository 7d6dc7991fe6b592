//! The conditions of a run: numbers mean nothing without them.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Context;

/// How often the disk is timed.
const SYNCS: usize = 200;

/// What a run's numbers depend on.
#[derive(Debug)]
pub struct Conditions {
    /// Cores this process may use.
    pub cores: usize,
    /// The processor's name.
    pub processor: String,
    /// The kernel.
    pub kernel: String,
    /// How fast the disk makes 4 KiB durable.
    pub fdatasync: Fdatasync,
    /// The commit, with a mark when the tree differs from it.
    pub revision: String,
    /// This crate's version.
    pub version: &'static str,
    /// How this binary was built.
    pub profile: &'static str,
}

/// Times of write + fdatasync of 4 KiB, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fdatasync {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

impl Conditions {
    /// Looks around, and times the disk under `directory`.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub fn measure(directory: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            processor: line_of("/proc/cpuinfo", "model name"),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
            fdatasync: fdatasync(directory)?,
            revision: revision(),
            version: env!("CARGO_PKG_VERSION"),
            profile: if cfg!(debug_assertions) {
                "debug (not comparable: build with --release)"
            } else {
                "release"
            },
        })
    }
}

impl Conditions {
    /// Each with its name.
    #[must_use]
    pub fn rows(&self) -> Vec<(String, String)> {
        let Fdatasync { p50, p99 } = self.fdatasync;
        let row = |name: &str, value: String| (name.to_owned(), value);
        vec![
            row("cores", format!("{} ({})", self.cores, self.processor)),
            row("kernel", self.kernel.clone()),
            (
                format!("write + fdatasync of 4 KiB, {SYNCS} times"),
                format!("p50 {p50:.2} ms, p99 {p99:.2} ms"),
            ),
            row("revision", self.revision.clone()),
            row(
                "loadtest",
                format!("{}, {} build", self.version, self.profile),
            ),
        ]
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| condition | value |\n|---|---|")?;
        let mut rows = self.rows().into_iter();
        rows.try_for_each(|(name, value)| writeln!(f, "| {name} | {value} |"))
    }
}

fn fdatasync(directory: &Path) -> anyhow::Result<Fdatasync> {
    let name = format!("loadtest-fdatasync-{}.tmp", std::process::id());
    let path = directory.join(name);
    let timed = time_syncs(&path).with_context(|| format!("failed to time {}", path.display()));
    // The file is of no use to anybody, also when the timing failed half-way.
    let _ = std::fs::remove_file(&path);
    let mut millis = timed?;
    millis.sort_by(f64::total_cmp);
    Ok(Fdatasync {
        p50: millis[SYNCS / 2],
        p99: millis[SYNCS * 99 / 100],
    })
}

fn time_syncs(path: &Path) -> std::io::Result<Vec<f64>> {
    let mut file = std::fs::File::create(path)?;
    let block = [0x5a_u8; 4_096];
    let mut millis = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        millis.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(millis)
}

fn revision() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .output()
            .ok()
            .filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match (
        git(&["rev-parse", "--short=12", "HEAD"]),
        git(&["status", "--porcelain", "--untracked-files=no"]),
    ) {
        (Some(commit), Some(changes)) if changes.is_empty() => commit,
        (Some(commit), _) => format!("{commit} with changes"),
        (None, _) => "unknown".to_owned(),
    }
}

fn line_of(path: &str, name: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .and_then(|line| line.split_once(':'));
    line.map_or_else(
        || "unknown".to_owned(),
        |(_, value)| value.trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_the_disk_and_cleans_up() {
        let directory = std::env::temp_dir();
        let timed = fdatasync(&directory).unwrap();
        assert!(timed.p50 > 0.0 && timed.p99 >= timed.p50);
        let own = format!("loadtest-fdatasync-{}.tmp", std::process::id());
        assert!(!directory.join(own).exists());
        assert!(fdatasync(Path::new("/nonexistent")).is_err());
    }
}
