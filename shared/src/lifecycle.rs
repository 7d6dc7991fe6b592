//! Signals, tracked tasks and the deadline of a process.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The exit code of a process that was asked to stop and had to leave something undone: a request was
/// cut off, or work not given back. EX_TEMPFAIL of sysexits.h.
pub const UNDONE: u8 = 75;

/// Owns the end of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    stopping: CancellationToken,
    hurry: CancellationToken,
    tasks: TaskTracker,
    failed: Arc<AtomicBool>,
}

impl Lifecycle {
    /// A process that runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled once the process should take no new work.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Cancelled once what still runs should be given up: the second signal.
    #[must_use]
    pub fn hurry(&self) -> &CancellationToken {
        &self.hurry
    }

    /// Begins the end.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Begins the end on SIGTERM or SIGINT; the second signal asks to hurry.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn stop_on_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let this = self.clone();
        // Not tracked: it waits for a second signal that may never come.
        #[expect(clippy::disallowed_methods, reason = "the one home of spawned tasks")]
        tokio::spawn(async move {
            for token in [&this.stopping, &this.hurry] {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                tracing::info!(signal = name, "asked to stop");
                token.cancel();
            }
        });
        Ok(())
    }

    /// Runs a task the process waits for at its end.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.tasks.spawn(task)
    }

    /// Runs a task that must live as long as the process: one that panics, or ends before the stop,
    /// ends the process with a failure.
    pub fn run(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let this = self.clone();
        let handle = self.spawn(task);
        self.spawn(async move {
            let outcome = handle.await;
            if outcome.is_err() || !this.stopping.is_cancelled() {
                tracing::error!(
                    task = name,
                    panicked = outcome.is_err(),
                    "a task that should run for ever ended"
                );
                this.failed.store(true, Ordering::Relaxed);
                this.stopping.cancel();
            }
        });
    }

    /// Waits for all tasks, but no longer than `grace`. The code is that of a failure when a task that
    /// should run for ever has ended, and [`UNDONE`] when one has not.
    pub async fn finished(&self, grace: Duration) -> ExitCode {
        self.stopping.cancel();
        self.tasks.close();
        let in_time = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        if !in_time {
            tracing::warn!(tasks = self.tasks.len(), "stopped with tasks still running");
        }
        match (self.failed.load(Ordering::Relaxed), in_time) {
            (true, _) => ExitCode::FAILURE,
            (false, true) => ExitCode::SUCCESS,
            (false, false) => ExitCode::from(UNDONE),
        }
    }
}
