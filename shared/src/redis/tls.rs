//! TLS to Redis: `rediss://`, and whose certificates are believed.

use std::sync::Arc;

use ::redis::{Client, RedisError, TlsCertificates};

use crate::config::Vars;

/// What begins the URL of a server that speaks TLS.
const SCHEME: &str = "rediss://";

/// PEM certificates of those who sign servers' certificates, in place of the system's.
pub(super) type Authorities = Option<Arc<[u8]>>;

/// Reads the file that `REDIS_CA_FILE` names.
pub(super) fn authorities(vars: &mut Vars) -> Authorities {
    let path: String = vars.optional(
        "REDIS_CA_FILE",
        "PEM file of the authorities that sign the certificates of rediss:// servers, in place of the system's",
    )?;
    let pem = match std::fs::read(&path) {
        Ok(pem) => pem,
        Err(error) => {
            vars.problem("REDIS_CA_FILE", format!("cannot be read: {error}"));
            return None;
        }
    };
    let begins = b"-----BEGIN CERTIFICATE-----";
    if !pem.windows(begins.len()).any(|part| part == begins)
        || open("rediss://localhost", Some(&pem)).is_err()
    {
        vars.problem("REDIS_CA_FILE", "must hold certificates (PEM)");
        return None;
    }
    Some(pem.into())
}

/// A client for a URL of either kind.
pub(super) fn open(url: &str, authorities: Option<&[u8]>) -> Result<Client, RedisError> {
    if !url.starts_with(SCHEME) {
        return Client::open(url);
    }
    // Several parts of one process may do this; the first one wins and all are the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificates = TlsCertificates {
        client_tls: None,
        root_cert: authorities.map(<[u8]>::to_vec),
    };
    Client::build_with_tls(url, certificates)
}
