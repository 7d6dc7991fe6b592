//! API keys in a file, such as a mounted secret, that is read again whenever it changes.

use std::path::Path;
use std::time::Duration;

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};

use super::Client;

/// Between two looks. A mounted secret is replaced by another file of the same name, so it is read and
/// compared and not watched.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The longest file that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// Reads the keys: one a line, or several with commas between them; what follows a `#` at the
/// beginning of a line is for people.
///
/// # Errors
/// What is wrong with the file; never what is in it.
pub(super) fn read(path: &Path) -> Result<Vec<SecretString>, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if size.len() > MAX_BYTES {
        return Err("it is too long".to_owned());
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let lines = text.lines().map(str::trim);
    let keys = lines.filter(|line| !line.starts_with('#'));
    let keys = keys.flat_map(|line| line.split(',')).map(str::trim);
    let keys: Vec<SecretString> = keys
        .filter(|key| !key.is_empty())
        .map(SecretString::from)
        .collect();
    if keys.is_empty() {
        return Err("it has no keys".to_owned());
    }
    if keys
        .iter()
        .any(|key| HeaderValue::from_str(key.expose_secret()).is_err())
    {
        return Err("a key has characters that no header can carry".to_owned());
    }
    Ok(keys)
}

/// Looks at the file for ever, where there is one. One that cannot be used changes nothing.
pub async fn watch_keys(client: &Client) {
    let Some(path) = &client.config().keys_file else {
        return std::future::pending().await;
    };
    let mut complaint = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let own = path.clone();
        let reading = tokio::task::spawn_blocking(move || read(&own)).await;
        match reading.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(keys) => {
                complaint = None;
                let said = client.config().keys.iter().cloned();
                let (came, went) = client.keys.replace(said.chain(keys));
                if !came.is_empty() || !went.is_empty() {
                    tracing::info!(?came, ?went, "the API keys have changed");
                }
            }
            // Once, and not every five seconds.
            Err(error) if complaint.as_ref() != Some(&error) => {
                tracing::error!(
                    error,
                    "OPENROUTER_API_KEYS_FILE cannot be used; the keys stay"
                );
                complaint = Some(error);
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_key_a_line_and_a_broken_one_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        assert!(read(&path).is_err(), "there is none");
        let keys = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let keys = read(&path)?;
            let keys = keys.iter().map(|key| key.expose_secret().to_owned());
            Ok::<_, String>(keys.collect::<Vec<_>>().join(" "))
        };
        let text = "# not a key, but text\nsk-one\r\n\n sk-two , sk-three,\n";
        assert_eq!(keys(text).unwrap(), "sk-one sk-two sk-three");
        assert_eq!(keys("\n# sk-old\n").unwrap_err(), "it has no keys");
        let wrong = keys("sk-\u{7}one").unwrap_err();
        assert!(!wrong.contains("sk-"), "{wrong}");
        let long = "k".repeat(70_000);
        assert_eq!(keys(&long).unwrap_err(), "it is too long");
    }
}
