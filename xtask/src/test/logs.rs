//! Looks for secrets in everything that the product has logged while the tests ran.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::{Context as _, bail};

/// What may be in no line: secrets that tests give to the product or get from it, and what every token begins with.
const SECRETS: [&str; 8] = [
    "the-secret-of-the-tests",
    "the-service-key-of-the-tests",
    "planted-3f9c1b",
    "secret of the victim",
    "p@ss of the servers",
    "whsec_",
    "eyJ",
    "Bearer ",
];

/// How many lines there were.
///
/// # Errors
/// A secret is in one of them.
pub(crate) fn search(folder: &Path) -> anyhow::Result<usize> {
    let mut lines = 0;
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let log = BufReader::new(File::open(entry?.path())?);
        for line in log.split(b'\n') {
            let line = line?;
            lines += 1;
            let line = String::from_utf8_lossy(&line);
            if let Some(secret) = SECRETS.iter().find(|secret| line.contains(**secret)) {
                bail!("a secret ({secret}) was logged: {line}");
            }
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_any_line_of_any_log_is_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("1.log"), "one\ntwo\n").unwrap();
        fs::write(folder.path().join("2.log"), "three\n").unwrap();
        assert_eq!(search(folder.path()).unwrap(), 3);
        for secret in SECRETS {
            let text = format!("three\nfour {secret} five\nsix\n");
            fs::write(folder.path().join("2.log"), text).unwrap();
            let found = search(folder.path()).unwrap_err().to_string();
            assert!(found.contains(secret), "{found}");
        }
    }

    /// One that no test has would be looked for in vain.
    #[test]
    fn every_secret_is_one_of_the_tests() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let files = [
            "api/tests/it/common/client.rs",
            "api/tests/it/logs.rs",
            "api/tests/it/coverage.rs",
            "api/tests/it/sentinel.rs",
            "api/tests/it/traces.rs",
        ];
        let texts = files.map(|file| fs::read_to_string(root.join(file)).unwrap());
        // What every JSON Web Token begins with is made there.
        for secret in SECRETS.iter().filter(|secret| **secret != "eyJ") {
            assert!(texts.iter().any(|text| text.contains(secret)), "{secret}");
        }
    }
}
