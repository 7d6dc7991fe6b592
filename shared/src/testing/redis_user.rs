//! A login of Redis whose rights a test gives and takes: single commands fail for one process, as
//! they do while a server is busy or a connection breaks, and the others' work on.

use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

use super::TestEnv;
use crate::redis::Redis;

/// A login that may not do everything.
#[derive(Debug)]
pub struct RedisUser {
    redis: Redis,
    name: String,
    url: SecretString,
}

impl TestEnv {
    /// A new login with these rules of Redis's ACL on top of all rights, as `-xrange`.
    ///
    /// # Panics
    /// When Redis is away or does not know a rule.
    pub async fn redis_user(&self, rules: &[&str]) -> RedisUser {
        let name = Uuid::new_v4().simple().to_string();
        let url = self.redis.url.expose_secret();
        let (scheme, rest) = url
            .split_once("://")
            .expect("the test Redis URL is well-formed");
        let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        let user = RedisUser {
            redis: self.redis(),
            url: format!("{scheme}://{name}:{name}@{host}").into(),
            name,
        };
        let password = format!(">{}", user.name);
        user.set(&["on", &password, "~*", "&*", "+@all"]).await;
        user.set(rules).await;
        user
    }
}

impl RedisUser {
    /// The URL with this login.
    #[must_use]
    pub fn url(&self) -> SecretString {
        self.url.clone()
    }

    /// Adds rules: `+xrange` gives a right back.
    ///
    /// # Panics
    /// When Redis is away or does not know a rule.
    pub async fn set(&self, rules: &[&str]) {
        let mut command = ::redis::cmd("ACL");
        command.arg("SETUSER").arg(&self.name).arg(rules);
        self.redis
            .command::<String>(&command)
            .await
            .expect("redis takes the rules");
    }
}
