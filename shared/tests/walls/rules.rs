//! Who may know what.

use crate::source::{Source, lines_naming};

/// A word that only some parts may use.
pub(crate) struct Name {
    /// Any of them is a breach.
    words: &'static [&'static str],
    /// Where the rule holds; everywhere when empty.
    inside: &'static [&'static str],
    /// Where it does not.
    home: &'static [&'static str],
    wall: &'static str,
}

/// Parts that the design names and that come with a later feature.
pub(crate) const PLANNED: &[&str] = &[];

pub(crate) const NAMES: &[Name] = &[
    Name {
        words: &["sqlx"],
        inside: &[],
        // The task runner names no such crate: `sqlx` is a subcommand of it.
        home: &["shared/src/store/", "shared/src/testing/", "xtask/src/"],
        wall: "only shared::store (and the test harness) may name sqlx: every statement lives there, in a scope",
    },
    Name {
        words: &["apalis", "apalis_core", "apalis_redis"],
        inside: &[],
        home: &["worker/src/queue/", "worker/src/handle.rs"],
        wall: "only worker::queue and worker::handle may name apalis: it could be replaced there",
    },
    Name {
        words: &["axum"],
        inside: &[],
        home: &["api/", "loadtest/"],
        wall: "only the API (and the simulator) may name axum: nobody else knows of HTTP handlers",
    },
    Name {
        words: &["lapin"],
        inside: &[],
        // The tests play the other side.
        home: &[
            "worker/src/inbound/",
            "worker/src/outbound/",
            "worker/tests/notifications/",
            "worker/tests/assessments/",
        ],
        wall: "only worker::inbound and worker::outbound may name lapin",
    },
    Name {
        words: &[
            "opentelemetry",
            "opentelemetry_sdk",
            "opentelemetry_otlp",
            "opentelemetry_proto",
        ],
        inside: &[],
        // The tests play the collector.
        home: &["shared/src/traces/", "api/tests/it/common/"],
        wall: "only shared::traces may name opentelemetry: everybody else makes spans",
    },
    Name {
        words: &["unsafe"],
        inside: &[],
        home: &[],
        wall: "no unsafe code",
    },
    Name {
        words: &["worker", "balas_worker"],
        inside: &["api/src/"],
        home: &[],
        wall: "the API does not know the worker: they meet in Postgres and Redis",
    },
    Name {
        words: &["api", "balas_api"],
        inside: &["worker/src/"],
        home: &[],
        wall: "the worker does not know the API: they meet in Postgres and Redis",
    },
    Name {
        words: &["api", "worker", "balas_api", "balas_worker", "loadtest"],
        inside: &["shared/src/"],
        home: &[],
        wall: "shared does not know who uses it",
    },
    Name {
        words: &["store", "redis", "queue", "push", "lapin"],
        inside: &["platform/src/"],
        home: &[],
        wall: "platform asks other services and knows nothing of ours",
    },
    Name {
        words: &["store", "redis", "queue", "push"],
        inside: &["worker/src/upstream/"],
        home: &[],
        wall: "worker::upstream knows neither the database nor Redis",
    },
    Name {
        words: &[
            "async", "await", "tokio", "store", "redis", "queue", "push", "reqwest",
        ],
        inside: &["worker/src/prompt/"],
        home: &[],
        wall: "worker::prompt is made of pure functions",
    },
    Name {
        words: &["async", "await", "tokio", "redis", "fs", "net"],
        inside: &["shared/src/domain/"],
        home: &[],
        wall: "shared::domain is the vocabulary and does no I/O",
    },
    Name {
        words: &["redis", "push", "queue", "reqwest", "http", "hyper"],
        inside: &["shared/src/store/"],
        home: &[],
        wall: "shared::store knows neither Redis nor HTTP: Postgres decides alone",
    },
];

impl Name {
    fn holds_in(&self, path: &str) -> bool {
        let under = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
        (self.inside.is_empty() || under(self.inside)) && !under(self.home)
    }

    pub(crate) fn breaches(&self, sources: &[Source]) -> Vec<String> {
        let mut breaches = Vec::new();
        for source in sources.iter().filter(|source| self.holds_in(&source.path)) {
            for word in self.words {
                // A local variable or a method may be called like a module; a path is a path.
                let is_keyword = ["unsafe", "async", "await"].contains(word);
                // Most files need no closer look.
                if !source.file().contains(word) {
                    continue;
                }
                for line in lines_naming(source.code(), word) {
                    let text = source.code().lines().nth(line - 1).unwrap_or_default();
                    if is_keyword || is_path(text, word) {
                        breaches.push(breach(&source.path, line, self.wall, "The map"));
                    }
                }
            }
        }
        breaches.dedup();
        breaches
    }
}

/// Whether the line uses the word as a crate or a module: `word::…`, `use word`, `{word, …}` in a use.
fn is_path(line: &str, word: &str) -> bool {
    let is_use = line
        .trim_start()
        .trim_start_matches("pub ")
        .starts_with("use ")
        || line.contains("extern crate");
    is_use || line.contains(&format!("{word}::")) && !line.contains(&format!(".{word}::"))
}

fn breach(path: &str, line: usize, wall: &str, section: &str) -> String {
    format!("{path}:{line}: {wall} (ARCHITECTURE.md, \"{section}\")")
}

/// The folders that the rules are about.
pub(crate) fn homes() -> impl Iterator<Item = (&'static str, &'static str)> {
    NAMES.iter().flat_map(|rule| {
        rule.inside
            .iter()
            .chain(rule.home)
            .map(|folder| (*folder, rule.wall))
    })
}

