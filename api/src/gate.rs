//! What every request meets first: configuration, the clock, and who may come in.

use std::ops::Deref;
use std::sync::Arc;

use shared::clock::Clock;
use shared::traces::{Traces, TracesError};

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
    /// Where spans go.
    pub traces: Traces,
}

/// A part could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The client for `JWT_JWKS_URL`.
    #[error("failed to prepare JWT_JWKS_URL")]
    Keys(#[from] reqwest::Error),
    /// The client for traces.
    #[error(transparent)]
    Traces(#[from] TracesError),
}

impl Gate {
    /// Prepares the verification of credentials and the sending of traces.
    ///
    /// # Errors
    /// When a client cannot be made.
    pub fn new(config: ApiConfig, clock: Clock) -> Result<Self, GateError> {
        let auth = Authenticator::new(&config.auth, clock.clone())?;
        let version = env!("CARGO_PKG_VERSION");
        let traces = Traces::start(&config.traces, "balas-api", version, clock.clone())?;
        Ok(Self(Arc::new(Parts {
            config,
            clock,
            auth,
            traces,
        })))
    }
}

impl Deref for Gate {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
