//! The memory of another process.

use anyhow::Context;

/// Resident memory of a process, in kibibytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub now_kib: u64,
    /// The most it ever was.
    pub peak_kib: u64,
}

/// Reads the memory of process `pid`.
///
/// # Errors
/// There is no such process, or no /proc to read it from (Linux only).
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line
            .and_then(|line| line.split_whitespace().next())
            .and_then(|number| number.parse().ok());
        number.with_context(|| format!("{path} has no {name}"))
    };
    Ok(Memory {
        now_kib: field("VmRSS:")?,
        peak_kib: field("VmHWM:")?,
    })
}

/// Kibibytes as text in MB (10⁶ bytes), the unit of the budgets.
pub(crate) fn megabytes(kib: u64) -> String {
    format!("{:.1} MB", kib as f64 * 1.024 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_memory() {
        let own = memory(std::process::id()).unwrap();
        assert!(own.now_kib > 100 && own.peak_kib >= own.now_kib / 2);
        assert!(memory(u32::MAX).is_err());
        assert_eq!(megabytes(1_000_000), "1024.0 MB");
    }
}
