//! I7: memory comes back.
//!
//! The measure is honest only between two like moments: after a crowd of the same size has been
//! served and has gone. What Redis keeps for a set time (event logs, limits) is deleted before each
//! measure, as time would delete it; what then is left must not have grown. The resident memory of a
//! process counts from its own start, so each kind of process is held against the largest of its kind
//! before the faults.

use std::collections::BTreeMap;

use anyhow::Context;
use loadtest::driver::memory;

use super::Verdict;
use crate::fleet::{Fleet, Server};

/// Growth that is allowed, ...
const PERCENT: u64 = 10;
/// ... and what an allocator takes in one step. What Redis holds is counted exactly.
fn step_kib(kind: &str) -> u64 {
    if kind == "redis" { 1024 } else { 12 * 1024 }
}

/// Kibibytes by kind of process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Baseline(BTreeMap<&'static str, u64>);

/// Measures everything, each kind by its largest process.
pub(crate) async fn measure(fleet: &mut Fleet) -> anyhow::Result<Baseline> {
    let mut sizes = BTreeMap::new();
    for (kind, members) in [("api", &fleet.apis), ("worker", &fleet.workers)] {
        for member in members {
            let id = member.process.id().context("a process is not running")?;
            let size = sizes.entry(kind).or_insert(0);
            *size = (*size).max(memory(id)?.now_kib);
        }
    }
    sizes.insert("redis", redis_kib(&fleet.redis).await?);
    Ok(Baseline(sizes))
}

/// What Redis uses for what has no end of its own.
async fn redis_kib(redis: &Server) -> anyhow::Result<u64> {
    const DELETE: &str = "local cursor = '0' repeat local page = redis.call('SCAN', cursor, 'COUNT', 1000) cursor = page[1] \
        for _, key in ipairs(page[2]) do if redis.call('TTL', key) >= 0 then redis.call('UNLINK', key) end end until cursor == '0'";
    let mut delete = redis::cmd("EVAL");
    delete.arg(DELETE).arg(0);
    redis.redis(delete).await?;
    let mut info = redis::cmd("INFO");
    info.arg("memory");
    let answer = redis.redis(info).await?;
    let text: String = redis::from_redis_value(answer).context("INFO is no text")?;
    used_kib(&text).context("INFO has no used_memory_dataset")
}

/// The data alone: buffers of connections and of the append-only file come and go.
fn used_kib(info: &str) -> Option<u64> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory_dataset:"))?;
    Some(line.trim().parse::<u64>().ok()? / 1024)
}

impl Baseline {
    /// Compares what is now with what was before.
    pub(crate) fn judge(&self, now: &Self) -> Verdict {
        let mut breaches = Vec::new();
        let mut counts = Vec::new();
        for (kind, before) in &self.0 {
            let after = now.0.get(kind).copied().unwrap_or(0);
            let megabytes = |kib: u64| kib as f64 / 1024.0;
            let text = format!(
                "{kind} {:.1} → {:.1} MiB",
                megabytes(*before),
                megabytes(after)
            );
            if after > before + before * PERCENT / 100 + step_kib(kind) {
                breaches.push(text.clone());
            }
            counts.push(text);
        }
        Verdict {
            name: "I7",
            promise: "memory comes back",
            counts: counts.join(", "),
            breaches,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_beyond_a_tenth_and_a_step_is_a_breach() {
        let sizes = |api: u64, redis: u64| Baseline([("api", api), ("redis", redis)].into());
        let before = sizes(100_000, 2_000);
        assert!(before.judge(&sizes(122_000, 1_000)).breaches.is_empty());
        let verdict = before.judge(&sizes(122_500, 3_300));
        assert_eq!(verdict.breaches.len(), 2, "{verdict:?}");
    }

    #[test]
    fn the_size_of_the_data_is_read() {
        assert_eq!(
            used_kib("# Memory\r\nused_memory:9\r\nused_memory_dataset:4096\r\n"),
            Some(4)
        );
        assert_eq!(used_kib(""), None);
    }
}
