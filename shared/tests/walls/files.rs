//! What no file may be or hold.

use crate::source::Source;

/// Beyond this a module is missing.
const MOST_LINES: usize = 500;

/// Files that were larger when the rule came, with the lines they had. They may not grow, and leave
/// this list once they fit.
const TOO_LARGE: &[(&str, usize)] = &[];

/// Files whose code, tests aside, has outgrown one module.
pub(crate) fn sizes(sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        let tests = source
            .file()
            .lines()
            .position(|line| line.trim() == "#[cfg(test)]");
        let lines = tests.unwrap_or(source.file().lines().count());
        let known = TOO_LARGE.iter().find(|(path, _)| *path == source.path);
        let most = known.map_or(MOST_LINES, |(_, lines)| *lines);
        if lines > most {
            breaches.push(format!(
                "{}: {lines} lines, more than {most}: a module is missing (ARCHITECTURE.md, \"The map\")",
                source.path
            ));
        } else if known.is_some() && lines <= MOST_LINES {
            breaches.push(format!(
                "{}: it fits now; take it off the list of shared/tests/walls",
                source.path
            ));
        }
    }
    breaches
}

/// Paths of somebody's machine, and servers that stand in for the public registries: a fresh clone
/// must build anywhere.
const MACHINES: [&str; 4] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("C:\\", "Users"),
];
const MIRRORS: [&str; 5] = [
    concat!("[sour", "ce."),
    concat!("replace", "-with"),
    concat!("--index", "-url"),
    concat!("extra-index", "-url"),
    concat!("[regis", "tries"),
];
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(crate) fn machines(path: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let found = MACHINES
            .iter()
            .chain(&MIRRORS)
            .any(|sign| line.contains(sign));
        let source = line
            .strip_prefix("source = \"")
            .filter(|_| path.ends_with("Cargo.lock"));
        let elsewhere = source.is_some_and(|source| !source.starts_with(CRATES_IO));
        if found || elsewhere {
            breaches.push(format!(
                "{path}:{}: a path of one machine or another registry than the public one (CONTRIBUTING.md, \"Rules\")",
                number + 1
            ));
        }
    }
    breaches
}