/// Words of the gateway's JSON that mean nothing else.
const GATEWAY_WORDS: [&str; 8] = [
    "choices",
    "finish_reason",
    "native_finish_reason",
    "prompt_tokens_details",
    "completion_tokens_details",
    "reasoning_content",
    "stream_options",
    "x-generation-id",
];

/// Only the upstream client knows what the gateway's JSON looks like.
pub(crate) fn gateway_json(sources: &[Source]) -> Vec<String> {
    let wall =
        "only worker::upstream may know the gateway's JSON: another provider is a change there";
    let mut breaches = Vec::new();
    for source in sources {
        let knows = [
            "worker/src/upstream/",
            "worker/tests/",
            "loadtest/",
            "shared/tests/walls/",
        ];
        if knows.iter().any(|folder| source.path.starts_with(folder)) {
            continue;
        }
        let file = source.file().to_lowercase();
        for word in GATEWAY_WORDS.iter().filter(|word| file.contains(**word)) {
            // The reason is stored with the reply's metadata, as a word that nobody there reads.
            let tells = ["worker/src/jobs/finish.rs", "api/tests/"]
                .iter()
                .any(|home| source.path.starts_with(home));
            if *word == "finish_reason" && tells {
                continue;
            }
            let text = source.text().to_lowercase();
            breaches.extend(
                lines_naming(&text, word).map(|line| breach(&source.path, line, wall, "The map")),
            );
        }
    }
    breaches
}

/// What each package may not depend on, development aside.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "shared",
        &[
            "axum",
            "apalis",
            "apalis-core",
            "lapin",
            "reqwest",
            "hyper",
            "balas-api",
            "balas-worker",
            "loadtest",
            "chaos",
        ],
    ),
    (
        "platform",
        &[
            "axum",
            "sqlx",
            "redis",
            "lapin",
            "balas-api",
            "balas-worker",
        ],
    ),
    (
        "api",
        &[
            "sqlx",
            "redis",
            "apalis",
            "apalis-core",
            "lapin",
            "balas-worker",
            "loadtest",
        ],
    ),
    (
        "worker",
        &[
            "sqlx",
            "axum",
            "balas-api",
            "loadtest",
            "apalis-redis",
            "apalis-sql",
        ],
    ),
    (
        "loadtest",
        &[
            "sqlx",
            "redis",
            "apalis",
            "apalis-core",
            "shared",
            "balas-api",
            "balas-worker",
        ],
    ),
    (
        "chaos",
        &[
            "sqlx",
            "axum",
            "apalis",
            "apalis-core",
            "lapin",
            "balas-api",
            "balas-worker",
        ],
    ),
    (
        "xtask",
        &[
            "sqlx",
            "redis",
            "axum",
            "shared",
            "balas-api",
            "balas-worker",
            "loadtest",
            "chaos",
        ],
    ),
];

/// `api → shared ← worker`, and nothing else.
pub(crate) fn dependencies(manifests: &[(String, String)]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, text) in manifests {
        let package = path.trim_end_matches("/Cargo.toml");
        let Some((_, forbidden)) = FORBIDDEN.iter().find(|(name, _)| *name == package) else {
            continue;
        };
        let mut in_table = false;
        for (number, line) in text.lines().enumerate() {
            let mut named = None;
            if let Some(table) = line.trim().strip_prefix('[') {
                let table = table.trim_end_matches(']');
                let is_dev = table.contains("dev-dependencies");
                in_table = table.ends_with("dependencies") && !is_dev;
                if !is_dev {
                    named = table.split_once("dependencies.").map(|(_, name)| name);
                }
            } else if in_table {
                named = line.split(['.', '=', ' ']).next();
            }
            if let Some(name) = named
                && forbidden.contains(&name)
            {
                let wall =
                    format!("{package} may not depend on {name}: dependencies point one way");
                breaches.push(breach(path, number + 1, &wall, "The map"));
            }
        }
    }
    breaches
}

/// Lints that stand for rules of their own: no unwrap outside tests, no missing documentation, …
const LINTS: [&str; 7] = [
    "unsafe_code = \"forbid\"",
    "missing_docs = \"warn\"",
    "unwrap_used = \"warn\"",
    "expect_used = \"warn\"",
    "print_stdout = \"warn\"",
    "allow_attributes_without_reason = \"warn\"",
    "await_holding_lock = \"warn\"",
];
/// What has one home each.
const BANNED: [&str; 5] = [
    "std::env::var",
    "std::time::SystemTime::now",
    "time::OffsetDateTime::now_utc",
    "tokio::spawn",
    "uuid::Uuid::now_v7",
];

pub(crate) fn lints(manifests: &[(String, String)], clippy: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, text) in manifests {
        if path == "Cargo.toml" {
            let missing = LINTS.iter().filter(|lint| !text.contains(**lint));
            breaches.extend(missing.map(|lint| {
                format!("{path}: the lint {lint} is gone (CONTRIBUTING.md, \"Rules\")")
            }));
        } else if !text.contains("[lints]\nworkspace = true") {
            breaches.push(format!(
                "{path}: the workspace's lints are not on (CONTRIBUTING.md, \"Rules\")"
            ));
        }
    }
    let missing = BANNED
        .iter()
        .filter(|banned| !clippy.contains(&format!("\"{banned}\"")));
    breaches.extend(
        missing.map(|banned| {
            format!("clippy.toml: {banned} is not banned (CONTRIBUTING.md, \"Rules\")")
        }),
    );
    breaches
}
