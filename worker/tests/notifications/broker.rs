//! A broker of a test's own, which it may kill, start again and starve. It listens with and without
//! TLS; what it shows was made once with `openssl`, for a hundred years, and its authority's key was
//! thrown away.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use shared::config::Vars;
use uuid::Uuid;

use crate::common::Fleet;

pub(crate) const EXCHANGE: &str = "told";
const QUEUE: &str = "everything";
/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
const NODE: &str = "balas@localhost";
const FILES: [(&str, &str); 3] = [
    ("ca.pem", include_str!("tls/ca.pem")),
    ("broker.pem", include_str!("tls/broker.pem")),
    ("broker.key", include_str!("tls/broker.key")),
];

pub(crate) struct OwnBroker {
    server: PathBuf,
    folder: PathBuf,
    port: u16,
    tls_port: u16,
    epmd_port: u16,
    dist_port: u16,
    node: Option<Child>,
    epmd: Child,
}

impl OwnBroker {
    /// One that is started and has a queue for everything; none where this machine has no broker,
    /// which `cargo xtask test` says, and with `REQUIRE_ALL` refuses.
    pub(crate) async fn start(fleet: &Fleet) -> Option<Self> {
        let mut vars = Vars::from_process();
        let server: PathBuf = vars.optional("TEST_RABBITMQ_SERVER", "set by cargo xtask test")?;
        let epmd: PathBuf = vars.optional("TEST_EPMD", "set by cargo xtask test")?;
        let folder = std::env::temp_dir().join(format!("balas-{}", Uuid::new_v4().simple()));
        fs::create_dir(&folder).unwrap();
        let [port, tls_port, epmd_port, dist_port] = free_ports();
        for (name, text) in FILES {
            fs::write(folder.join(name), text).unwrap();
        }
        let at = |name| folder.join(name).display().to_string();
        let settings = format!(
            "listeners.tcp.local = 127.0.0.1:{port}\nlisteners.ssl.local = 127.0.0.1:{tls_port}\n\
             ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
             ssl_options.verify = verify_none\nloopback_users.guest = true\n\
             vm_memory_high_watermark.absolute = 512MB\ndisk_free_limit.absolute = 1MB\n",
            at("ca.pem"),
            at("broker.pem"),
            at("broker.key"),
        );
        fs::write(folder.join("rabbitmq.conf"), settings).unwrap();
        fs::write(folder.join("rabbitmq-env.conf"), "").unwrap();
        fs::write(folder.join("enabled_plugins"), "[].").unwrap();
        let epmd = Command::new(epmd)
            .args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut broker = Self {
            server,
            folder,
            port,
            tls_port,
            epmd_port,
            dist_port,
            node: None,
            epmd,
        };
        broker.start_again(fleet).await;
        broker.declare().await;
        Some(broker)
    }

    /// Starts the node on what it has on disk.
    pub(crate) async fn start_again(&mut self, fleet: &Fleet) {
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let node = self
            .command(&self.server)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            // With its children, so that they can be killed together.
            .process_group(0)
            .spawn()
            .unwrap();
        self.node = Some(node);
        fleet
            .until(async || {
                let ended = self.node.as_mut().unwrap().try_wait().unwrap();
                let log = || fs::read_to_string(self.folder.join("log"));
                assert!(ended.is_none(), "the broker does not start: {:?}", log());
                // One that is still starting may take a connection and say nothing.
                let connecting = tokio::time::timeout(PATIENCE, self.channel());
                connecting.await.ok()?.ok()
            })
            .await;
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let at = |name| self.folder.join(name);
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .env("HOME", &self.folder)
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", NODE)
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            )
            .env("RABBITMQ_MNESIA_BASE", at("nodes"))
            .env("RABBITMQ_LOG_BASE", at("logs"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", at("pid"))
            .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", at("rabbitmq-env.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins"));
        command
    }

    /// `kill -9` of the node.
    pub(crate) fn kill(&mut self) {
        if let Some(mut node) = self.node.take() {
            let group = Pid::from_raw(i32::try_from(node.id()).unwrap());
            let _ = killpg(group, Signal::SIGKILL);
            let _ = node.wait();
        }
    }

    /// What `rabbitmqctl` answers.
    pub(crate) fn control(&self, arguments: &[&str]) -> String {
        let program = self.server.with_file_name("rabbitmqctl");
        let mut command = self.command(&program);
        let output: Output = command
            .args(["--quiet", "--node", NODE])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    pub(crate) fn tls_url(&self) -> String {
        format!("amqps://guest:guest@127.0.0.1:{}/%2f", self.tls_port)
    }

    /// The file with the authority that signed its certificate.
    pub(crate) fn authority(&self) -> String {
        self.folder.join("ca.pem").display().to_string()
    }

    async fn channel(&self) -> lapin::Result<(Channel, Connection)> {
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(&self.url(), properties).await?;
        Ok((connection.create_channel().await?, connection))
    }

    /// A queue that outlives everything and gets what is told of everybody.
    async fn declare(&self) {
        let declaring = tokio::time::timeout(PATIENCE * 6, self.declare_now());
        declaring.await.expect("the queue is declared");
    }

    async fn declare_now(&self) {
        let (channel, _connection) = self.channel().await.unwrap();
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        channel
            .exchange_declare(
                EXCHANGE.into(),
                ExchangeKind::Topic,
                durable,
                FieldTable::default(),
            )
            .await
            .unwrap();
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(QUEUE.into(), durable, FieldTable::default())
            .await
            .unwrap();
        channel
            .queue_bind(
                QUEUE.into(),
                EXCHANGE.into(),
                "notifications.user.*".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
    }

    /// The ids in the queue, each once, in the order in which they came first.
    pub(crate) async fn ids(&self) -> Vec<String> {
        let reading = tokio::time::timeout(PATIENCE * 6, self.read_ids());
        reading.await.expect("the queue is read")
    }

    async fn read_ids(&self) -> Vec<String> {
        let (channel, _connection) = self.channel().await.unwrap();
        let mut ids: Vec<String> = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(BasicGetMessage { delivery, .. }) =
            channel.basic_get(QUEUE.into(), options).await.unwrap()
        {
            let id = delivery.properties.message_id().as_ref().unwrap();
            if !ids.iter().any(|known| known == id.as_str()) {
                ids.push(id.as_str().to_owned());
            }
        }
        ids
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        self.kill();
        let _ = self.epmd.kill();
        let _ = self.epmd.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Below those that the kernel gives to outgoing connections, so that a port that was free is free
/// again after the broker was killed.
fn free_ports() -> [u16; 4] {
    let start = u16::try_from(std::process::id() * 7 % 10_000).unwrap();
    let mut free = (0..10_000)
        .map(|offset| 20_000 + (start + offset) % 10_000)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    [(); 4].map(|()| free.next().expect("a free port"))
}
