//! Where the master is, by what the Sentinels say.
//!
//! A task of its own asks all of them every second, and at once when a command failed or met a server
//! that takes no writes. It goes where most of those who answer point to, once that server says itself
//! that it is a master: a Sentinel that was cut off may point to the past.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, RedisError, cmd};
use futures::future::join_all;
use tokio::sync::{Notify, watch};

use super::tls::{self, Authorities};
use super::{Master, RedisFailure};

/// What such URLs begin with, and what the servers' own do: with TLS both the Sentinels and the servers speak it.
const SCHEMES: [(&str, &str); 2] = [
    ("redis+sentinel://", "redis://"),
    ("rediss+sentinel://", "rediss://"),
];

/// How often the Sentinels are asked while all is well.
const LOOK: Duration = Duration::from_secs(1);

/// The shortest time from one look to the next, however many commands fail.
const SHORTEST: Duration = Duration::from_millis(100);

/// The longest that one server may take for one answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// `redis+sentinel://[user:password@]host:port,host:port/master[/db][?sentinel_password=…]`, in parts.
#[derive(Clone)]
pub(super) struct Address {
    /// `redis://` or `rediss://`.
    scheme: &'static str,
    authorities: Authorities,
    /// A URL each.
    sentinels: Vec<String>,
    /// The name under which they know the master.
    name: String,
    /// `user:password@`, percent-encoded, or nothing.
    login: String,
    database: String,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Address {
    /// Reads a URL; `None` when its scheme is another.
    ///
    /// # Errors
    /// What is wrong with it, without showing it.
    pub(super) fn parse(url: &str, authorities: Authorities) -> Option<Result<Self, &'static str>> {
        let mut schemes = SCHEMES.iter();
        let found = schemes.find_map(|(begin, scheme)| Some((*scheme, url.strip_prefix(begin)?)));
        let (scheme, rest) = found?;
        Some(Self::of(rest, scheme, authorities))
    }

    fn of(
        rest: &str,
        scheme: &'static str,
        authorities: Authorities,
    ) -> Result<Self, &'static str> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest
            .split_once('/')
            .ok_or("the name of the master is missing: …/mymaster")?;
        let (name, database) = path.split_once('/').unwrap_or((path, "0"));
        if name.is_empty() {
            return Err("the name of the master is missing: …/mymaster");
        }
        if database.parse::<u16>().is_err() {
            return Err("the database after the master's name must be a number");
        }
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (format!("{login}@"), hosts),
            None => (String::new(), authority),
        };
        let sentinel_login = sentinel_login(query)?;
        let sentinels: Vec<String> = hosts
            .split(',')
            .map(|host| format!("{scheme}{sentinel_login}{}", with_port(host)))
            .collect();
        let is_wrong = |url: &String| tls::open(url, authorities.as_deref()).is_err();
        if hosts.is_empty() || sentinels.iter().any(is_wrong) {
            return Err("must name Sentinels as host:port,host:port");
        }
        let address = Self {
            scheme,
            authorities,
            sentinels,
            name: name.to_owned(),
            login,
            database: database.to_owned(),
        };
        // A login that cannot be part of a URL shows with any host.
        let example = address.client("localhost", 6379);
        example.map_err(|_| "the user or password must be percent-encoded")?;
        Ok(address)
    }

    fn client(&self, host: &str, port: u16) -> Result<Client, RedisError> {
        let Self {
            scheme,
            login,
            database,
            ..
        } = self;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let url = format!("{scheme}{login}{host}:{port}/{database}");
        tls::open(&url, self.authorities.as_deref())
    }
}

fn with_port(host: &str) -> String {
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port {
        host.to_owned()
    } else {
        format!("{host}:26379")
    }
}

/// `user:password@` for the Sentinels themselves, from the query.
fn sentinel_login(query: &str) -> Result<String, &'static str> {
    let (mut user, mut password) = ("", None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sentinel_user", value)) => user = value,
            Some(("sentinel_password", value)) => password = Some(value),
            _ => return Err("after ? only sentinel_user and sentinel_password are known"),
        }
    }
    Ok(password.map_or_else(String::new, |password| format!("{user}:{password}@")))
}

/// The master as it is known now, and how to have it looked for.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) master: watch::Receiver<Option<Master>>,
    nudge: Arc<Notify>,
}

impl Watched {
    /// Starts to look, until the last of those who listen is gone. Must be called in a tokio runtime.
    #[expect(
        clippy::disallowed_methods,
        reason = "the task ends with the last connection that it serves"
    )]
    pub(super) fn start(address: Address) -> Self {
        let (told, master) = watch::channel(None);
        let nudge = Arc::new(Notify::new());
        tokio::spawn(watch_over(address, told, Arc::downgrade(&nudge)));
        Self { master, nudge }
    }

    /// Has them asked at once.
    pub(super) fn nudge(&self) {
        self.nudge.notify_one();
    }
}

async fn watch_over(address: Address, told: watch::Sender<Option<Master>>, nudge: Weak<Notify>) {
    let mut sentinels = Sentinels::new(&address);
    let mut lost = false;
    let mut moves = 0;
    loop {
        let known = told
            .borrow()
            .as_ref()
            .map(|master| (master.host.clone(), master.port));
        match sentinels.look(known.as_ref()).await {
            Ok(Some((host, port))) => {
                match open(&address, &host, port, moves + 1).await {
                    Ok(master) => {
                        moves += 1;
                        lost = false;
                        tracing::info!(
                            redis.host = host,
                            redis.port = port,
                            "found the master of redis"
                        );
                        told.send_replace(Some(master));
                    }
                    // Half-way through a fail-over; the next look shows.
                    Err(failure) => {
                        tracing::debug!(%failure, redis.host = host, "not a master yet")
                    }
                }
            }
            Ok(None) => lost = false,
            Err(failure) => {
                if !std::mem::replace(&mut lost, true) {
                    tracing::warn!(%failure, "failed to learn the master of redis");
                }
            }
        }
        let Some(nudge) = nudge.upgrade() else { return };
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = nudge.notified() => {}
            () = told.closed() => return,
        }
        drop(nudge);
        tokio::time::sleep(SHORTEST).await;
    }
}

