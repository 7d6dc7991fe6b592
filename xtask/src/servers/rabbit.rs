//! A private RabbitMQ, where one can be had: it is in no wheel, so it comes from PATH or from apt.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use nix::sys::signal::Signal;

use super::{READY_WITHIN, apt, server_command};
use crate::{
    files::write_private,
    instance::Instance,
    ports,
    process::Service,
    project::{Project, ServersHome},
    ui,
};

/// Where Debian keeps the start script. The one on PATH there changes to a user of its own, who
/// cannot enter our folders.
const DEBIAN_BIN: &str = "/usr/lib/rabbitmq/bin";

/// The start script, and Erlang's name server.
#[derive(Debug)]
pub(crate) struct Programs {
    server: PathBuf,
    epmd: PathBuf,
}

impl Programs {
    /// What the system has.
    pub(crate) fn installed(project: &Project) -> Option<Self> {
        let path = project.env.get("PATH").unwrap_or_default();
        let find = |name: &str| {
            std::env::split_paths(path)
                .map(|dir| dir.join(name))
                .find(|file| file.is_file())
        };
        let debian = Some(Path::new(DEBIAN_BIN).join("rabbitmq-server"));
        let server = debian
            .filter(|file| file.is_file())
            .or_else(|| find("rabbitmq-server"))?;
        Some(Self {
            server,
            epmd: find("epmd")?,
        })
    }

    /// What tests are told that stop and start a broker of their own.
    pub(crate) fn for_tests(&self) -> [(String, String); 2] {
        [
            ("TEST_RABBITMQ_SERVER", &self.server),
            ("TEST_EPMD", &self.epmd),
        ]
        .map(|(name, path)| (name.to_owned(), path.display().to_string()))
    }

    /// What the system has, or (root on Debian) what apt brings.
    pub(crate) fn find(project: &Project) -> anyhow::Result<Self> {
        if let Some(found) = Self::installed(project) {
            return Ok(found);
        }
        if apt::is_possible() {
            apt::install(project, &["rabbitmq-server"])?;
            if let Some(found) = Self::installed(project) {
                return Ok(found);
            }
        }
        bail!("there is no RabbitMQ to start: install rabbitmq-server, or set RABBITMQ_URL")
    }
}

/// A running private RabbitMQ. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Rabbit {
    server: Service,
    epmd: Service,
    port: u16,
    password: String,
}

impl Rabbit {
    /// Starts it with an Erlang name server of its own: the usual one is shared by the whole machine.
    pub(crate) fn start(
        project: &Project,
        home: &ServersHome,
        instance: &Instance,
        programs: &Programs,
    ) -> anyhow::Result<Self> {
        ui::progress("Starting", "RabbitMQ");
        let data = instance.dir.join("rabbitmq");
        home.private_dir(&data)?;
        let password = super::kept_password(&instance.dir.join("rabbitmq.password"))?;
        let port = ports::remembered(&instance.dir.join("rabbitmq.port"))?;
        let (epmd_port, dist_port) = (ports::any_free()?, ports::any_free()?);

        let file = |name: &str, text: &str| -> anyhow::Result<PathBuf> {
            let path = data.join(name);
            write_private(&path, text)?;
            home.give(&path)?;
            Ok(path)
        };
        let config = file("rabbitmq.conf", &settings(port, &password))?;
        let plugins = file("enabled_plugins", "[].\n")?;
        let no_system_settings = file("rabbitmq-env.conf", "")?;

        let log = project.fresh_log(&format!("{}-rabbitmq", instance.name));
        let mut command = server_command(&programs.epmd, home, &data);
        command
            .args(["-port", &epmd_port.to_string()])
            .args(["-address", "127.0.0.1"]);
        let epmd = Service::spawn("epmd", command, &log, &instance.ledger)?;

        let mut command = server_command(&programs.server, home, &data);
        command
            .env("HOME", &data)
            .env("ERL_EPMD_PORT", epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", "balas@localhost")
            .env("RABBITMQ_DIST_PORT", dist_port.to_string())
            // Erlang's own port, through which anyone with the cookie may run code.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            )
            .env("RABBITMQ_MNESIA_BASE", data.join("nodes"))
            .env("RABBITMQ_LOG_BASE", data.join("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", data.join("server.pid"))
            .env("RABBITMQ_CONFIG_FILE", &config)
            .env("RABBITMQ_CONF_ENV_FILE", &no_system_settings)
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", &plugins);
        let server = Service::spawn("RabbitMQ", command, &log, &instance.ledger)?;
        let mut rabbit = Self {
            server,
            epmd,
            port,
            password,
        };
        rabbit.wait_ready(project)?;
        let _ = fs::write(instance.dir.join("rabbitmq.port"), port.to_string());
        Ok(rabbit)
    }

    fn wait_ready(&mut self, project: &Project) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while !speaks_amqp(self.port) {
            project.interrupt.check()?;
            let ended = self.server.exited().or_else(|| self.epmd.exited());
            if ended.is_some() || Instant::now() >= deadline {
                bail!(
                    "RabbitMQ did not start; the last lines of {}:\n{}",
                    self.server.log().display(),
                    self.server.last_lines()
                );
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://balas:{}@127.0.0.1:{}/%2f", self.password, self.port)
    }

    pub(crate) fn service(&mut self) -> &mut Service {
        &mut self.server
    }

    /// Stops the node, then its name server.
    pub(crate) fn stop(&mut self) {
        // The start script leaves the signal to Erlang on some systems and handles it on others.
        self.server
            .stop_group(Signal::SIGTERM, Duration::from_secs(30));
        self.epmd.stop(Signal::SIGTERM, Duration::from_secs(5));
    }
}

impl Drop for Rabbit {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether the port answers the AMQP greeting with a method frame (type 1), which it does only once
/// the broker takes clients.
fn speaks_amqp(port: u16) -> bool {
    let greet = || -> std::io::Result<u8> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(250))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first[0])
    };
    greet().is_ok_and(|kind| kind == 1)
}

fn settings(port: u16, password: &str) -> String {
    format!(
        "listeners.tcp.local = 127.0.0.1:{port}\n\
         default_user = balas\n\
         default_pass = {password}\n\
         vm_memory_high_watermark.absolute = 512MB\n\
         disk_free_limit.absolute = 50MB\n"
    )
}
