//! The short run of the fault suite, with a fixed seed, as everybody would start it.

use std::path::Path;
use std::process::Command;

/// Chosen for a mixture of faults of every kind.
const SEED: &str = "7";

#[test]
fn two_minutes_of_faults_break_no_promise() {
    let test = std::env::current_exe().unwrap();
    // …/deps/short_run-… → …/xtask
    let xtask = test.ancestors().nth(2).unwrap().join("xtask");
    assert!(
        xtask.is_file(),
        "{} is not built: run the tests with `cargo xtask test`",
        xtask.display()
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let status = Command::new(xtask)
        .args(["chaos", "--no-build", "--minutes", "2", "--seed", SEED])
        .current_dir(root)
        .status()
        .unwrap();
    assert!(status.success(), "see above");
}