/// Connects to who is said to be the master, and believes it if it says so.
async fn open(
    address: &Address,
    host: &str,
    port: u16,
    moves: u64,
) -> Result<Master, RedisFailure> {
    let client = address.client(host, port)?;
    let mut connection = connect(&client).await?;
    let role: ::redis::Value = cmd("ROLE").query_async(&mut connection).await?;
    let is_master = match &role {
        ::redis::Value::Array(parts) => parts.first().is_some_and(
            |role| matches!(role, ::redis::Value::BulkString(name) if name == b"master"),
        ),
        _ => false,
    };
    if !is_master {
        return Err(RedisFailure::NoMaster);
    }
    Ok(Master {
        host: host.to_owned(),
        port,
        moves,
        manager: super::manager(&client)?,
        client,
    })
}

async fn connect(client: &Client) -> Result<MultiplexedConnection, RedisFailure> {
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    Ok(client
        .get_multiplexed_async_connection_with_config(&settings)
        .await?)
}

/// The Sentinels, with a connection to each that is kept.
struct Sentinels {
    name: String,
    authorities: Authorities,
    each: Vec<(String, Option<MultiplexedConnection>)>,
}

impl Sentinels {
    fn new(address: &Address) -> Self {
        Self {
            name: address.name.clone(),
            authorities: address.authorities.clone(),
            each: address
                .sentinels
                .iter()
                .map(|url| (url.clone(), None))
                .collect(),
        }
    }

    /// Who the master is, if it is another than the one that is known.
    async fn look(
        &mut self,
        known: Option<&(String, u16)>,
    ) -> Result<Option<(String, u16)>, RedisFailure> {
        let (name, authorities) = (&self.name, self.authorities.as_deref());
        let asked = self
            .each
            .iter_mut()
            .map(|(url, connection)| ask(url, authorities, connection, name));
        let answers = join_all(asked).await;
        let mut votes = HashMap::<(String, u16), usize>::new();
        let mut failure = RedisFailure::NoMaster;
        for answer in answers {
            match answer {
                Ok(place) => *votes.entry(place).or_default() += 1,
                Err(error) => failure = error,
            }
        }
        let most = votes.values().max().copied().ok_or(failure)?;
        // Of two with as many votes the known one stays.
        if known.is_some_and(|known| votes.get(known) == Some(&most)) {
            return Ok(None);
        }
        let winner = votes.into_iter().find(|(_, count)| *count == most);
        Ok(winner.map(|(place, _)| place))
    }
}

async fn ask(
    url: &str,
    authorities: Option<&[u8]>,
    kept: &mut Option<MultiplexedConnection>,
    name: &str,
) -> Result<(String, u16), RedisFailure> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => connect(&tls::open(url, authorities)?).await?,
    };
    let place: Option<(String, u16)> = cmd("SENTINEL")
        .arg("get-master-addr-by-name")
        .arg(name)
        .query_async(&mut connection)
        .await?;
    *kept = Some(connection);
    place.ok_or(RedisFailure::NoMaster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_url_are_found() {
        let url =
            "redis+sentinel://app:p%40ss@one:26379,two,[::1]:26380/main/3?sentinel_password=s";
        let address = Address::parse(url, None).unwrap().unwrap();
        assert_eq!(
            address.sentinels,
            [
                "redis://:s@one:26379",
                "redis://:s@two:26379",
                "redis://:s@[::1]:26380"
            ]
        );
        assert_eq!((&*address.name, &*address.database), ("main", "3"));
        let client = address.client("10.0.0.9", 6380).unwrap();
        let info = client.get_connection_info();
        assert_eq!(info.addr().to_string(), "10.0.0.9:6380");
        assert_eq!(info.redis_settings().password(), Some("p@ss"));
        assert_eq!(info.redis_settings().db(), 3);
        assert!(!format!("{address:?}").contains("40ss"));
        assert!(Address::parse("redis://one:6379", None).is_none());
        let url = "rediss+sentinel://app:p@one,two/main";
        let address = Address::parse(url, None).unwrap().unwrap();
        assert_eq!(
            address.sentinels,
            ["rediss://one:26379", "rediss://two:26379"]
        );
        let client = address.client("three.example", 6380).unwrap();
        let info = client.get_connection_info().addr();
        let is_verified = |info: &::redis::ConnectionAddr| match info {
            ::redis::ConnectionAddr::TcpTls { host, insecure, .. } => {
                host == "three.example" && !insecure
            }
            _ => false,
        };
        assert!(is_verified(info), "{info}");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        for (url, part) in [
            ("redis+sentinel://one:26379", "name of the master"),
            ("redis+sentinel://one:26379/", "name of the master"),
            ("redis+sentinel:///main", "host:port"),
            ("redis+sentinel://one:26379/main/x", "number"),
            ("redis+sentinel://one:26379/main?db=3", "only sentinel_user"),
        ] {
            let problem = Address::parse(url, None).unwrap().unwrap_err();
            assert!(problem.contains(part), "{url}: {problem}");
        }
    }
}
