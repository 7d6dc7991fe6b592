//! What every request meets first: configuration, the clock, and who may come in.

use std::ops::Deref;
use std::sync::Arc;

use shared::clock::Clock;

use crate::auth::Authenticator;
use crate::config::ApiConfig;

/// The part of the state that needs no server, so that extractors can be tried without one.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Parts>);

/// What a [`Gate`] holds.
#[derive(Debug)]
pub struct Parts {
    /// What the operator set.
    pub config: ApiConfig,
    /// Tells the time.
    pub clock: Clock,
    /// Verifies credentials.
    pub auth: Authenticator,
}

impl Gate {
    /// Prepares the verification of credentials.
    ///
    /// # Errors
    /// When the client for `JWT_JWKS_URL` cannot be made.
    pub fn new(config: ApiConfig, clock: Clock) -> Result<Self, reqwest::Error> {
        let auth = Authenticator::new(&config.auth, clock.clone())?;
        Ok(Self(Arc::new(Parts {
            config,
            clock,
            auth,
        })))
    }
}

impl Deref for Gate {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
