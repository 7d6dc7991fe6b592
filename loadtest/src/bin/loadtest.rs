//! The open-loop load driver as a process.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use loadtest::driver::{
    Arguments, Command, Common, Compare, Conditions, Scenario, Verdict, compare, run,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What `compare` exits with when it cannot say.
const UNKNOWN: u8 = 2;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    match &arguments.command {
        Command::Load(scenario) => load(&arguments.common, scenario).map(|()| ExitCode::SUCCESS),
        Command::Compare(options) => Ok(judge(options).unwrap_or_else(|error| {
            // Nobody may be reading; the exit code says it as well.
            let _ = writeln!(std::io::stderr(), "Error: {error:#}");
            ExitCode::from(UNKNOWN)
        })),
    }
}

fn load(common: &Common, scenario: &Scenario) -> anyhow::Result<()> {
    loadtest::limits::raise_open_files()?;
    let mut out = std::io::stdout();
    // First of all, while nothing else uses the disk.
    let conditions = Conditions::measure(&common.fsync_dir)?;
    writeln!(out, "{conditions}")?;
    out.flush()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(run(common, scenario))?;
    write!(out, "{report}")?;
    if let (Scenario::Shape(shape), Some(mut record)) = (scenario, report.record) {
        record.conditions = conditions.rows();
        let path = shape.path();
        record.save(&path)?;
        let shown = path.display();
        writeln!(
            out,
            "Written: {shown}.json (for `loadtest compare`), {shown}.html (to look at)"
        )?;
    }
    Ok(())
}

fn judge(options: &Compare) -> anyhow::Result<ExitCode> {
    let comparison = compare(options)?;
    write!(std::io::stdout(), "{comparison}")?;
    Ok(match comparison.verdict() {
        Verdict::Worse => ExitCode::FAILURE,
        Verdict::Same | Verdict::Better => ExitCode::SUCCESS,
    })
}
