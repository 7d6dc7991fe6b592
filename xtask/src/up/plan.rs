//! What `up` has to start, read off the environment.

use anyhow::{Context as _, bail};

use crate::{env::Env, servers::Wanted};

/// The port of the API when nobody asks for another.
const USUAL_PORT: u16 = 8080;

/// The variables that name a real upstream; any of them makes the simulator unnecessary.
const UPSTREAM: [&str; 4] = [
    "OPENROUTER_API_KEY",
    "OPENROUTER_API_KEYS",
    "OPENROUTER_API_KEYS_FILE",
    "OPENROUTER_BASE_URL",
];

/// What to start; what is missing is somebody else's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) wanted: Wanted,
    pub(crate) simulator: bool,
    pub(crate) port: Port,
}

/// The port of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// `PORT` asks for it: another one would surprise.
    Exactly(u16),
    /// This one or, if it is taken, any.
    Rather(u16),
}

impl Plan {
    pub(crate) fn of(env: &Env, rabbitmq: bool) -> anyhow::Result<Self> {
        let port = match env.get("PORT") {
            None => Port::Rather(USUAL_PORT),
            Some(text) => match text.trim().parse() {
                Ok(0) => Port::Rather(0),
                Ok(port) => Port::Exactly(port),
                Err(_) => bail!("PORT must be a number from 0 to 65535"),
            },
        };
        Ok(Self {
            wanted: Wanted {
                postgres: env.get("DATABASE_URL").is_none() && env.get("DB_HOST").is_none(),
                redis: env.get("REDIS_URL").is_none(),
                rabbitmq: rabbitmq && env.get("RABBITMQ_URL").is_none(),
            },
            simulator: UPSTREAM.into_iter().all(|name| env.get(name).is_none()),
            port,
        })
    }
}

impl Port {
    /// A port to start the API on.
    pub(crate) fn choose(self) -> anyhow::Result<u16> {
        match self {
            Self::Exactly(port) if crate::ports::is_free(port) => Ok(port),
            Self::Exactly(port) => {
                bail!("port {port} is taken: set PORT to another one, or to 0 for any")
            }
            Self::Rather(0) => crate::ports::any_free(),
            Self::Rather(port) => crate::ports::free_or_other(port),
        }
        .context("the API has no port to listen on")
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn without_variables_everything_is_ours() {
        let plan = Plan::of(&Env::default(), false).unwrap();
        assert!(plan.wanted.postgres && plan.wanted.redis && plan.simulator);
        assert!(!plan.wanted.rabbitmq);
        assert_eq!(plan.port, Port::Rather(8080));
        assert!(Plan::of(&Env::default(), true).unwrap().wanted.rabbitmq);
    }

    #[test]
    fn each_variable_replaces_one_part() {
        let plan = |name| Plan::of(&Env::from([(name, "x")]), true).unwrap();
        assert!(!plan("DATABASE_URL").wanted.postgres && plan("DATABASE_URL").wanted.redis);
        assert!(!plan("DB_HOST").wanted.postgres);
        assert!(!plan("REDIS_URL").wanted.redis && plan("REDIS_URL").wanted.postgres);
        assert!(!plan("RABBITMQ_URL").wanted.rabbitmq);
        for name in UPSTREAM {
            assert!(!plan(name).simulator, "{name}");
        }
    }

    #[test]
    fn a_port_that_was_asked_for_is_never_replaced() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        assert!(Port::Exactly(taken).choose().is_err());
        assert_ne!(Port::Rather(taken).choose().unwrap(), taken);
        let port = |text| Plan::of(&Env::from([("PORT", text)]), false).map(|plan| plan.port);
        assert_eq!(port("9000").unwrap(), Port::Exactly(9000));
        assert_eq!(port("0").unwrap(), Port::Rather(0));
        assert!(port("high").is_err());
    }
}
