//! The live feed: one Redis subscription connection per process, fanned out to bounded buffers.
//!
//! Users are subscribed to while somebody here listens. After the connection was lost every
//! listener is told of a gap and reads the logs it follows.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::aio::{PubSubSink, PubSubStream};
use futures::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{PushedEvent, user_channel};
use crate::redis::{Redis, RedisFailure};

/// Events a listener may fall behind. One that falls further is told of a gap and its buffer stays
/// as it is, so memory is bounded whatever a client does.
const BUFFER: usize = 256;
/// How long a new listener waits for its subscription before it goes on without: Redis is away or
/// busy, and the gap that is reported once it is subscribed to covers what was missed.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_millis(500);
/// Subscriptions changed at a time: when a replica goes, thousands of clients come at once, and a round
/// trip for each would keep the last ones waiting.
const BATCH: usize = 1000;

/// What a listener gets.
#[derive(Clone, Debug)]
pub enum Feed {
    /// An event of the user.
    Event(Arc<PushedEvent>),
    /// Events may be missing here: the connection was lost, or the listener fell behind.
    Gap,
}

/// The process's fan-out of live events. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    users: Mutex<HashMap<Uuid, HashMap<u64, Listener>>>,
    next: AtomicU64,
    commands: mpsc::UnboundedSender<Command>,
}

#[derive(Debug)]
struct Listener {
    sender: mpsc::Sender<Arc<PushedEvent>>,
    gap: Arc<tokio::sync::Notify>,
}

#[derive(Debug)]
enum Command {
    Subscribe(Wish),
    Unsubscribe(Uuid),
}

/// A listener that waits until its user is subscribed to.
#[derive(Debug)]
struct Wish {
    user_id: Uuid,
    subscribed: oneshot::Sender<()>,
    gap: Arc<tokio::sync::Notify>,
}

impl Wish {
    /// Whoever no longer waits may have missed something.
    fn fulfil(self) {
        if self.subscribed.send(()).is_err() {
            self.gap.notify_one();
        }
    }
}

/// One listener. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    inner: Arc<Inner>,
    user_id: Uuid,
    key: u64,
    receiver: mpsc::Receiver<Arc<PushedEvent>>,
    gap: Arc<tokio::sync::Notify>,
}

impl Hub {
    /// A hub and the task that keeps it connected, which must run for as long as the process.
    pub fn new(redis: Redis) -> (Self, impl Future<Output = ()> + Send + 'static) {
        // Unbounded, but never longer than the listeners that come and go while Redis connects.
        let (commands, receiver) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            users: Mutex::default(),
            next: AtomicU64::new(0),
            commands,
        });
        let task = run(Arc::downgrade(&inner), redis, receiver);
        (Self { inner }, task)
    }

    /// Listens to a user's events. What is published after this returns is received or reported as
    /// a gap, so a caller that then reads a log misses nothing.
    pub async fn subscribe(&self, user_id: Uuid) -> Subscription {
        let (sender, receiver) = mpsc::channel(BUFFER);
        let gap = Arc::new(tokio::sync::Notify::new());
        let key = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let listener = Listener {
            sender,
            gap: Arc::clone(&gap),
        };
        self.inner
            .lock()
            .entry(user_id)
            .or_default()
            .insert(key, listener);
        let subscription = Subscription {
            inner: Arc::clone(&self.inner),
            user_id,
            key,
            receiver,
            gap,
        };
        let (subscribed, done) = oneshot::channel();
        let wish = Wish {
            user_id,
            subscribed,
            gap: Arc::clone(&subscription.gap),
        };
        if self.inner.commands.send(Command::Subscribe(wish)).is_ok() {
            let _ = tokio::time::timeout(SUBSCRIBE_TIMEOUT, done).await;
        }
        subscription
    }

    /// How many listeners there are.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.inner.lock().values().map(HashMap::len).sum()
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, HashMap<u64, Listener>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dispatch(&self, user_id: Uuid, event: &Arc<PushedEvent>) {
        let users = self.lock();
        for listener in users.get(&user_id).into_iter().flat_map(HashMap::values) {
            if listener.sender.try_send(Arc::clone(event)).is_err() {
                metrics::counter!(crate::metrics::PUSH_DROPPED).increment(1);
                listener.gap.notify_one();
            }
        }
    }

    fn gap_for_all(&self) {
        self.lock()
            .values()
            .flat_map(HashMap::values)
            .for_each(|listener| listener.gap.notify_one());
    }
}

impl Subscription {
    /// The next event, or the news that some are missing. Never ends.
    ///
    /// A gap is reported after the events that were buffered before it.
    pub async fn next(&mut self) -> Feed {
        tokio::select! {
            biased;
            Some(event) = self.receiver.recv() => Feed::Event(event),
            () = self.gap.notified() => Feed::Gap,
        }
    }

