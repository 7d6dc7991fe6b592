//! What the product logs while tests run, kept for the search for secrets at the end of `cargo xtask test`.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tracing_subscriber::EnvFilter;

use crate::config::Vars;

/// The file of this test's process; none where nobody looks at it.
fn file() -> Option<&'static Arc<File>> {
    static FILE: OnceLock<Option<Arc<File>>> = OnceLock::new();
    let open = || {
        let mut vars = Vars::from_process();
        let folder: String = vars.optional("TEST_LOG_DIR", "set by cargo xtask test")?;
        let path = PathBuf::from(folder).join(format!("{}.log", std::process::id()));
        let file = File::options().create(true).append(true).open(path);
        Some(Arc::new(file.expect("the folder of the logs is there")))
    };
    FILE.get_or_init(open).as_ref()
}

/// Keeps what is logged in this process from now on, as an operator would have it.
pub(super) fn keep() {
    let Some(file) = file() else { return };
    let kept = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        // The simulator is no part of the product.
        .with_env_filter(EnvFilter::new("info,loadtest=off"))
        .with_writer(Arc::clone(file))
        .try_init();
    // Another test of the process was first.
    drop(kept);
}

/// Keeps a line that a process under test has logged.
pub fn keep_line(line: &str) {
    if let Some(file) = file() {
        // One write, so that lines of several threads do not mix.
        let kept = file.as_ref().write_all(format!("{line}\n").as_bytes());
        kept.expect("there is room for the logs");
    }
}
