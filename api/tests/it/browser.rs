//! A headless Chromium, driven over its own DevTools protocol: a few calls of it are all that the
//! console's tests need.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use shared::config::Vars;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

use crate::common::until;

/// A browser with one page. It ends, and its profile goes, when this is dropped.
pub(crate) struct Browser {
    _process: Child,
    profile: PathBuf,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    calls: u64,
}

impl Browser {
    /// Starts the browser that `cargo xtask test` found; none when there is none, which it has
    /// said then, or has failed for with `REQUIRE_ALL`.
    #[expect(
        clippy::disallowed_methods,
        reason = "the reader of the pipe ends with the browser"
    )]
    pub(crate) async fn start(width: u32, height: u32) -> Option<Self> {
        let program: String =
            Vars::from_process().optional("TEST_CHROMIUM", "set by cargo xtask test")?;
        let profile =
            std::env::temp_dir().join(format!("balas-console-{}", Uuid::new_v4().simple()));
        let mut process = Command::new(program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args([
                "--disable-dev-shm-usage",
                "--remote-debugging-port=0",
                "about:blank",
            ])
            .arg(format!("--window-size={width},{height}"))
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("chromium starts");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let url = loop {
            let line = lines
                .next_line()
                .await
                .unwrap()
                .expect("chromium tells where it listens");
            if let Some((_, url)) = line.split_once("DevTools listening on ") {
                break url.to_owned();
            }
        };
        // A pipe that nobody reads would fill up and stop the browser.
        tokio::task::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut browser = Self {
            _process: process,
            profile,
            socket,
            session: String::new(),
            calls: 0,
        };
        let page = browser
            .call("Target.createTarget", json!({ "url": "about:blank" }))
            .await;
        let target = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", target).await;
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        browser.call("Page.enable", json!({})).await;
        Some(browser)
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut request = json!({ "id": self.calls, "method": method, "params": params });
        if !self.session.is_empty() {
            request["sessionId"] = json!(self.session);
        }
        self.socket
            .send(Message::text(request.to_string()))
            .await
            .unwrap();
        loop {
            let message = tokio::time::timeout(Duration::from_secs(60), self.socket.next());
            let message = message
                .await
                .expect("the browser answers")
                .unwrap()
                .unwrap();
            let Ok(text) = message.to_text() else {
                continue;
            };
            let answer: Value = serde_json::from_str(text).unwrap_or_default();
            if answer["id"] == json!(self.calls) {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }

    pub(crate) async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
    }

    pub(crate) async fn reload(&mut self) {
        self.call("Page.reload", json!({})).await;
    }

    /// The value of an expression; null while the page is being replaced.
    pub(crate) async fn value(&mut self, expression: &str) -> Value {
        let expression = json!({ "expression": expression, "returnByValue": true });
        self.call("Runtime.evaluate", expression).await["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) async fn wait(&mut self, expression: &str) {
        until(async || (self.value(expression).await == json!(true)).then_some(())).await;
    }

    /// Waits for the first element with this test id, then clicks it as soon as it can be.
    pub(crate) async fn click(&mut self, id: &str) {
        let element =
            format!("document.querySelector('[data-testid={id}]:not([disabled]):not([hidden])')");
        self.wait(&format!("!!{element}")).await;
        self.value(&format!("{element}.click()")).await;
    }

    /// Types into the element with this test id, as a keyboard does.
    pub(crate) async fn type_into(&mut self, id: &str, text: &str) {
        let element = format!("document.querySelector('[data-testid={id}]')");
        self.wait(&format!("!!{element}")).await;
        self.value(&format!("{element}.focus()")).await;
        self.call("Input.insertText", json!({ "text": text })).await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}