    /// The user whose events these are.
    #[must_use]
    pub fn user_id(&self) -> Uuid {
        self.user_id
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut users = self.inner.lock();
        if let Some(listeners) = users.get_mut(&self.user_id) {
            listeners.remove(&self.key);
            if listeners.is_empty() {
                users.remove(&self.user_id);
                let _ = self.inner.commands.send(Command::Unsubscribe(self.user_id));
            }
        }
    }
}

async fn run(
    inner: std::sync::Weak<Inner>,
    redis: Redis,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    loop {
        let Some(hub) = inner.upgrade() else { return };
        let moves = redis.moves();
        let connected = connect(&hub, &redis).await;
        drop(hub);
        match connected {
            Ok((sink, stream)) => {
                if let Some(hub) = inner.upgrade() {
                    hub.gap_for_all();
                }
                let hub_is_gone = serve(&inner, &redis, &mut commands, sink, stream, moves).await;
                if hub_is_gone {
                    return;
                }
                tracing::warn!("the subscription connection to redis was lost");
            }
            Err(failure) => tracing::debug!(%failure, "no subscription connection to redis"),
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Connects and subscribes to every user that has listeners.
async fn connect(hub: &Inner, redis: &Redis) -> Result<(PubSubSink, PubSubStream), RedisFailure> {
    let (mut sink, stream) = redis.pubsub().await?.split();
    let channels: Vec<String> = hub
        .lock()
        .keys()
        .map(|user| user_channel(redis, *user))
        .collect();
    for chunk in channels.chunks(1000) {
        sink.subscribe(chunk).await?;
    }
    Ok((sink, stream))
}

/// Serves until the connection is lost (false) or the hub is gone (true).
async fn serve(
    inner: &std::sync::Weak<Inner>,
    redis: &Redis,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    mut sink: PubSubSink,
    mut stream: PubSubStream,
    moves: u64,
) -> bool {
    let prefix = redis.key("user:");
    let moved = redis.moved(moves);
    tokio::pin!(moved);
    // A connection that is cut without a word would look idle for ever; a ping shows it.
    let mut ping = tokio::time::interval(Duration::from_secs(5));
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            message = stream.next() => {
                let Some(message) = message else { return false };
                let Some(hub) = inner.upgrade() else { return true };
                let user = message.get_channel_name().strip_prefix(&prefix).and_then(|id| id.parse().ok());
                let event = std::str::from_utf8(message.get_payload_bytes()).ok().and_then(PushedEvent::parse);
                if let (Some(user), Some(event)) = (user, event) {
                    hub.dispatch(user, &Arc::new(event));
                }
            }
            count = commands.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return true;
                }
                let applied = apply(inner, redis, &mut sink, std::mem::take(&mut batch));
                if tokio::time::timeout(Duration::from_secs(2), applied).await != Ok(true) {
                    return false;
                }
            }
            () = &mut moved => return false,
            _ = ping.tick() => {
                // A subscribed connection answers with an array or a word, by protocol version.
                let answer: Result<Result<::redis::Value, _>, _> =
                    tokio::time::timeout(Duration::from_secs(2), sink.ping()).await;
                if !matches!(answer, Ok(Ok(_))) {
                    return false;
                }
            }
        }
    }
}

/// Follows what was asked for; false when the connection is lost. What counts is who listens now: somebody may
/// have come back or gone meanwhile.
async fn apply(
    inner: &std::sync::Weak<Inner>,
    redis: &Redis,
    sink: &mut PubSubSink,
    commands: Vec<Command>,
) -> bool {
    let (mut wishes, mut wanted, mut unwanted) = (Vec::new(), HashSet::new(), HashSet::new());
    let Some(hub) = inner.upgrade() else {
        return true;
    };
    {
        let users = hub.lock();
        for command in commands {
            match command {
                Command::Subscribe(wish) => {
                    wanted.insert(user_channel(redis, wish.user_id));
                    wishes.push(wish);
                }
                Command::Unsubscribe(user) if !users.contains_key(&user) => {
                    unwanted.insert(user_channel(redis, user));
                }
                Command::Unsubscribe(_) => {}
            }
        }
    }
    drop(hub);
    let wanted: Vec<String> = wanted.difference(&unwanted).cloned().collect();
    let unwanted: Vec<String> = unwanted.into_iter().collect();
    if !unwanted.is_empty() && sink.unsubscribe(unwanted).await.is_err() {
        return false;
    }
    if !wanted.is_empty() && sink.subscribe(wanted).await.is_err() {
        return false;
    }
    wishes.into_iter().for_each(Wish::fulfil);
    true
}
