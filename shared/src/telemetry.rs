//! Logs: one line per fact, JSON for machines or text for people.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::Vars;

/// How to log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// A level, or directives such as `info,balas=debug`.
    pub level: String,
    /// JSON lines instead of text.
    pub json: bool,
}

impl LogConfig {
    /// Reads `LOG_LEVEL` and `LOG_FORMAT`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let level: String = vars.get(
            "LOG_LEVEL",
            "info",
            "error, warn, info, debug, trace, or directives by module",
        );
        if EnvFilter::try_new(&level).is_err() {
            vars.problem("LOG_LEVEL", "must be a level or a list of directives");
        }
        let format: String = vars.get("LOG_FORMAT", "json", "json or, for people, pretty");
        // What pretty was called at first.
        if !matches!(format.as_str(), "json" | "pretty" | "text") {
            vars.problem("LOG_FORMAT", "must be json or pretty");
        }
        Self {
            level,
            json: format == "json",
        }
    }
}

/// Sends the logs of this process to standard error. A second call changes nothing, so that two
/// apps can live in one test.
pub fn init(config: &LogConfig) {
    let filter = EnvFilter::try_new(&config.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    let installed = if config.json {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init()
    } else {
        let for_a_person = std::io::IsTerminal::is_terminal(&std::io::stderr());
        builder.with_ansi(for_a_person).try_init()
    };
    drop(installed);
}
