//! The open-loop load driver as a process.

use std::io::Write;

use clap::Parser;
use loadtest::driver::{Arguments, Conditions, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    loadtest::limits::raise_open_files()?;
    let mut out = std::io::stdout();
    // First of all, while nothing else uses the disk.
    writeln!(out, "{}", Conditions::measure(&arguments.common.fsync_dir)?)?;
    out.flush()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(run(&arguments))?;
    write!(out, "{report}")?;
    Ok(())
}
