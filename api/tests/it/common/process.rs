//! A replica as an operator starts it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{TestApp, replica};

/// A process that has not ended after so long never does.
const PATIENCE: Duration = Duration::from_secs(120);

/// It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    log: JoinHandle<String>,
    /// `http://127.0.0.1:<port>`.
    pub(crate) url: String,
}

impl TestApp {
    /// A replica that is a process of its own, once it serves.
    pub(crate) fn process(&self, settings: &[(&'static str, &str)]) -> Process {
        let settings: Vec<(&'static str, String)> = settings
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let mut child = Command::new(env!("CARGO_BIN_EXE_balas-api"))
            .env_clear()
            .envs(replica::environment(&self.env, &self.simulator, &settings))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let serving = log
            .by_ref()
            .map_while(Result::ok)
            .inspect(|line| shared::testing::keep_line(line))
            .inspect(|line| said.extend([line.as_str(), "\n"]))
            .find_map(|line| address(&line))
            .expect("it serves");
        // What nobody reads would stop it in the end.
        let log = std::thread::spawn(move || {
            log.map_while(Result::ok).for_each(|line| {
                shared::testing::keep_line(&line);
                said.extend([line.as_str(), "\n"]);
            });
            said
        });
        Process {
            child,
            log,
            url: format!("http://{serving}"),
        }
    }
}

/// Where it serves, if the line says so, in either format.
fn address(line: &str) -> Option<String> {
    if let Ok(line) = serde_json::from_str::<serde_json::Value>(line) {
        return Some(line["server.address"].as_str()?.to_owned());
    }
    let (_, rest) = line.split_once("server.address=")?;
    Some(rest.split_whitespace().next()?.trim_matches('"').to_owned())
}

impl Process {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for the end and returns its exit code.
    pub(crate) async fn ended(self) -> Option<i32> {
        self.said_until_the_end().await.0
    }

    /// Waits for the end and returns its exit code and its log.
    pub(crate) async fn said_until_the_end(mut self) -> (Option<i32>, String) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = std::mem::replace(&mut self.log, std::thread::spawn(String::new));
                return (status.code(), log.join().unwrap());
            }
            assert!(tokio::time::Instant::now() < deadline, "it does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
