//! The scripts by which Redis and its Sentinels start in a cluster, run as they are: each process has an address of
//! its own in place of a pod's name.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{program, read, root};

const MANIFEST: &str = "k8s/overlays/production/redis.yaml";
/// Votes are repeated after twice the failover-timeout, so that this is several of them.
const PATIENCE: Duration = Duration::from_secs(150);

/// A script of the ConfigMap.
fn script(name: &str) -> String {
    let manifest = read(MANIFEST);
    let (_, text) = manifest.split_once(&format!("\n  {name}: |\n")).unwrap();
    let lines = text.lines().take_while(|line| line.starts_with("    "));
    lines.map(|line| format!("{}\n", &line[4..])).collect()
}

/// A pod: killed when this is dropped.
struct Pod(Child);

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the pods run: a folder, and addresses that nobody else has.
struct Cluster {
    folder: tempfile::TempDir,
    network: [u8; 2],
    port: String,
    sentinel_port: String,
}

impl Cluster {
    fn new(server: &std::path::Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        // In a cluster each has a network of its own; here each must listen at its own address alone.
        let server = format!("exec '{}' \"$@\" --bind \"$OWN\"", server.display());
        let client = root().join("shared/tests/deploy/valkey_cli.py");
        let client = format!("exec python3 '{}' \"$@\"", client.display());
        for (name, line) in [("valkey-server", server), ("valkey-cli", client)] {
            fs::write(bin.join(name), format!("#!/bin/sh\n{line}\n")).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        for name in ["server.sh", "sentinel.sh"] {
            fs::write(folder.path().join(name), script(name)).unwrap();
        }
        let random = folder.path().as_os_str().as_encoded_bytes();
        let random = random.iter().rev().fold(7_u32, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add((*byte).into())
        });
        let [port, sentinel_port] = [(); 2].map(|()| {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            free.local_addr().unwrap().port().to_string()
        });
        Self {
            network: [1 + (random % 253) as u8, (random / 253 % 253) as u8],
            folder,
            port,
            sentinel_port,
        }
    }

    /// Servers are 1 and 2, Sentinels 11 to 13.
    fn address(&self, number: u8) -> String {
        let [a, b] = self.network;
        format!("127.{a}.{b}.{number}")
    }

    fn start(&self, name: &str, number: u8) -> Pod {
        let data = self.folder.path().join(number.to_string());
        fs::create_dir_all(&data).unwrap();
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("{number}.log")))
            .unwrap();
        let child = Command::new("sh")
            .arg(self.folder.path().join(name))
            .env("PATH", self.path())
            .env("OWN", self.address(number))
            .env("FIRST", self.address(1))
            // The service chooses any that is ready.
            .env("SENTINEL", self.address(11))
            .env("PORT", &self.port)
            .env("SENTINEL_PORT", &self.sentinel_port)
            .env("DATA", data)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Pod(child)
    }

    fn path(&self) -> std::ffi::OsString {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = [self.folder.path().join("bin")];
        let all = own.into_iter().chain(std::env::split_paths(&path));
        std::env::join_paths(all.collect::<Vec<PathBuf>>()).unwrap()
    }

    /// What one of them answers; empty while it does not.
    fn ask(&self, number: u8, words: &[&str]) -> Vec<String> {
        let port = if number > 10 {
            &self.sentinel_port
        } else {
            &self.port
        };
        let said = Command::new(self.folder.path().join("bin/valkey-cli"))
            .args(["-h", &self.address(number), "-p", port, "--raw"])
            .args(words)
            .output()
            .unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let began = Instant::now();
        while !holds() {
            if began.elapsed() > PATIENCE {
                panic!("{what} never; {}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn logs(&self) -> String {
        let files = [1, 2, 11, 12, 13];
        let logs = files.map(|number| {
            let text = fs::read_to_string(self.folder.path().join(format!("{number}.log")));
            format!("--- {number}\n{}", text.unwrap_or_default())
        });
        logs.concat()
    }

    /// Waits until this server is the master by its own word and by that of every Sentinel, and the other one follows it.
    fn settles_on(&self, master: u8) {
        let other = 3 - master;
        self.until(&format!("{master} was the master"), || {
            let named = [11, 12, 13].iter().all(|sentinel| {
                let said = self.ask(*sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "balas"]);
                said.first() == Some(&self.address(master))
            });
            named && self.role(master) == "master" && self.follows(other, master)
        });
    }

    fn role(&self, number: u8) -> String {
        self.ask(number, &["ROLE"])
            .first()
            .cloned()
            .unwrap_or_default()
    }

    fn follows(&self, number: u8, master: u8) -> bool {
        let role = self.ask(number, &["ROLE"]);
        let wanted = ["slave", &self.address(master), &self.port, "connected"];
        role.len() > 3 && role[..4] == wanted
    }

    /// A fail-over needs a majority that knows of each other, and of the replica.
    fn knows_itself(&self) {
        for sentinel in [11, 12, 13] {
            self.until("a Sentinel knew the others", || {
                let known = self.ask(sentinel, &["SENTINEL", "MASTER", "balas"]);
                let has = |key: &str, value: &str| {
                    known
                        .chunks(2)
                        .any(|pair| pair[0] == key && pair[1] == value)
                };
                has("num-slaves", "1") && has("num-other-sentinels", "2")
            });
        }
    }
}

#[test]
fn servers_and_sentinels_find_each_other_and_the_master_after_a_fail_over() {
    let (Some(server), Some(_)) = (
        program("TEST_REDIS_SERVER"),
        program("TEST_KUBERNETES_VALIDATE"),
    ) else {
        return;
    };
    let cluster = Cluster::new(&server);
    // As in a new cluster all at once: nobody can be asked who the master is.
    let mut servers = [1, 2].map(|number| cluster.start("server.sh", number));
    let mut sentinels = [11, 12, 13].map(|number| cluster.start("sentinel.sh", number));
    cluster.settles_on(1);
    cluster.knows_itself();
    assert_eq!(cluster.ask(1, &["SET", "kept", "yes"]), ["OK"]);
    cluster.until("the replica had it", || {
        cluster.ask(2, &["GET", "kept"]) == ["yes"]
    });

    // The master is gone, and the other one takes over with what it had.
    servers[0] = Pod(Command::new("true").spawn().unwrap());
    cluster.until("the other one took over", || {
        cluster.role(2) == "master"
            && [11, 12, 13].iter().all(|sentinel| {
                let said =
                    cluster.ask(*sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "balas"]);
                said.first() == Some(&cluster.address(2))
            })
    });
    assert_eq!(cluster.ask(2, &["GET", "kept"]), ["yes"]);

    // It comes back, empty, and is no master for a moment: it would be one of two.
    servers[0] = cluster.start("server.sh", 1);
    cluster.until("it came back", || !cluster.role(1).is_empty());
    assert_eq!(cluster.role(1), "slave", "{}", cluster.logs());
    cluster.settles_on(2);
    cluster.until("it had everything", || {
        cluster.ask(1, &["GET", "kept"]) == ["yes"]
    });

    // A Sentinel that comes back knows the master of now, not the first one.
    sentinels[1] = Pod(Command::new("true").spawn().unwrap());
    sentinels[1] = cluster.start("sentinel.sh", 12);
    cluster.until("it came back", || !cluster.ask(12, &["PING"]).is_empty());
    let said = cluster.ask(12, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "balas"]);
    assert_eq!(said, [cluster.address(2), cluster.port.clone()]);
    drop((servers, sentinels));
}
