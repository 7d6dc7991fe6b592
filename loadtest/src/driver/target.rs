//! Where the load may go.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};
use http::Uri;

/// A server that may be put under load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Where to connect.
    pub(crate) address: SocketAddr,
    /// The `Host` header.
    pub(crate) host: String,
}

impl Target {
    /// Resolves a base URL. The path of an OpenAI-compatible API is no part of the target: the
    /// simulator's URL may be given as the worker has it.
    ///
    /// # Errors
    /// It is not a plain `http://host:port` URL, the host is unknown, or it is another machine
    /// and `allow_remote` is false: load on somebody else's server is an attack.
    pub(crate) async fn resolve(url: &str, allow_remote: bool) -> anyhow::Result<Self> {
        let uri: Uri = url
            .parse()
            .with_context(|| format!("{url:?} is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            bail!("{url}: only http:// URLs can be put under load");
        }
        let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
            bail!("{url}: the host is missing");
        };
        if !matches!(uri.path(), "" | "/" | "/v1" | "/api/v1") {
            bail!("{url}: give the server's URL without this path");
        }
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(80);
        let address = match name.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port),
            Err(_) => tokio::net::lookup_host((name, port))
                .await
                .with_context(|| format!("failed to resolve {name}"))?
                .next()
                .with_context(|| format!("{name} has no address"))?,
        };
        if !address.ip().is_loopback() && !allow_remote {
            bail!(
                "{url} is not this machine; pass --allow-remote if it is yours to put under load"
            );
        }
        Ok(Self {
            address,
            host: authority.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_this_machine_unless_told_otherwise() {
        for url in [
            "http://127.0.0.1:8080",
            "http://127.0.0.1:8090/api/v1",
            "http://localhost",
            "http://[::1]:99/",
        ] {
            assert!(Target::resolve(url, false).await.is_ok(), "{url}");
        }
        for url in [
            "http://192.0.2.7:80",
            "https://127.0.0.1",
            "127.0.0.1:80",
            "http://127.0.0.1/api",
            "nonsense",
        ] {
            assert!(Target::resolve(url, false).await.is_err(), "{url}");
        }
        assert!(Target::resolve("http://192.0.2.7:80", true).await.is_ok());
    }
}
