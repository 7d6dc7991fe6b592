//! Where notifications go, as an operator sets it.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use lapin::uri::AMQPUri;
use reqwest::Url;
use reqwest::header::HeaderValue;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};
use shared::config::Vars;

use super::address;
use super::sign::SigningKeys;

/// Which ways are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chosen {
    Http,
    Amqp,
    Both,
    None,
}

impl FromStr for Chosen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "http" => Ok(Self::Http),
            "amqp" => Ok(Self::Amqp),
            "both" => Ok(Self::Both),
            "none" => Ok(Self::None),
            _ => Err("must be http, amqp, both or none"),
        }
    }
}

/// Everything about telling the notification service.
#[derive(Clone, Debug)]
pub struct NotificationsConfig {
    /// By HTTP.
    pub http: Option<HttpConfig>,
    /// By RabbitMQ.
    pub amqp: Option<AmqpConfig>,
    /// The broker, whatever it is used for.
    pub broker: Option<BrokerConfig>,
    /// Notifications on their way to one destination at a time, over the whole fleet.
    pub concurrency: u16,
    /// How long one try may take.
    pub timeout: Duration,
    /// How often the outbox is looked at without being told to.
    pub look_every: Duration,
}

/// A receiver of signed requests.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where they are posted.
    pub endpoint: Url,
    /// What they are signed with.
    pub keys: SigningKeys,
    /// Sent as `X-Service-Key`.
    pub service_key: Option<SecretString>,
    /// Whether the address may be one that only this network knows.
    pub allow_private: bool,
}

/// A broker.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Where it is; secret.
    pub url: SecretString,
    /// Authorities that may have signed its certificate, beside the system's, in PEM.
    pub authorities: Option<String>,
}

/// An exchange of RabbitMQ.
#[derive(Clone, Debug)]
pub struct AmqpConfig {
    /// The broker.
    pub broker: BrokerConfig,
    /// The exchange.
    pub exchange: String,
}

impl NotificationsConfig {
    /// Reads the variables; mistakes are collected in `vars`.
    pub fn from_vars(vars: &mut Vars) -> Self {
        let chosen: Option<Chosen> = vars.optional(
            "NOTIFICATION_TRANSPORT",
            "how the notification service is told: http, amqp, both or none; http where its URL is set",
        );
        let url: Option<Url> = vars.optional(
            "NOTIFICATION_SERVICE_URL",
            "the notification service; what it is told is posted to /notifications below it",
        );
        let secrets = vars.secrets(
            "NOTIFICATION_SIGNING_SECRET",
            "whsec_ and 24 to 64 bytes in base64; each signs, so that one can be rotated",
        );
        let service_key: Option<String> = vars.optional(
            "NOTIFICATION_SERVICE_KEY",
            "sent to the notification service as X-Service-Key",
        );
        let allow_private = vars.flag(
            "NOTIFICATION_ALLOW_PRIVATE",
            false,
            "whether the notification service may have a private or loopback address",
        );
        let broker = BrokerConfig::from_vars(vars);
        let exchange: String = vars.get(
            "NOTIFICATION_EXCHANGE",
            "atma_exchange",
            "topic exchange for notifications; declared durable where there is none",
        );
        let concurrency = vars.within(
            "NOTIFICATION_CONCURRENCY",
            32,
            (1, 1_000),
            "notifications on their way to one destination at a time, over all workers",
        );
        let timeout = vars.within(
            "NOTIFICATION_TIMEOUT",
            10,
            (1, 60),
            "how long the destination may take for one notification, seconds",
        );
        let look_every = vars.within(
            "NOTIFICATION_LOOK_SECONDS",
            1.0,
            (0.1, 60.0),
            "how often a worker looks for notifications that nobody has told it of, and for tries that are due",
        );
        let chosen = chosen.unwrap_or(match url {
            Some(_) => Chosen::Http,
            None => Chosen::None,
        });
        let http = matches!(chosen, Chosen::Http | Chosen::Both)
            .then(|| http(vars, url, &secrets, service_key, allow_private))
            .flatten();
        let amqp = matches!(chosen, Chosen::Amqp | Chosen::Both)
            .then(|| amqp(vars, broker.clone(), exchange))
            .flatten();
        Self {
            http,
            amqp,
            broker,
            concurrency,
            timeout: Duration::from_secs(timeout),
            look_every: Duration::from_secs_f64(look_every),
        }
    }
}

