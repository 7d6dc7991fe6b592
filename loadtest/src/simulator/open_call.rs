//! A call that has not ended: whoever holds it last ends it.

use std::ops::Deref;
use std::sync::Arc;

use tokio::sync::watch;

use super::Shared;
use super::books::{Call, Facts};
use super::records::Outcome;

/// A call in flight. Dropped before anybody said how it ended, its client went away: the server
/// drops handlers and bodies when a connection closes.
#[derive(Debug)]
pub(crate) struct OpenCall {
    shared: Arc<Shared>,
    call: Arc<Call>,
    releases: watch::Receiver<u64>,
}

impl OpenCall {
    /// Writes down that a call has begun.
    pub(crate) fn begin(shared: &Arc<Shared>, facts: Facts) -> Self {
        // Before the call is in the books: whoever sees it there may release it at once.
        let releases = shared.releases.subscribe();
        let call = shared.books.begin(facts);
        Self {
            shared: Arc::clone(shared),
            call,
            releases,
        }
    }

    /// Tells of every release since the call began.
    pub(crate) fn releases(&self) -> watch::Receiver<u64> {
        self.releases.clone()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Says how the call ended; only the first word counts.
    pub(crate) fn end(&self, outcome: Outcome, finish_reason: Option<String>) {
        self.shared.books.end(&self.call, outcome, finish_reason);
    }
}

impl Deref for OpenCall {
    type Target = Call;

    fn deref(&self) -> &Call {
        &self.call
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if !self.call.has_ended() {
            self.end(Outcome::Disconnected, None);
        }
    }
}
