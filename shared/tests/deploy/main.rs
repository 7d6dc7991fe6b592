//! What operators deploy: alerts, the runbook, the dashboard, containers and manifests. Their files are read as they
//! are; what has a checker of its own is given to it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets something unexpected must fail where it does"
)]

mod alerts;
mod containers;
mod dashboard;
mod kubernetes;
mod promql;
#[cfg(target_os = "linux")]
mod redis;

use std::path::{Path, PathBuf};

/// The checkout.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// A file of the checkout.
pub(crate) fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A program that `cargo xtask test` found; none where it said that these tests are not run.
pub(crate) fn program(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}
