//! A replica as an operator starts it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{TestApp, replica};

/// A process that has not ended after so long never does.
const PATIENCE: Duration = Duration::from_secs(120);

/// It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
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
        let serving = log
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let line: serde_json::Value = serde_json::from_str(&line).ok()?;
                Some(line["server.address"].as_str()?.to_owned())
            })
            .expect("it serves");
        // What nobody reads would stop it in the end.
        std::thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        Process {
            child,
            url: format!("http://{serving}"),
        }
    }
}

impl Process {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for the end and returns its exit code.
    pub(crate) async fn ended(mut self) -> Option<i32> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
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
