//! Redis behind TLS, as a cloud offers it.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::common::{EventStream, TestApp, conversation, sse, until};

/// For `localhost`, signed by the authority of the tests.
const CERTIFICATE: &[u8] = include_bytes!("../../../worker/tests/notifications/tls/broker.pem");
const KEY: &[u8] = include_bytes!("../../../worker/tests/notifications/tls/broker.key");
const AUTHORITY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../worker/tests/notifications/tls/ca.pem"
);

/// Takes TLS connections for the tests' Redis. They end when this is dropped.
struct Protected {
    port: u16,
    _connections: JoinSet<()>,
}

impl Protected {
    async fn start(redis: String) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificates = CertificateDer::pem_slice_iter(CERTIFICATE).map(Result::unwrap);
        let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(certificates.collect(), key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut each = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, redis) = (acceptor.clone(), redis.clone());
                each.spawn(async move {
                    // Who does not trust us goes away here.
                    if let Ok(mut client) = acceptor.accept(client).await {
                        let mut server = TcpStream::connect(redis).await.unwrap();
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Self {
            port,
            _connections: connections,
        }
    }
}

async fn redis_is(app: &TestApp) -> String {
    let health = app.user().anonymous().get("/health").await;
    health.text("/dependencies/redis/status")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_goes_through_tls_to_whom_a_known_authority_vouches_for() {
    let plain = shared::testing::TestEnv::new().await;
    let redis = plain.redis_config().url;
    let redis = redis.expose_secret().trim_start_matches("redis://");
    let (login, place) = redis.rsplit_once('@').unwrap_or(("", redis));
    let place = place.split('/').next().unwrap();
    let protected = Protected::start(place.to_owned()).await;
    let url = format!("rediss://{login}@localhost:{}", protected.port);
    let settings = [("REDIS_URL", url.as_str()), ("REDIS_CA_FILE", AUTHORITY)];
    let mut app = TestApp::with(&settings).await;
    app.start_worker_with(&settings);
    until(async || (redis_is(&app).await == "healthy").then_some(())).await;
    let user = app.user();
    let sent = user.say(&conversation(&user).await, "hello").await;
    let stream = EventStream::open(&user, &sent.text("/links/events"), None).await;
    let events = stream.rest().await;
    let kinds = sse::kinds(&events);
    // Deltas come by Redis alone.
    assert!(kinds.contains(&"generation.delta"), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&"generation.completed"));

    // An authority that nobody named.
    let other = TestApp::with(&settings[..1]).await;
    assert_eq!(redis_is(&other).await, "degraded");
}

#[test]
fn a_file_without_authorities_is_refused_at_the_start() {
    for (file, problem) in [
        ("/nowhere/ca.pem", "cannot be read"),
        (file!(), "must hold certificates"),
    ] {
        let file = match file {
            // Where the tests run is the crate's folder.
            file if file.ends_with(".rs") => {
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/protected.rs")
            }
            file => file,
        };
        let mut vars = shared::config::Vars::from_map([("REDIS_CA_FILE", file)]);
        shared::redis::RedisConfig::from_vars(&mut vars);
        let said = vars.finish().unwrap_err().to_string();
        assert!(
            said.contains("REDIS_CA_FILE") && said.contains(problem),
            "{said}"
        );
    }
}
