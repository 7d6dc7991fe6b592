//! Where and how the API listens.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;
use shared::config::Vars;

use super::positive;

/// Where and how the API listens.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Connections open at once; further ones wait in the kernel's backlog.
    pub max_connections: usize,
    /// Origins whose pages may call the API, or all of them.
    pub cors: AllowedOrigins,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// How long a request may take; waits and streams are exempt.
    pub request_timeout: Duration,
    /// How long requests in flight may take after SIGTERM.
    pub shutdown_grace: Duration,
    /// How long readiness is already false before the listener closes.
    pub shutdown_delay: Duration,
    /// Pause between two heartbeat comments of an event stream.
    pub heartbeat: Duration,
}

/// Origins whose pages may call the API.
#[derive(Clone, Debug)]
pub enum AllowedOrigins {
    /// Any page.
    Any,
    /// Just these.
    Only(Vec<HeaderValue>),
}

impl ServerConfig {
    pub(super) fn from_vars(vars: &mut Vars) -> Self {
        Self {
            address: address(vars),
            max_connections: vars.within(
                "MAX_CONNECTIONS",
                20_000,
                (1, 1_000_000),
                "connections open at once; further ones wait to be accepted",
            ),
            cors: origins(vars),
            trusted_proxies: networks(vars),
            request_timeout: positive(
                vars,
                "REQUEST_TIMEOUT",
                "30",
                "seconds a request may take; waits and streams are exempt",
            ),
            shutdown_grace: vars.seconds(
                "SHUTDOWN_GRACE",
                "20",
                "seconds that requests in flight may take after SIGTERM",
            ),
            shutdown_delay: vars.seconds(
                "SHUTDOWN_DELAY",
                "0",
                "seconds between the readiness probe turning false and the listener closing",
            ),
            heartbeat: positive(
                vars,
                "HEARTBEAT_INTERVAL",
                "15",
                "seconds between two heartbeat comments of an event stream",
            ),
        }
    }
}

/// Where the process listens, `HOST` and `PORT`.
pub fn address(vars: &mut Vars) -> SocketAddr {
    let host: IpAddr = vars.get("HOST", "127.0.0.1", "address to listen on");
    let port: u16 = vars.get("PORT", "8080", "port to listen on; 0 takes a free one");
    SocketAddr::new(host, port)
}

fn origins(vars: &mut Vars) -> AllowedOrigins {
    const NAME: &str = "CORS_ALLOWED_ORIGINS";
    let list = vars.list(
        NAME,
        "",
        "comma-separated origins (https://app.example.org) whose pages may call the API; * is any",
    );
    if list.iter().any(|origin| origin == "*") {
        return AllowedOrigins::Any;
    }
    let parsed = list.iter().map(|origin| {
        let uri = origin.parse::<http::Uri>().ok()?;
        let is_origin = uri.scheme().is_some() && uri.authority().is_some() && uri.path() == "/";
        (is_origin && !origin.ends_with('/'))
            .then(|| HeaderValue::from_str(origin).ok())
            .flatten()
    });
    match parsed.collect::<Option<Vec<_>>>() {
        Some(origins) => AllowedOrigins::Only(origins),
        None => {
            vars.problem(NAME, "each origin is scheme://host[:port] without a path");
            AllowedOrigins::Only(Vec::new())
        }
    }
}

fn networks(vars: &mut Vars) -> Vec<IpNet> {
    const NAME: &str = "TRUSTED_PROXIES";
    let list = vars.list(
        NAME,
        "",
        "comma-separated networks (10.0.0.0/8) whose X-Forwarded-For is believed",
    );
    let network = |text: &String| {
        IpNet::from_str(text)
            .or_else(|_| IpAddr::from_str(text).map(IpNet::from))
            .ok()
    };
    match list.iter().map(network).collect::<Option<Vec<_>>>() {
        Some(networks) => networks,
        None => {
            vars.problem(
                NAME,
                "each item is an address or a network such as 10.0.0.0/8",
            );
            Vec::new()
        }
    }
}
