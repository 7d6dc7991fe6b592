//! `balas-worker admin events dlq`, as an operator runs it.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::publisher::Publisher;
use crate::{Consuming, complete};

/// Events of the replay that dies.
const EVENTS: usize = 40;
/// So much of what the replay tells the broker comes through, about a third.
const HALF_WAY: usize = 12_000;
const FAULT: &str = "a fault of the chat service";

impl Consuming {
    /// The command with nothing of a person's shell; its broker is at this URL.
    fn dlq(&self, url: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_balas-worker"));
        command
            .args(["admin", "events", "dlq"])
            .args(arguments)
            .env_clear()
            .envs(self.fleet.settings("terminal", &[]))
            .env("RABBITMQ_URL", url)
            .env("EXCHANGE_NAME", &self.exchange)
            .env("CHAT_QUEUE_NAME", &self.queue)
            .stdin(Stdio::null());
        command
    }

    /// What it prints.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.dlq(&self.url, arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn listed(&self) -> Vec<Value> {
        serde_json::from_str(&self.says(&["list", "--json"])).unwrap()
    }

    async fn until_listed(&self, events: usize) -> Vec<Value> {
        self.fleet
            .until(async || {
                let listed = self.listed();
                (listed.len() == events).then_some(listed)
            })
            .await
    }

    /// Messages that wait in a queue and are nobody's.
    async fn waiting(&self, queue: &str) -> usize {
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(&self.url, properties);
        let channel = connection.await.unwrap().create_channel().await.unwrap();
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let asking = channel.queue_declare(queue.into(), passive, FieldTable::default());
        asking.await.unwrap().message_count() as usize
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_waits_for_a_schema_that_is_older_than_the_worker() {
    let Some(mut consuming) = Consuming::new(&[]).await else {
        return;
    };
    let older = "ALTER TABLE chat.inbound_events RENAME TO inbound_events_to_come";
    consuming.fleet.env.execute(older).await;
    let event = complete(Uuid::new_v4(), Uuid::new_v4()).to_string();
    let publisher = &mut consuming.publisher;
    publisher
        .publish_text("chat.events", &event, Some("e-1"))
        .await;
    // Long enough for all the tries that another fault has.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(consuming.says(&["list"]), "no events\n");
    let migrate = "ALTER TABLE chat.inbound_events_to_come RENAME TO inbound_events";
    consuming.fleet.env.execute(migrate).await;
    consuming
        .becomes("SELECT stage FROM chat.assessments", "chatbot_ready")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_after_the_cause_is_gone_does_the_work() {
    let Some(mut consuming) = Consuming::new(&[]).await else {
        return;
    };
    shared::metrics::install();
    assert_eq!(consuming.says(&["list"]), "no events\n");
    assert_eq!(consuming.says(&["replay"]), "0 replayed\n");
    let break_it =
        "ALTER TABLE chat.inbound_events ADD CONSTRAINT fault CHECK (type = 'nothing') NOT VALID";
    consuming.fleet.env.execute(break_it).await;
    let event = complete(Uuid::new_v4(), Uuid::new_v4()).to_string();
    let huge = format!("{{\"event\": \"{}\"}}", "x".repeat(3 * 1024 * 1024));
    for (at, (body, id)) in [
        ("{ not\u{7} json", None),
        (&huge, None),
        (&event, Some("e-1")),
    ]
    .into_iter()
    .enumerate()
    {
        let publisher = &mut consuming.publisher;
        publisher.publish_text("chat.events", body, id).await;
        consuming.until_listed(at + 1).await;
    }
    let listed = consuming.listed();
    let reasons: Vec<_> = listed.iter().map(|one| one["reason"].as_str()).collect();
    let too_large = format!("too large: {} bytes", huge.len());
    assert_eq!(
        reasons,
        [Some("not JSON"), Some(too_large.as_str()), Some(FAULT)]
    );
    assert_eq!(listed[1]["bytes"], huge.len());
    // Enough to know it by, and nothing that would move a terminal's cursor.
    assert_eq!(listed[0]["body"], "{ not json");
    assert_eq!(listed[1]["body"].as_str().unwrap().len(), 200);
    assert_eq!(listed[2]["message_id"], "e-1");
    assert_eq!(listed[2]["routing_key"], "chat.events");
    let table = consuming.says(&["list", "--limit", "2"]);
    assert!(
        table.contains("not JSON") && table.contains("too large") && !table.contains(FAULT),
        "{table}"
    );

    let metrics = shared::metrics::render();
    for (kind, count) in [("unknown", 2), ("analysis_complete", 1)] {
        let line = format!("inbound_events_total{{type=\"{kind}\",outcome=\"refused\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }

    // Looking has changed nothing, and the cause is still there.
    assert_eq!(consuming.says(&["replay"]), "3 replayed\n");
    consuming.until_listed(3).await;
    let mend = "ALTER TABLE chat.inbound_events DROP CONSTRAINT fault";
    consuming.fleet.env.execute(mend).await;
    assert_eq!(consuming.says(&["replay"]), "3 replayed\n");
    consuming
        .becomes("SELECT stage FROM chat.assessments", "chatbot_ready")
        .await;
    // Whatever made no sense makes none now.
    let left = consuming.until_listed(2).await;
    assert!(left.iter().all(|one| one["reason"] != FAULT), "{left:?}");
    let one = consuming.says(&["replay", "--limit", "1", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&one).unwrap()["replayed"], 1);
    consuming.until_listed(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_half_way_loses_nothing() {
    let Some(mut consuming) = Consuming::new(&[]).await else {
        return;
    };
    consuming.worker.take().unwrap().kill();
    let dead = format!("{}.dlq", consuming.queue);
    let exchange = format!("{}.dlx", consuming.queue);
    let mut publisher = Publisher::start(&consuming.url, &exchange).unwrap();
    for _ in 0..EVENTS {
        let event = complete(Uuid::new_v4(), Uuid::new_v4());
        publisher.publish("chat.events", &event).await;
    }

    let way = StuckWay::to(&consuming.url).await;
    let mut replay = consuming
        .dlq(&way.url, &["replay"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    way.stuck.notified().await;
    replay.kill().unwrap();
    replay.wait().unwrap();
    drop(way);
    // What it had not given on is put back once the broker sees that it is gone.
    let (live, left) = consuming
        .fleet
        .until(async || {
            let live = consuming.waiting(&consuming.queue).await;
            let left = consuming.waiting(&dead).await;
            (live + left >= EVENTS).then_some((live, left))
        })
        .await;
    assert!(live > 0 && left > 0, "{live} live, {left} dead");
    // One may be in both: it was given on, and nobody said so.
    assert!(live + left <= EVENTS + 1, "{live} live, {left} dead");

    assert_eq!(consuming.says(&["replay"]), format!("{left} replayed\n"));
    assert_eq!(consuming.waiting(&dead).await, 0);
    consuming.start(&[]);
    let ready = "SELECT count(*) FROM chat.assessments WHERE stage = 'chatbot_ready'";
    consuming.becomes(ready, &EVENTS.to_string()).await;
    for table in ["conversations", "messages", "inbound_events"] {
        let sql = format!("SELECT count(*) FROM chat.{table}");
        assert_eq!(consuming.read(&sql).await, EVENTS.to_string(), "{table}");
    }
    assert_eq!(consuming.waiting(&dead).await, 0);
}

/// A way to the broker on which a connection gets stuck after so many bytes.
struct StuckWay {
    url: String,
    stuck: Arc<Notify>,
    /// Ends with this.
    _carrying: JoinSet<()>,
}

impl StuckWay {
    async fn to(url: &str) -> Self {
        let start = url.rfind('@').unwrap() + 1;
        let end = start + url[start..].find('/').unwrap();
        let broker: SocketAddr = url[start..end].parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut through = url.to_owned();
        through.replace_range(start..end, &listener.local_addr().unwrap().to_string());
        let stuck = Arc::new(Notify::new());
        let mut carrying = JoinSet::new();
        carrying.spawn(carry(listener, broker, Arc::clone(&stuck)));
        Self {
            url: through,
            stuck,
            _carrying: carrying,
        }
    }
}

async fn carry(listener: TcpListener, broker: SocketAddr, stuck: Arc<Notify>) {
    let (client, _) = listener.accept().await.unwrap();
    let (mut from_client, mut to_client) = client.into_split();
    let broker = TcpStream::connect(broker).await.unwrap();
    let (mut from_broker, mut to_broker) = broker.into_split();
    let answers = async {
        let _ = tokio::io::copy(&mut from_broker, &mut to_client).await;
    };
    let asks = async {
        let mut left = HALF_WAY;
        let mut buffer = vec![0; 4_096];
        while left > 0 {
            let most = left.min(buffer.len());
            let read = from_client.read(&mut buffer[..most]).await.unwrap();
            assert!(read > 0, "the command ended by itself");
            to_broker.write_all(&buffer[..read]).await.unwrap();
            left -= read;
        }
        stuck.notify_one();
        // Neither read on nor closed.
        std::future::pending::<()>().await;
    };
    tokio::join!(answers, asks);
}
