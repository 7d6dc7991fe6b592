//! Every kind of token that must be accepted, and every kind that must not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use shared::config::Vars;
use tokio::sync::RwLock;

use super::*;
use crate::config::ApiConfig;

const USER: &str = "01890000-0000-7000-8000-000000000001";
const SECRET: &str = "first-secret-of-the-tests";
const OLD_SECRET: &str = "an-older-secret-of-the-tests";
const START: i64 = 1_800_000_000;

fn clock() -> Clock {
    Clock::manual(OffsetDateTime::from_unix_timestamp(START).unwrap())
}

fn authenticator(more: &[(&str, &str)], clock: &Clock) -> Authenticator {
    let secrets = format!("{SECRET},{OLD_SECRET}");
    let given = [
        ("JWT_SECRET", secrets.as_str()),
        (
            "INTERNAL_SERVICE_KEY",
            "service-key-number-1,service-key-number-2",
        ),
    ];
    let mut vars = Vars::from_map(
        given
            .iter()
            .chain(more)
            .map(|(name, value)| (*name, *value)),
    );
    let config = ApiConfig::from_vars(&mut vars);
    vars.finish().unwrap();
    Authenticator::new(&config.auth, clock.clone()).unwrap()
}

fn claims(more: Value) -> Value {
    let mut claims = json!({ "sub": USER, "exp": START + 60 });
    claims
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    claims
}

fn hs256(secret: &str, claims: &Value) -> String {
    encode(
        &Header::default(),
        claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
    .unwrap()
}

async fn verdict(auth: &Authenticator, token: &str) -> String {
    match auth.verify(token).await {
        Ok(identity) => format!("{} {} {}", identity.id, identity.tier, identity.role),
        Err(problem) => problem.to_string(),
    }
}

#[tokio::test]
async fn each_secret_verifies_and_no_other() {
    let auth = authenticator(&[], &clock());
    for secret in [SECRET, OLD_SECRET] {
        assert_eq!(
            verdict(&auth, &hs256(secret, &claims(json!({})))).await,
            format!("{USER} free user")
        );
    }
    assert_eq!(
        verdict(&auth, &hs256("a-secret-nobody-knows", &claims(json!({})))).await,
        "token_invalid: the token's signature is not valid"
    );
}

#[tokio::test]
async fn the_user_may_stand_in_any_of_three_claims() {
    let auth = authenticator(&[], &clock());
    for name in ["sub", "id", "user_id"] {
        let claims = json!({ name: USER, "exp": START + 60, "tier": "premium", "role": "admin" });
        assert_eq!(
            verdict(&auth, &hs256(SECRET, &claims)).await,
            format!("{USER} premium admin")
        );
    }
    assert_eq!(
        verdict(&auth, &hs256(SECRET, &json!({ "exp": START + 60 }))).await,
        "token_invalid: the token names no user in sub, id or user_id"
    );
}

#[tokio::test]
async fn times_are_checked_with_a_small_leeway() {
    let clock = clock();
    let auth = authenticator(&[], &clock);
    let token = hs256(
        SECRET,
        &claims(json!({ "exp": START as f64 + 60.5, "nbf": START + 4 })),
    );
    assert_eq!(verdict(&auth, &token).await, format!("{USER} free user"));
    clock.advance(Duration::from_secs(64));
    assert_eq!(verdict(&auth, &token).await, format!("{USER} free user"));
    clock.advance(Duration::from_secs(1));
    assert_eq!(
        verdict(&auth, &token).await,
        "token_expired: the token has expired"
    );
    let early = hs256(
        SECRET,
        &claims(json!({ "exp": START + 9999, "nbf": START + 600 })),
    );
    assert_eq!(
        verdict(&auth, &early).await,
        "token_invalid: the token is not valid yet"
    );
}

#[tokio::test]
async fn claims_of_wrong_types_and_missing_ones_are_refused() {
    let auth = authenticator(&[], &clock());
    for (claims, expected) in [
        (json!({ "sub": USER }), "wrong types"),
        (json!({ "sub": USER, "exp": null }), "wrong types"),
        (json!({ "sub": USER, "exp": "soon" }), "wrong types"),
        (json!({ "sub": USER, "exp": -1 }), "lacks exp"),
        (json!({ "sub": "admin", "exp": START + 60 }), "wrong types"),
        (
            json!({ "sub": USER, "exp": START + 60, "tier": "gold" }),
            "wrong types",
        ),
        (
            json!({ "sub": USER, "exp": START + 60, "role": "root" }),
            "wrong types",
        ),
        (json!([]), "wrong types"),
    ] {
        let verdict = verdict(&auth, &hs256(SECRET, &claims)).await;
        assert!(verdict.starts_with("token_invalid"), "{claims}: {verdict}");
        assert!(verdict.contains(expected), "{claims}: {verdict}");
    }
}

#[tokio::test]
async fn an_expiry_beyond_the_calendar_is_just_far_away() {
    let auth = authenticator(&[], &clock());
    let token = hs256(SECRET, &claims(json!({ "exp": 1e15 })));
    assert_eq!(verdict(&auth, &token).await, format!("{USER} free user"));
}

#[tokio::test]
async fn issuer_and_audience_are_checked_when_set() {
    let auth = authenticator(
        &[("JWT_ISSUER", "atma"), ("JWT_AUDIENCE", "balas")],
        &clock(),
    );
    for (more, expected) in [
        (json!({ "iss": "atma", "aud": "balas" }), ""),
        (json!({ "iss": "atma", "aud": ["other", "balas"] }), ""),
        (json!({ "iss": "evil", "aud": "balas" }), "another issuer"),
        (json!({ "iss": "atma", "aud": "other" }), "another audience"),
        (json!({ "iss": "atma" }), "lacks"),
        (json!({ "aud": "balas" }), "lacks"),
    ] {
        let verdict = verdict(&auth, &hs256(SECRET, &claims(more.clone()))).await;
        assert!(
            verdict.contains(expected) && verdict.starts_with(USER) == expected.is_empty(),
            "{more}: {verdict}"
        );
    }
    // Where no audience is set, tokens for any are accepted.
    let open = authenticator(&[], &clock());
    let token = hs256(SECRET, &claims(json!({ "iss": "x", "aud": ["a", "b"] })));
    assert_eq!(verdict(&open, &token).await, format!("{USER} free user"));
}

#[tokio::test]
async fn other_algorithms_none_and_critical_extensions_are_refused() {
    let auth = authenticator(&[], &clock());
    let part = |value: &Value| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string())
    };
    let body = part(&claims(json!({})));
    for alg in ["none", "None", "NONE", "", "HS1"] {
        for signature in ["", "AAAA"] {
            let token = format!(
                "{}.{body}.{signature}",
                part(&json!({ "alg": alg, "typ": "JWT" }))
            );
            assert!(
                verdict(&auth, &token).await.starts_with("token_invalid"),
                "{alg:?}"
            );
        }
    }
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = encode(&Header::new(algorithm), &claims(json!({})), &key).unwrap();
        assert_eq!(
            verdict(&auth, &token).await,
            "token_invalid: the token's algorithm is not accepted"
        );
    }
    let header = Header {
        crit: Some(vec!["exp".into()]),
        ..Header::default()
    };
    let token = encode(
        &header,
        &claims(json!({})),
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .unwrap();
    assert_eq!(
        verdict(&auth, &token).await,
        "token_invalid: the token needs an extension that is not supported"
    );
}

