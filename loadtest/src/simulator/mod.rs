//! A scriptable double of OpenRouter and of OpenAI-compatible embedding services.
//!
//! It speaks HTTP on a port of its own, so that a client is tested through its real connection
//! handling; see [`script::Directives::parse`] for everything it can be told to do.
//!
//! ```no_run
//! # async fn example() {
//! use loadtest::simulator::Simulator;
//! let simulator = Simulator::start().await;
//! simulator.script("model=*:free, 429, times=2");
//! // … let a client talk to simulator.base_url() …
//! assert_eq!(simulator.calls().len(), 3);
//! # }
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

mod account;
mod admin;
mod answer;
pub mod behaviour;
mod books;
pub mod catalogue;
mod chat;
mod connection;
mod embed;
mod embeddings;
mod free_limits;
pub mod marker;
mod open_call;
mod records;
mod reply;
mod rules;
pub mod script;
mod server;
mod settings;
mod stream;
mod wire;

pub use embeddings::embed;
pub use records::{CallRecord, Outcome, Stats, Sums};
pub use reply::{reply_of_bytes, reply_text, title_text};
pub use script::{Endpoint, Rule, ScriptError};
pub use settings::Settings;

use behaviour::Failure;
use free_limits::FreeLimits;
use rules::{Decision, Rules, Subject};

/// What handlers share.
#[derive(Debug)]
struct Shared {
    settings: RwLock<Settings>,
    /// A copy of the setting, read for every chunk.
    chunks_per_second: AtomicU32,
    rules: Mutex<Rules>,
    free: Mutex<FreeLimits>,
    books: books::Books,
    releases: watch::Sender<u64>,
    wanted_dark: watch::Sender<bool>,
    is_dark: watch::Sender<bool>,
}

impl Shared {
    fn new(settings: Settings) -> Self {
        Self {
            chunks_per_second: AtomicU32::new(settings.chunks_per_second),
            books: books::Books::new(settings.remembered_calls, settings.remembered_bytes),
            settings: RwLock::new(settings),
            rules: Mutex::default(),
            free: Mutex::default(),
            releases: watch::Sender::new(0),
            wanted_dark: watch::Sender::new(false),
            is_dark: watch::Sender::new(false),
        }
    }

    fn settings(&self) -> Settings {
        self.settings
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_settings(&self, settings: Settings) {
        self.chunks_per_second
            .store(settings.chunks_per_second, Ordering::Relaxed);
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn chunks_per_second(&self) -> u32 {
        self.chunks_per_second.load(Ordering::Relaxed)
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, subject: Subject<'_>) -> Result<Decision, ScriptError> {
        self.rules().decide(subject)
    }

    fn take_free_call(&self, settings: &Settings) -> Option<Failure> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.take(crate::clock::unix_micros(), settings)
    }

    fn free_calls(&self) -> u32 {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .used()
    }

    fn release(&self) {
        self.releases.send_modify(|count| *count += 1);
    }

    fn wanted_dark(&self) -> watch::Receiver<bool> {
        self.wanted_dark.subscribe()
    }

    fn set_dark(&self, dark: bool) {
        self.wanted_dark.send_replace(dark);
    }
}

/// A running simulator; it stops when this is dropped.
#[derive(Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: tokio::task::JoinHandle<io::Result<()>>,
    _stop: DropGuard,
}

