//! The platform's other services, as Balas asks them: the archive, which keeps the results of
//! assessments, and the auth service, which knows people.
//!
//! Both are asked with the service key, briefly and again where that may help; what they said is
//! kept for a while, and one that fails again and again is left alone. **Rule:** nobody depends on an
//! answer: without one a text is poorer, and nothing is lost.

mod breaker;
mod config;
mod read;
mod service;

pub use config::{PlatformConfig, ServiceAddress};
pub use read::{Profile, Results};
pub use service::Missing;

use std::sync::Arc;

use moka::future::Cache;
use uuid::Uuid;

use self::service::Service;

/// Answers that are kept of each service.
const KEPT: u64 = 2_000;

/// The services that are configured.
#[derive(Clone, Debug)]
pub struct Platform {
    archive: Option<Arc<Service>>,
    auth: Option<Arc<Service>>,
    results: Cache<(Uuid, Uuid), Arc<Results>>,
    profiles: Cache<Uuid, Arc<Profile>>,
}

impl Platform {
    /// Sets up the clients; nobody is asked yet.
    ///
    /// # Errors
    /// When the machine's trusted certificates cannot be read for an https address.
    pub fn new(config: &PlatformConfig) -> Result<Self, reqwest::Error> {
        let service = |address: &Option<ServiceAddress>| {
            let address = address.as_ref();
            address
                .map(|address| Service::new(address, config).map(Arc::new))
                .transpose()
        };
        Ok(Self {
            archive: service(&config.archive)?,
            auth: service(&config.auth)?,
            results: Cache::builder()
                .max_capacity(KEPT)
                .time_to_live(config.keep_for)
                .build(),
            profiles: Cache::builder()
                .max_capacity(KEPT)
                .time_to_live(config.keep_for)
                .build(),
        })
    }

    /// The results of an assessment, from the archive, which is told for whom they are asked.
    ///
    /// # Errors
    /// When there are none to be had now.
    pub async fn results(
        &self,
        assessment_id: Uuid,
        user_id: Uuid,
    ) -> Result<Arc<Results>, Missing> {
        let key = (assessment_id, user_id);
        let service = self.archive.as_ref().ok_or(Missing::NotConfigured)?;
        if let Some(known) = self.results.get(&key).await {
            service.count("kept");
            return Ok(known);
        }
        let path = format!("archive/results/{assessment_id}");
        let found = Arc::new(service.get(&path, user_id, Results::read).await?);
        // An archive that does not have them yet may have them in a moment.
        if !found.data.is_empty() {
            self.results.insert(key, Arc::clone(&found)).await;
        }
        Ok(found)
    }

    /// What the auth service says of a person.
    ///
    /// # Errors
    /// When there is nothing to be had now.
    pub async fn profile(&self, user_id: Uuid) -> Result<Arc<Profile>, Missing> {
        let service = self.auth.as_ref().ok_or(Missing::NotConfigured)?;
        if let Some(known) = self.profiles.get(&user_id).await {
            service.count("kept");
            return Ok(known);
        }
        let path = format!("auth/users/{user_id}");
        let found = Arc::new(service.get(&path, user_id, Profile::read).await?);
        self.profiles.insert(user_id, Arc::clone(&found)).await;
        Ok(found)
    }
}
