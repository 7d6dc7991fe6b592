//! The process's own limits: how many files it may open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard limit and returns the limit now in force.
///
/// A stream and an idle socket cost one descriptor each, and the usual soft limit of 1,024 is
/// far below the 10,000 that both binaries are made for.
///
/// # Errors
/// The system refused to read or set the limit.
pub fn raise_open_files() -> std::io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}