impl Simulator {
    /// Starts one for a test: a free port on 127.0.0.1, no delays, replies of 24 tokens.
    ///
    /// # Panics
    /// No port could be had.
    #[expect(
        clippy::expect_used,
        reason = "a test that cannot have a port cannot go on"
    )]
    pub async fn start() -> Self {
        Self::start_with(
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            Settings::default(),
        )
        .await
        .expect("a free port on 127.0.0.1")
    }

    /// Starts one that listens on `address` with these settings.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn start_with(address: SocketAddr, settings: Settings) -> io::Result<Self> {
        let listener = server::listen(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(settings));
        let stop = CancellationToken::new();
        let server = crate::task::spawn(server::serve(listener, Arc::clone(&shared), stop.clone()));
        Ok(Self {
            shared,
            address,
            server,
            _stop: stop.drop_guard(),
        })
    }

    /// Runs until the server fails; for the binary.
    ///
    /// # Errors
    /// The port could not be had again after a time in the dark.
    pub async fn serve(mut self) -> io::Result<()> {
        (&mut self.server).await.map_err(io::Error::other)?
    }

    /// What a client is to be given as base URL: `http://127.0.0.1:<port>/api/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/api/v1", self.address)
    }

    /// The URL without the API's path, for `/sim/*`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts a rule in force for all calls that its `model=` and `key=` directives admit, and
    /// returns its number.
    ///
    /// # Panics
    /// The directives are mistyped.
    pub fn script(&self, directives: &str) -> u64 {
        self.script_rule(Rule {
            directives: directives.to_owned(),
            ..Rule::default()
        })
    }

    /// The same for calls whose last user message, or any of whose inputs, contains `part`.
    ///
    /// # Panics
    /// The directives are mistyped.
    pub fn script_containing(&self, part: &str, directives: &str) -> u64 {
        self.script_rule(Rule {
            contains: Some(part.to_owned()),
            directives: directives.to_owned(),
            ..Rule::default()
        })
    }

    #[expect(
        clippy::panic,
        reason = "a mistyped script is a mistake in the test that wrote it"
    )]
    fn script_rule(&self, rule: Rule) -> u64 {
        let directives = rule.directives.clone();
        match self.add_rule(rule) {
            Ok(id) => id,
            Err(error) => panic!("cannot script {directives:?}: {error}"),
        }
    }

    /// Puts a rule in force and returns its number.
    ///
    /// # Errors
    /// The directives are mistyped.
    pub fn add_rule(&self, rule: Rule) -> Result<u64, ScriptError> {
        self.shared.rules().add(rule)
    }

    /// Takes a rule back; false when there is none of that number.
    pub fn remove_rule(&self, id: u64) -> bool {
        self.shared.rules().remove(id)
    }

    /// Takes all rules back and forgets how often markers have acted.
    pub fn clear_script(&self) {
        self.shared.rules().clear();
    }

    /// All remembered calls, oldest first.
    pub fn calls(&self) -> Vec<CallRecord> {
        self.shared.books.records(|_| true)
    }

    /// The calls whose last user message (or inputs) contain `part`, oldest first.
    pub fn calls_containing(&self, part: &str) -> Vec<CallRecord> {
        self.shared
            .books
            .records(|call| call.last_user_message.contains(part))
    }

    /// Waits until a call is as `wanted` says, and returns the first such. The caller bounds
    /// the wait. `wanted` is asked again whenever a call begins, sends text, or ends.
    pub async fn wait_for_call(&self, wanted: impl Fn(&CallRecord) -> bool) -> CallRecord {
        let mut changes = self.shared.books.watch();
        loop {
            changes.mark_unchanged();
            if let Some(call) = self.shared.books.records(&wanted).into_iter().next() {
                return call;
            }
            // The sender lives as long as `self`, so this does not fail.
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the totals are as `wanted` says, and returns them. The caller bounds the
    /// wait. `wanted` is asked again whenever a call begins, sends text, or ends.
    pub async fn wait_for_stats(&self, wanted: impl Fn(&Stats) -> bool) -> Stats {
        let mut changes = self.shared.books.watch();
        loop {
            changes.mark_unchanged();
            let stats = self.stats();
            if wanted(&stats) {
                return stats;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Forgets all calls and totals.
    pub fn clear_calls(&self) {
        self.shared.books.clear();
    }

    /// The totals.
    pub fn stats(&self) -> Stats {
        self.shared.books.stats()
    }

    /// The settings in force.
    pub fn settings(&self) -> Settings {
        self.shared.settings()
    }

    /// Changes the settings; calls that have begun keep theirs. The bounds of the call log are
    /// those of the start.
    pub fn set_settings(&self, settings: Settings) {
        self.shared.set_settings(settings);
    }

    /// Lets every stream go on that is held (`hold=N`) or will first be held, if it has begun.
    pub fn release(&self) {
        self.shared.release();
    }

    /// The text that an undisturbed reply to `question` has, by its markers and the settings;
    /// rules and `max_tokens` are left out.
    pub fn expected_reply(&self, question: &str) -> String {
        chat::expected_reply(&self.shared.settings(), question)
    }

    /// Cuts all connections and refuses new ones, until [`Simulator::come_back`]. Returns once
    /// the port is closed.
    pub async fn go_dark(&self) {
        self.shared.set_dark(true);
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.shared.is_dark.subscribe().wait_for(|dark| *dark).await;
    }

    /// Listens again on the same port. Returns once connections are accepted.
    pub async fn come_back(&self) {
        self.shared.set_dark(false);
        let _ = self
            .shared
            .is_dark
            .subscribe()
            .wait_for(|dark| !*dark)
            .await;
    }
}