#[tokio::test]
async fn garbage_is_a_malformed_token() {
    let auth = authenticator(&[], &clock());
    let huge = "a".repeat(MAX_TOKEN_BYTES + 1);
    for token in ["", ".", "..", "a.b.c", "....", "\u{1f600}", huge.as_str()] {
        assert!(
            verdict(&auth, token).await.starts_with("token_invalid"),
            "{token}"
        );
    }
}

#[test]
fn service_keys_are_compared_whole() {
    let auth = authenticator(&[], &clock());
    assert!(auth.is_service_key(b"service-key-number-1"));
    assert!(auth.is_service_key(b"service-key-number-2"));
    for wrong in [
        &b""[..],
        b"service-key-number-",
        b"service-key-number-1 ",
        b"service-key-number-3",
    ] {
        assert!(!auth.is_service_key(wrong));
    }
}

/// An issuer that publishes what a test tells it to, and counts how often it is asked.
struct Issuer {
    url: String,
    set: Arc<RwLock<Option<Value>>>,
    asked: Arc<AtomicU32>,
}

impl Issuer {
    async fn start(set: Option<Value>) -> Self {
        let (set, asked) = (Arc::new(RwLock::new(set)), Arc::new(AtomicU32::new(0)));
        let (published, counter) = (Arc::clone(&set), Arc::clone(&asked));
        let answer = move || async move {
            counter.fetch_add(1, Ordering::Relaxed);
            match &*published.read().await {
                Some(set) => Ok(set.to_string()),
                None => Err(http::StatusCode::BAD_GATEWAY),
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let router = Router::new().route("/keys", get(answer));
        shared::lifecycle::Lifecycle::new()
            .spawn(async move { axum::serve(listener, router).await });
        Self { url, set, asked }
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

fn signing_keys() -> [(Algorithm, &'static str, EncodingKey); 3] {
    [
        (
            Algorithm::RS256,
            "rsa",
            EncodingKey::from_rsa_pem(include_bytes!("testdata/rsa.pem")).unwrap(),
        ),
        (
            Algorithm::ES256,
            "ec",
            EncodingKey::from_ec_pem(include_bytes!("testdata/ec.pem")).unwrap(),
        ),
        (
            Algorithm::EdDSA,
            "ed",
            EncodingKey::from_ed_pem(include_bytes!("testdata/ed.pem")).unwrap(),
        ),
    ]
}

fn published(kids: &[&str]) -> Value {
    let keys = signing_keys()
        .into_iter()
        .filter(|(_, kid, _)| kids.contains(kid))
        .map(|(algorithm, kid, key)| {
            let mut jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
            jwk.common.key_id = Some(kid.to_owned());
            serde_json::to_value(jwk).unwrap()
        });
    // One key of a kind nobody knows must not hide the others.
    let all: Vec<_> = std::iter::once(json!({ "kty": "PQ", "kid": "future" }))
        .chain(keys)
        .collect();
    json!({ "keys": all })
}

fn signed(kid: &str) -> String {
    let (algorithm, _, key) = signing_keys()
        .into_iter()
        .find(|(_, name, _)| *name == kid)
        .unwrap();
    let header = Header {
        kid: Some(kid.to_owned()),
        ..Header::new(algorithm)
    };
    encode(&header, &claims(json!({ "exp": START + 999_999 })), &key).unwrap()
}

#[tokio::test]
async fn published_keys_verify_by_their_id() {
    let issuer = Issuer::start(Some(published(&["rsa", "ec", "ed"]))).await;
    let auth = authenticator(&[("JWT_JWKS_URL", &issuer.url)], &clock());
    for kid in ["rsa", "ec", "ed"] {
        assert_eq!(
            verdict(&auth, &signed(kid)).await,
            format!("{USER} free user"),
            "{kid}"
        );
    }
    assert_eq!(issuer.asked(), 1);
    // The shared secret still works beside them.
    assert_eq!(
        verdict(&auth, &hs256(SECRET, &claims(json!({})))).await,
        format!("{USER} free user")
    );
    // A key signs with its own algorithm only, and without a key id there is no key.
    let (_, _, ec) = signing_keys().into_iter().nth(1).unwrap();
    let header = Header {
        kid: Some("rsa".to_owned()),
        ..Header::new(Algorithm::ES256)
    };
    let confused = encode(&header, &claims(json!({})), &ec).unwrap();
    assert!(verdict(&auth, &confused).await.starts_with("token_invalid"));
    let anonymous = encode(&Header::new(Algorithm::ES256), &claims(json!({})), &ec).unwrap();
    assert_eq!(
        verdict(&auth, &anonymous).await,
        "token_invalid: the token's key is not known"
    );
}

#[tokio::test]
async fn a_public_key_is_no_shared_secret() {
    let issuer = Issuer::start(Some(published(&["rsa"]))).await;
    let auth = authenticator(&[("JWT_JWKS_URL", &issuer.url)], &clock());
    let modulus = published(&["rsa"])["keys"][1]["n"]
        .as_str()
        .unwrap()
        .to_owned();
    let header = Header {
        kid: Some("rsa".to_owned()),
        ..Header::default()
    };
    let token = encode(
        &header,
        &claims(json!({})),
        &EncodingKey::from_secret(modulus.as_bytes()),
    )
    .unwrap();
    assert_eq!(
        verdict(&auth, &token).await,
        "token_invalid: the token's signature is not valid"
    );
}

#[tokio::test]
async fn a_new_key_is_found_but_made_up_ids_do_not_flood_the_issuer() {
    let clock = clock();
    let issuer = Issuer::start(Some(published(&["rsa"]))).await;
    let auth = authenticator(&[("JWT_JWKS_URL", &issuer.url)], &clock);
    assert_eq!(
        verdict(&auth, &signed("rsa")).await,
        format!("{USER} free user")
    );
    for _ in 0..50 {
        assert_eq!(
            verdict(&auth, &signed("ec")).await,
            "token_invalid: the token's key is not known"
        );
    }
    assert_eq!(issuer.asked(), 1);
    *issuer.set.write().await = Some(published(&["rsa", "ec"]));
    clock.advance(Duration::from_secs(10));
    assert_eq!(
        verdict(&auth, &signed("ec")).await,
        format!("{USER} free user")
    );
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn a_withdrawn_key_stops_working_and_a_dead_issuer_logs_nobody_out() {
    let clock = clock();
    let issuer = Issuer::start(Some(published(&["rsa", "ec"]))).await;
    let auth = authenticator(&[("JWT_JWKS_URL", &issuer.url)], &clock);
    assert_eq!(
        verdict(&auth, &signed("rsa")).await,
        format!("{USER} free user")
    );
    *issuer.set.write().await = None;
    clock.advance(Duration::from_secs(3600));
    assert_eq!(
        verdict(&auth, &signed("rsa")).await,
        format!("{USER} free user")
    );
    assert_eq!(issuer.asked(), 2);
    *issuer.set.write().await = Some(published(&["ec"]));
    clock.advance(Duration::from_secs(10));
    assert_eq!(
        verdict(&auth, &signed("rsa")).await,
        "token_invalid: the token's key is not known"
    );
}

#[tokio::test]
async fn an_issuer_that_never_answered_is_our_fault_not_the_callers() {
    let issuer = Issuer::start(None).await;
    let auth = authenticator(&[("JWT_JWKS_URL", &issuer.url)], &clock());
    for _ in 0..2 {
        assert_eq!(
            auth.verify(&signed("rsa")).await.unwrap_err().code(),
            Code::Unavailable
        );
    }
    assert_eq!(issuer.asked(), 1);
}
