//! The analysis worker, played by a client of RabbitMQ that is not ours.

use std::process::Stdio;

use serde_json::{Value, json};
use shared::config::Vars;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../worker/tests/assessments/publish.py"
);

/// A process that publishes. It ends when this is dropped.
pub(crate) struct Publisher {
    _process: Child,
    input: Option<ChildStdin>,
    confirmed: Lines<BufReader<ChildStdout>>,
}

impl Publisher {
    /// None where pika cannot be had, which `cargo xtask test` says, and with `REQUIRE_ALL` refuses.
    pub(crate) fn start(url: &str, exchange: &str) -> Option<Self> {
        let pika: String = Vars::from_process().optional("TEST_PIKA", "set by cargo xtask test")?;
        let mut process = Command::new("python3")
            .args([SCRIPT, url, exchange])
            .env("PYTHONPATH", pika)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let confirmed = BufReader::new(process.stdout.take().unwrap()).lines();
        Some(Self {
            input: process.stdin.take(),
            confirmed,
            _process: process,
        })
    }

    /// Publishes and waits until the broker has it.
    pub(crate) async fn publish(&mut self, key: &str, body: &Value) {
        self.publish_text(key, &body.to_string(), None).await;
    }

    pub(crate) async fn publish_text(&mut self, key: &str, body: &str, message_id: Option<&str>) {
        let line = json!({ "key": key, "body": body, "message_id": message_id });
        let line = format!("{line}\n");
        let input = self.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).await.unwrap();
        self.confirmed().await;
    }

    /// Hands over many at once; [`Publisher::confirmed`] says when each is with the broker.
    #[expect(clippy::disallowed_methods, reason = "the writer ends with its events")]
    pub(crate) fn hand_over(&mut self, events: Vec<(&'static str, String)>) {
        let mut input = self.input.take().unwrap();
        tokio::task::spawn(async move {
            for (key, body) in events {
                let line = format!("{}\n", json!({ "key": key, "body": body }));
                input.write_all(line.as_bytes()).await.unwrap();
            }
        });
    }

    pub(crate) async fn confirmed(&mut self) {
        let line = self.confirmed.next_line().await.unwrap();
        assert_eq!(line.as_deref(), Some("published"), "the publisher ended");
    }
}
