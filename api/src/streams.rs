//! Open event streams and WebSockets of this process, counted by user.
//!
//! One runaway page that opens a stream per second must not take the places of everybody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::error::{Code, Problem, Result};

/// Counts and limits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Streams {
    open: Arc<Mutex<HashMap<Uuid, u32>>>,
    per_user: u32,
}

/// A place for one stream; dropping it gives the place back.
#[derive(Debug)]
pub struct StreamPlace {
    open: Arc<Mutex<HashMap<Uuid, u32>>>,
    user_id: Uuid,
    transport: &'static str,
}

impl Streams {
    /// Allows `per_user` streams of one user at once.
    #[must_use]
    pub fn new(per_user: u32) -> Self {
        Self {
            open: Arc::default(),
            per_user,
        }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// `too_many_streams` when the user has as many as allowed.
    pub fn open(&self, user_id: Uuid, transport: &'static str) -> Result<StreamPlace> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(user_id).or_default();
        if *count >= self.per_user {
            return Err(Problem::of(Code::TooManyStreams));
        }
        *count += 1;
        metrics::gauge!(shared::metrics::PUSH_CONNECTIONS, "transport" => transport).increment(1);
        Ok(StreamPlace {
            open: Arc::clone(&self.open),
            user_id,
            transport,
        })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        metrics::gauge!(shared::metrics::PUSH_CONNECTIONS, "transport" => self.transport)
            .decrement(1);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.user_id) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.user_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_comes_back_when_its_stream_ends() {
        let streams = Streams::new(2);
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let first = streams.open(one, "sse").unwrap();
        let _second = streams.open(one, "websocket").unwrap();
        assert_eq!(
            streams.open(one, "sse").unwrap_err().code(),
            Code::TooManyStreams
        );
        let _others = streams.open(other, "sse").unwrap();
        drop(first);
        let _third = streams.open(one, "sse").unwrap();
    }
}