fn http(
    vars: &mut Vars,
    url: Option<Url>,
    secrets: &[SecretString],
    service_key: Option<String>,
    allow_private: bool,
) -> Option<HttpConfig> {
    let Some(mut endpoint) = url else {
        vars.problem("NOTIFICATION_SERVICE_URL", "is required for http");
        return None;
    };
    if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host_str().is_none() {
        vars.problem("NOTIFICATION_SERVICE_URL", "must be an http or https URL");
        return None;
    }
    if !endpoint.username().is_empty() || endpoint.password().is_some() {
        vars.problem("NOTIFICATION_SERVICE_URL", "must not hold a password");
    }
    if let Some(address) = address::literal(&endpoint)
        && !address::is_allowed(address, allow_private)
    {
        vars.problem(
            "NOTIFICATION_SERVICE_URL",
            "is a private or reserved address (see NOTIFICATION_ALLOW_PRIVATE)",
        );
    }
    let path = format!("{}/notifications", endpoint.path().trim_end_matches('/'));
    endpoint.set_path(&path);
    endpoint.set_fragment(None);
    if service_key
        .as_ref()
        .is_some_and(|key| HeaderValue::from_str(key).is_err())
    {
        vars.problem(
            "NOTIFICATION_SERVICE_KEY",
            "has characters that no header can carry",
        );
    }
    match SigningKeys::new(secrets) {
        Ok(keys) => Some(HttpConfig {
            endpoint,
            keys,
            service_key: service_key.map(SecretString::from),
            allow_private,
        }),
        Err(error) => {
            vars.problem("NOTIFICATION_SIGNING_SECRET", error);
            None
        }
    }
}

fn amqp(vars: &mut Vars, broker: Option<BrokerConfig>, exchange: String) -> Option<AmqpConfig> {
    let Some(broker) = broker else {
        vars.problem("RABBITMQ_URL", "is required for amqp");
        return None;
    };
    if exchange.len() > 127 {
        vars.problem("NOTIFICATION_EXCHANGE", "must have at most 127 bytes");
    }
    Some(AmqpConfig { broker, exchange })
}

impl BrokerConfig {
    /// Reads the variables; mistakes are collected in `vars`. None where there is no broker.
    pub fn from_vars(vars: &mut Vars) -> Option<Self> {
        let url: Option<String> = vars.optional("RABBITMQ_URL", "the broker; secret");
        let ca_file: Option<PathBuf> = vars.optional(
            "RABBITMQ_CA_FILE",
            "PEM file of authorities that may have signed the certificate of an amqps broker, beside the system's",
        );
        let url = SecretString::from(url?);
        if url.expose_secret().parse::<AMQPUri>().is_err() {
            vars.problem(
                "RABBITMQ_URL",
                "must look like amqp://user:password@host:port/vhost",
            );
        }
        let authorities = ca_file.and_then(|file| match authorities(&file) {
            Ok(authorities) => Some(authorities),
            Err(problem) => {
                vars.problem("RABBITMQ_CA_FILE", problem);
                None
            }
        });
        Some(Self { url, authorities })
    }
}

