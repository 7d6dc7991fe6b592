//! What the person at the terminal sees: progress on stderr, results on stdout.
//!
//! Writing never fails the command: a closed pipe (`cargo xtask up | head`) is the reader's choice.

use std::io::{IsTerminal as _, Write as _};

/// Prints a progress line in cargo's own style: a right-aligned verb, then what it is done to.
pub(crate) fn progress(verb: &str, text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = if stderr.is_terminal() {
        writeln!(stderr, "\x1b[1;32m{verb:>12}\x1b[0m {text}")
    } else {
        writeln!(stderr, "{verb:>12} {text}")
    };
}

/// Prints something the person should notice although the command goes on.
pub(crate) fn note(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = if stderr.is_terminal() {
        writeln!(stderr, "\x1b[1;33m{:>12}\x1b[0m {text}", "Note")
    } else {
        writeln!(stderr, "{:>12} {text}", "Note")
    };
}

/// Prints why the command stops and what to do about it.
pub(crate) fn error(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = if stderr.is_terminal() {
        writeln!(stderr, "\x1b[1;31merror\x1b[0m: {text}")
    } else {
        writeln!(stderr, "error: {text}")
    };
}

/// Prints a result on stdout, so that it can be piped.
pub(crate) fn result(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}");
    let _ = stdout.flush();
}

/// Hides the password of a URL: what is printed ends up in bug reports.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    match authority.rsplit_once('@') {
        Some((login, host)) => {
            let user = login.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:…@{host}{tail}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::without_password;

    #[test]
    fn passwords_are_hidden_and_the_rest_is_kept() {
        assert_eq!(
            without_password("postgres://me:s3cr@t@db:5432/balas?x=1"),
            "postgres://me:…@db:5432/balas?x=1"
        );
        assert_eq!(
            without_password("redis://:secret@127.0.0.1:6379"),
            "redis://:…@127.0.0.1:6379"
        );
        assert_eq!(
            without_password("redis://127.0.0.1/0?user=a@b"),
            "redis://127.0.0.1/0?user=a@b"
        );
        assert_eq!(without_password("nonsense"), "nonsense");
    }
}
