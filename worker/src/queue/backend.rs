//! The side that apalis sees: a stream of claimed generations.

use std::task::{Poll, ready};

use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::task::Task;
use apalis_core::worker::context::WorkerContext;
use shared::store::generations::Claim;
use tokio::sync::mpsc;

use super::Place;

/// A claimed generation, what its prompt is made from, and the place it takes on this worker.
#[derive(Debug)]
pub struct Job {
    /// The claim.
    pub claim: Claim,
    /// Freed when the job ends, which lets the fetcher claim another one.
    pub place: Place,
}

/// Hands the fetcher's claims to apalis. It cannot fail: the fetcher keeps its troubles with Redis
/// and Postgres to itself, because an error here would end the worker and drop what it runs.
#[derive(Debug)]
pub struct QueueBackend {
    claims: mpsc::Receiver<Job>,
}

impl QueueBackend {
    /// A backend over the fetcher's claims; it ends when the fetcher does.
    #[must_use]
    pub fn new(claims: mpsc::Receiver<Job>) -> Self {
        Self { claims }
    }
}

impl Backend for QueueBackend {
    type Task = Task<Job>;
    type Error = std::convert::Infallible;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        cx: &mut std::task::Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Self::Task, Self::Error>>> {
        match ready!(self.claims.poll_recv(cx)) {
            Some(job) => Poll::Ready(Some(Ok(Task::new(job)))),
            None => {
                // Every claim has been handed on, so now apalis may stop; told earlier, it would
                // drop those still in the channel. It only refuses before it has started.
                if let Err(error) = worker.stop() {
                    tracing::debug!(%error, "not stopped");
                }
                Poll::Ready(None)
            }
        }
    }

    fn poll_close(
        &mut self,
        _: &mut std::task::Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for QueueBackend {
    type Args = Job;
    type Id = ();
    type Kind = Ephemeral;
    type Config = ();
    type Layer = tower::layer::util::Identity;

    fn config(&self) -> &Self::Config {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Self::Layer {
        tower::layer::util::Identity::new()
    }
}
