//! The clients against a double that can be down, slow, failing or talking nonsense.

#![expect(
    clippy::unwrap_used,
    reason = "the common test set-up is not inside `#[test]`"
)]

use loadtest::services::{Mode, SERVICE_KEY, Services};
use platform::{Missing, Platform, PlatformConfig};
use secrecy::SecretString;
use serde_json::json;
use shared::config::Vars;
use uuid::Uuid;

fn platform(url: &str, key: &str) -> Platform {
    let mut vars = Vars::from_map([
        ("ARCHIVE_SERVICE_URL", url),
        ("AUTH_SERVICE_URL", url),
        ("PLATFORM_TIMEOUT", "0.3"),
    ]);
    let config = PlatformConfig::from_vars(&mut vars, &[SecretString::from(key)]);
    vars.finish().unwrap();
    Platform::new(&config).unwrap()
}

fn ids() -> (Uuid, Uuid) {
    (Uuid::new_v4(), Uuid::new_v4())
}

#[tokio::test]
async fn answers_are_read_and_kept() {
    let services = Services::start().await.unwrap();
    let (assessment, user) = ids();
    let data = json!({ "riasec": { "R": 80 } });
    services.keep_results(&assessment.to_string(), Some(&user.to_string()), data);
    let profile = json!({ "name": "Ayu", "language": "id" });
    services.keep_user(&user.to_string(), profile);
    let platform = platform(&services.url(), SERVICE_KEY);
    for _ in 0..3 {
        let results = platform.results(assessment, user).await.unwrap();
        assert_eq!(results.owner, Some(user));
        assert_eq!(results.data.interests()[0].1, 80.0);
        let profile = platform.profile(user).await.unwrap();
        assert_eq!(profile.name.as_deref(), Some("Ayu"));
    }
    assert_eq!(services.calls().len(), 2, "each was asked once");
    let (other, _) = ids();
    assert_eq!(
        platform.results(other, user).await.unwrap_err(),
        Missing::NotFound
    );
}

#[tokio::test]
async fn every_failure_is_an_absence_and_is_tried_again_where_that_may_help() {
    for (mode, tries) in [
        (Mode::Down, 3),
        (Mode::Slow(3_000), 3),
        (Mode::Status(500), 3),
        (Mode::Status(429), 3),
        (Mode::Status(403), 1),
        (Mode::Garbage, 1),
        (Mode::Nonsense, 1),
    ] {
        let services = Services::start().await.unwrap();
        services.set(mode);
        let platform = platform(&services.url(), SERVICE_KEY);
        let (assessment, user) = ids();
        let missing = platform.results(assessment, user).await.unwrap_err();
        assert!(
            matches!(missing, Missing::Unavailable(_)),
            "{mode:?}: {missing:?}"
        );
        assert_eq!(services.calls().len(), tries, "{mode:?}");
    }
}

#[tokio::test]
async fn a_service_that_keeps_failing_is_left_alone_and_the_key_is_shown() {
    let services = Services::start().await.unwrap();
    services.set(Mode::Garbage);
    let with_key = platform(&services.url(), SERVICE_KEY);
    let (assessment, user) = ids();
    for _ in 0..20 {
        with_key.results(assessment, user).await.unwrap_err();
    }
    assert_eq!(services.calls().len(), 5);
    services.set(Mode::Fine);
    let wrong = platform(&services.url(), "another").profile(user).await;
    assert_eq!(
        wrong.unwrap_err(),
        Missing::Unavailable("status 401".to_owned())
    );
}

#[tokio::test]
async fn without_an_address_nothing_is_asked() {
    let mut vars = Vars::from_map::<String, String>([]);
    let config = PlatformConfig::from_vars(&mut vars, &[]);
    let platform = Platform::new(&config).unwrap();
    let (assessment, user) = ids();
    assert_eq!(
        platform.results(assessment, user).await.unwrap_err(),
        Missing::NotConfigured
    );
    assert_eq!(
        platform.profile(user).await.unwrap_err(),
        Missing::NotConfigured
    );
}

#[tokio::test]
async fn what_is_asked_and_left_alone_is_counted() {
    shared::metrics::install();
    let services = Services::start().await.unwrap();
    let (assessment, user) = ids();
    let data = json!({ "riasec": { "R": 80 } });
    services.keep_results(&assessment.to_string(), Some(&user.to_string()), data);
    let platform = platform(&services.url(), SERVICE_KEY);
    // Others of this process may count as well, where tests are its threads.
    let count = |line: &str| -> f64 {
        let text = shared::metrics::render();
        let value = text.lines().find_map(|at| at.strip_prefix(line));
        value.map_or(0.0, |value| value.trim().parse().unwrap())
    };
    let outcome = |service: &str, outcome: &str| {
        // The labels stand in the order of their declaration.
        count(&format!(
            "platform_requests_total{{service=\"{service}\",outcome=\"{outcome}\"}}"
        ))
    };
    platform.results(assessment, user).await.unwrap();
    platform.results(assessment, user).await.unwrap();
    platform.results(Uuid::new_v4(), user).await.unwrap_err();
    for expected in ["answered", "kept", "not_found"] {
        assert!(outcome("archive", expected) >= 1.0, "{expected}");
    }
    services.set(Mode::Status(500));
    for _ in 0..6 {
        platform.profile(Uuid::new_v4()).await.unwrap_err();
    }
    assert!(outcome("auth", "failed") >= 5.0);
    assert!(outcome("auth", "rested") >= 1.0);
    let open = "platform_breaker_state{service=\"auth\"}";
    assert_eq!(count(open), 1.0);
    assert!(count("platform_request_duration_seconds_count{service=\"auth\"}") >= 5.0);
}
