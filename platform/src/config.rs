//! Where the services are, as an operator sets it.

use std::time::Duration;

use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};
use shared::config::Vars;
use shared::domain::assessment::{Language, Spoken};

/// The platform's services.
#[derive(Clone, Debug)]
pub struct PlatformConfig {
    /// The archive of results.
    pub archive: Option<ServiceAddress>,
    /// The auth service.
    pub auth: Option<ServiceAddress>,
    /// How long one try may take.
    pub timeout: Duration,
    /// How long an answer is kept.
    pub keep_for: Duration,
    /// The language of somebody of whom nobody knows it.
    pub language: Language,
}

/// A service and what it is shown.
#[derive(Clone, Debug)]
pub struct ServiceAddress {
    /// For logs: archive or auth.
    pub name: &'static str,
    /// Ends with a slash.
    pub url: Url,
    /// Sent as `X-Service-Key`.
    pub key: Option<SecretString>,
}

impl PlatformConfig {
    /// Reads the variables; mistakes are collected in `vars`. The first of the `keys` is shown to the
    /// services.
    pub fn from_vars(vars: &mut Vars, keys: &[SecretString]) -> Self {
        let archive: Option<Url> = vars.optional(
            "ARCHIVE_SERVICE_URL",
            "where results of assessments are asked for that no event brought; nowhere unless set",
        );
        let auth: Option<Url> = vars.optional(
            "AUTH_SERVICE_URL",
            "where a person's name and language are asked for; nowhere unless set",
        );
        let timeout = vars.within(
            "PLATFORM_TIMEOUT",
            3.0,
            (0.1, 8.0),
            "how long one try to ask the archive or the auth service may take, seconds; there are three",
        );
        let key = keys.first();
        if key
            .is_some_and(|key| reqwest::header::HeaderValue::from_str(key.expose_secret()).is_err())
        {
            vars.problem(
                "INTERNAL_SERVICE_KEY",
                "has characters that no header can carry",
            );
        }
        Self {
            archive: address(vars, "ARCHIVE_SERVICE_URL", "archive", archive, key),
            auth: address(vars, "AUTH_SERVICE_URL", "auth", auth, key),
            timeout: Duration::from_secs_f64(timeout),
            keep_for: Duration::from_mins(10),
            language: vars.get(
                "DEFAULT_LANGUAGE",
                "id",
                "language of prompts, welcomes and suggestions for somebody of whom nobody knows it: id or en",
            ),
        }
    }

    /// What is known of a person's language where no browser says it.
    #[must_use]
    pub fn spoken(&self) -> Spoken {
        Spoken {
            client: None,
            default: self.language,
        }
    }
}

fn address(
    vars: &mut Vars,
    variable: &str,
    name: &'static str,
    url: Option<Url>,
    key: Option<&SecretString>,
) -> Option<ServiceAddress> {
    let mut url = url?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        vars.problem(variable, "must be an http or https URL");
        return None;
    }
    // Without it the last part of the path would be replaced.
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Some(ServiceAddress {
        name,
        url,
        key: key.cloned(),
    })
}
