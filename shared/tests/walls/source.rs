//! The files of the project, and Rust sources without what is not code.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Built, fetched or private: not part of the project.
const NOT_OURS: [&str; 4] = ["target", ".git", ".local", "node_modules"];

/// A Rust file.
pub(crate) struct Source {
    /// From the root of the project, with slashes.
    pub(crate) path: String,
    file: String,
    stripped: OnceLock<(String, String)>,
}

pub(crate) struct Tree {
    /// Every text file.
    pub(crate) files: Vec<(String, String)>,
    pub(crate) sources: Vec<Source>,
    /// Path and text of each `Cargo.toml`.
    pub(crate) manifests: Vec<(String, String)>,
}

impl Tree {
    pub(crate) fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files = Vec::new();
        collect(root, root, &mut files);
        files.sort();
        let named = |end: &'static str| files.iter().filter(move |(path, _)| path.ends_with(end));
        let sources: Vec<_> = named(".rs")
            .map(|(path, text)| Source::new(path, text))
            .collect();
        let manifests: Vec<_> = named("Cargo.toml").cloned().collect();
        assert!(
            sources.len() > 100 && manifests.len() > 5,
            "the project is not at {}",
            root.display()
        );
        Self {
            files,
            sources,
            manifests,
        }
    }

    pub(crate) fn text(&self, path: &str) -> String {
        let found = self.files.iter().find(|(known, _)| known == path);
        found
            .unwrap_or_else(|| panic!("there is no {path}"))
            .1
            .clone()
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if NOT_OURS.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path
                .strip_prefix(root)
                .unwrap()
                .to_string_lossy()
                .replace('\\', "/");
            files.push((path, text));
        }
    }
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            file: text.to_owned(),
            stripped: OnceLock::new(),
        }
    }

    /// The file as it is.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// Without comments, line by line.
    pub(crate) fn text(&self) -> &str {
        &self.stripped.get_or_init(|| without_comments(&self.file)).0
    }

    /// Without comments and what is in quotes, line by line.
    pub(crate) fn code(&self) -> &str {
        &self.stripped.get_or_init(|| without_comments(&self.file)).1
    }

    /// Whether only tests are in it.
    pub(crate) fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.path.contains("/tests/") || name == "tests.rs" || name.ends_with("_tests.rs")
    }
}

/// The lines on which `name` stands as a word of its own.
pub(crate) fn lines_naming<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let of_a_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let stands_alone = move |line: &str| {
        line.match_indices(name).any(|(at, _)| {
            !line[..at].ends_with(of_a_word) && !line[at + name.len()..].starts_with(of_a_word)
        })
    };
    text.lines()
        .enumerate()
        .filter(move |(_, line)| stands_alone(line))
        .map(|(number, _)| number + 1)
}

/// The text without comments, and the same without what is in quotes as well.
fn without_comments(text: &str) -> (String, String) {
    let (mut kept, mut code) = (String::new(), String::new());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let (length, is_comment, is_quoted) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), true, true)
        } else if rest.starts_with("/*") {
            (block_comment(rest), true, true)
        } else if let Some(length) = quoted(rest, code.chars().next_back()) {
            (length, false, true)
        } else {
            (letter.len_utf8(), false, false)
        };
        let (part, after) = rest.split_at(length);
        let lines: String = part.chars().filter(|letter| *letter == '\n').collect();
        kept.push_str(if is_comment { &lines } else { part });
        code.push_str(if is_quoted { &lines } else { part });
        rest = after;
    }
    (kept, code)
}

/// How long the block comment is that begins here.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// How long the quoted text is that begins here, if one does.
fn quoted(text: &str, before: Option<char>) -> Option<usize> {
    if text.starts_with('"') {
        return Some(until_quote(text, '"'));
    }
    // A raw one: r, hashes, a quote; unless the r ends a name.
    let in_name = before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    if let Some(hashes) = text
        .strip_prefix('r')
        .filter(|_| !in_name || before == Some('b'))
    {
        let opening = hashes.find(|letter| letter != '#')?;
        if hashes[opening..].starts_with('"') {
            let closing = format!("\"{}", "#".repeat(opening));
            let body = 1 + opening + 1;
            let length = text[body..]
                .find(&closing)
                .map(|at| body + at + closing.len());
            return Some(length.unwrap_or(text.len()));
        }
        return None;
    }
    // A letter, not a lifetime.
    let inner = text.strip_prefix('\'')?;
    let letter = inner.chars().next()?;
    if letter == '\\' || inner[letter.len_utf8()..].starts_with('\'') {
        return Some(until_quote(text, '\''));
    }
    None
}

fn until_quote(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}