/// The certificates in a file, as text; at least one that can be read, and none that cannot.
fn authorities(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        certificate.map_err(|error| format!("has no certificates in PEM: {error}"))?;
        count += 1;
    }
    if count == 0 {
        return Err("has no certificate in PEM".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: (&str, &str) = (
        "NOTIFICATION_SIGNING_SECRET",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    );

    fn read(values: &[(&str, &str)]) -> Result<NotificationsConfig, String> {
        let mut vars = Vars::from_map(values.iter().copied());
        let config = NotificationsConfig::from_vars(&mut vars);
        match vars.finish() {
            Ok(()) => Ok(config),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_url_is_enough_to_tell_by_http_and_nothing_tells_nobody() {
        let none = read(&[]).unwrap();
        assert!(none.http.is_none() && none.amqp.is_none());
        let url = ("NOTIFICATION_SERVICE_URL", "https://notify.example/base/");
        let http = read(&[url, SECRET]).unwrap();
        assert!(http.amqp.is_none());
        assert_eq!(
            http.http.unwrap().endpoint.as_str(),
            "https://notify.example/base/notifications"
        );
        let off = read(&[url, ("NOTIFICATION_TRANSPORT", "none")]).unwrap();
        assert!(off.http.is_none());
        let broker = ("RABBITMQ_URL", "amqp://guest:guest@localhost:5672/%2f");
        assert!(read(&[broker]).unwrap().amqp.is_none());
        let both = [url, SECRET, broker, ("NOTIFICATION_TRANSPORT", "both")];
        let both = read(&both).unwrap();
        assert!(both.http.is_some());
        assert_eq!(both.amqp.unwrap().exchange, "atma_exchange");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (values, named) in [
            (
                &[("NOTIFICATION_TRANSPORT", "http")][..],
                "NOTIFICATION_SERVICE_URL",
            ),
            (&[("NOTIFICATION_TRANSPORT", "both")], "RABBITMQ_URL"),
            (
                &[("NOTIFICATION_TRANSPORT", "pigeon")],
                "NOTIFICATION_TRANSPORT",
            ),
            (
                &[("NOTIFICATION_SERVICE_URL", "https://notify.example")],
                "NOTIFICATION_SIGNING_SECRET",
            ),
            (
                &[("NOTIFICATION_SERVICE_URL", "ftp://notify.example"), SECRET],
                "NOTIFICATION_SERVICE_URL",
            ),
            (
                &[("NOTIFICATION_SERVICE_URL", "http://10.0.0.7"), SECRET],
                "NOTIFICATION_SERVICE_URL",
            ),
            (
                &[
                    ("NOTIFICATION_SERVICE_URL", "https://me:pw@notify.example"),
                    SECRET,
                ],
                "NOTIFICATION_SERVICE_URL",
            ),
            (
                &[
                    ("NOTIFICATION_SERVICE_URL", "http://169.254.169.254"),
                    ("NOTIFICATION_ALLOW_PRIVATE", "true"),
                    SECRET,
                ],
                "NOTIFICATION_SERVICE_URL",
            ),
            (
                &[
                    ("NOTIFICATION_TRANSPORT", "amqp"),
                    ("RABBITMQ_URL", "http://broker"),
                ],
                "RABBITMQ_URL",
            ),
            (
                &[
                    ("NOTIFICATION_TRANSPORT", "amqp"),
                    ("RABBITMQ_URL", "amqps://broker"),
                    ("RABBITMQ_CA_FILE", "/nowhere/ca.pem"),
                ],
                "RABBITMQ_CA_FILE",
            ),
            (
                &[
                    ("NOTIFICATION_TRANSPORT", "amqp"),
                    ("RABBITMQ_URL", "amqps://broker"),
                    // A file of this crate that holds no certificate.
                    (
                        "RABBITMQ_CA_FILE",
                        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
                    ),
                ],
                "RABBITMQ_CA_FILE",
            ),
        ] {
            let problem = read(values).unwrap_err();
            assert!(problem.contains(&format!("\n  {named}:")), "{problem}");
        }
        let private = [
            ("NOTIFICATION_SERVICE_URL", "http://10.0.0.7"),
            ("NOTIFICATION_ALLOW_PRIVATE", "true"),
            SECRET,
        ];
        assert!(read(&private).is_ok());
    }
}
